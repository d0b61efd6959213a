//! How often a failed record is retried, and after which backoff.

use std::time::Duration;
use std::time::Instant;

/// The first backoff after a transient failure.
const TRANSIENT_BACKOFF: Duration = Duration::from_millis(10);
/// Longer backoffs are cut to this, because `Instant` cannot hold every duration.
const LONGEST: Duration = Duration::from_secs(31_536_000);

/// How often a failed record is retried, and after which backoff. The backoff doubles with each attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The backoff after the first attempt.
    pub initial_backoff: Duration,
    /// The longest backoff.
    pub max_backoff: Duration,
    /// After this many attempts the record goes to the dead-letter topic. 1 means no retry.
    pub max_attempts: u32,
    /// After this time with nothing but transient failures the record goes to the dead-letter topic. Without one it is
    /// retried without end, because the event is not at fault: later events of its key would overtake it.
    pub transient_timeout: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
            max_attempts: 10,
            transient_timeout: None,
        }
    }
}

impl RetryPolicy {
    /// Returns the backoff after this many attempts (at least one), or none if there are no attempts left.
    ///
    /// It is between half and all of the doubled backoff. The jitter comes from `seed`, which should differ between
    /// records.
    pub(crate) fn backoff(&self, attempts: u32, seed: u64) -> Option<Duration> {
        (attempts < self.max_attempts).then(|| self.doubled(self.initial_backoff, attempts, seed))
    }

    /// Returns the backoff after this many transient failures (at least one).
    pub(crate) fn transient_backoff(&self, failures: u32, seed: u64) -> Duration {
        self.doubled(TRANSIENT_BACKOFF, failures, seed)
    }

    fn doubled(&self, first: Duration, times: u32, seed: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
        jitter(first.saturating_mul(doubled).min(self.max_backoff), seed)
    }
}

/// The transient failures of a record since its last attempt that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TransientRun {
    failures: u32,
    since: Option<Instant>,
}

impl TransientRun {
    /// Adds a failure and returns the time since the first one.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        self.failures = self.failures.saturating_add(1);
        now.saturating_duration_since(*self.since.get_or_insert(now))
    }

    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns when the first failure was, if there was one.
    pub(crate) const fn since(&self) -> Option<Instant> {
        self.since
    }
}

/// Adds a duration to a time. Unlike `+` it takes every duration that an application may set.
pub(crate) fn after(now: Instant, duration: Duration) -> Instant {
    now + duration.min(LONGEST)
}

fn jitter(backoff: Duration, seed: u64) -> Duration {
    // One step of a multiplicative hash: consecutive seeds give shares far apart.
    let share = u32::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54).unwrap_or_default();
    backoff / 2 + backoff / 2 * share / 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_may_be_longer_than_any_clock() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now);
        assert_eq!(after(now, Duration::from_secs(5)), now + Duration::from_secs(5));
    }

    #[test]
    fn backoffs_double_up_to_a_limit_with_jitter_and_end() {
        let policy = RetryPolicy { max_attempts: 12, ..RetryPolicy::default() };
        for attempts in 1..12 {
            let longest = (policy.initial_backoff * 2_u32.pow(attempts - 1)).min(policy.max_backoff);
            let backoff = policy.backoff(attempts, u64::from(attempts) * 7).unwrap();
            assert!(backoff >= longest / 2 && backoff <= longest, "{backoff:?} of {longest:?}");
        }
        assert_eq!(policy.backoff(12, 0), None);
        assert_ne!(policy.backoff(5, 1), policy.backoff(5, 2));
        assert!(policy.transient_backoff(1, 0) <= TRANSIENT_BACKOFF);
        assert!(policy.transient_backoff(1_000, 0) >= policy.max_backoff / 2, "it grows and has no end");
    }
}
