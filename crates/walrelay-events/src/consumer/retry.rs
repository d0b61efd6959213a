//! When an event is tried again, and when that has been enough.

use std::time::Duration;
use std::time::Instant;

/// The first pause after something that is no fault of the event.
const AGAIN: Duration = Duration::from_millis(10);

/// How often and how soon a failed event is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The first pause; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// After so many tries the event is rejected.
    pub tries_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(30), tries_max: 10 }
    }
}

impl Policy {
    /// Gives the pause after so many tries (at least one): between half and the whole of one that doubles, or none when
    /// they have been enough. `noise` is any number; different events should bring different ones.
    #[must_use]
    pub fn pause(&self, tries: u32, noise: u64) -> Option<Duration> {
        (tries < self.tries_max).then(|| self.doubled(self.first_pause, tries, noise))
    }

    /// Gives the pause after so many returns (at least one) that were no fault of the event: short at first, and without end.
    #[must_use]
    pub fn again(&self, waits: u32, noise: u64) -> Duration {
        self.doubled(AGAIN, waits, noise)
    }

    fn doubled(&self, first: Duration, times: u32, noise: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
        jitter(first.saturating_mul(doubled).min(self.longest_pause), noise)
    }
}

/// What stands for a time beyond any clock.
const YEAR: Duration = Duration::from_secs(31_536_000);

/// Gives the time after a pause, however long an application makes it.
#[must_use]
pub fn later(now: Instant, pause: Duration) -> Instant {
    now + pause.min(YEAR)
}

fn jitter(whole: Duration, noise: u64) -> Duration {
    // One step of a multiplicative hash: neighbouring numbers give shares far apart.
    let share = u32::try_from(noise.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54).unwrap_or_default();
    whole / 2 + whole / 2 * share / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_may_be_longer_than_any_clock() {
        let now = Instant::now();
        assert!(later(now, Duration::MAX) > now);
        assert_eq!(later(now, Duration::from_secs(5)), now + Duration::from_secs(5));
    }

    #[test]
    fn pauses_double_up_to_a_limit_with_jitter_and_end() {
        let policy = Policy { tries_max: 12, ..Policy::default() };
        for tries in 1..12 {
            let whole = (policy.first_pause * 2_u32.pow(tries - 1)).min(policy.longest_pause);
            let pause = policy.pause(tries, u64::from(tries) * 7).unwrap();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        assert_eq!(policy.pause(12, 0), None);
        assert_ne!(policy.pause(5, 1), policy.pause(5, 2));
        assert!(policy.again(1, 0) <= AGAIN);
        assert!(policy.again(1_000, 0) >= policy.longest_pause / 2, "it grows, and has no end");
    }
}
