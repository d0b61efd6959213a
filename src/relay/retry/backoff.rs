//! Exponential backoff with jitter.

use std::time::Duration;

const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// The maximum backoff while a peer is down: it must be noticed soon when it is up again.
pub(in crate::relay) const MAX_BACKOFF_DOWN: Duration = Duration::from_secs(1);
/// The maximum backoff while a peer is up and rejects the connection: it logs each attempt.
pub(in crate::relay) const MAX_BACKOFF_REFUSED: Duration = Duration::from_secs(30);

/// The state of a backoff.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Backoff {
    pause: Duration,
    /// The state of a small random number generator; nothing secret depends on it.
    state: u64,
}

impl Backoff {
    /// Starts with the initial backoff.
    pub(in crate::relay) const fn new(seed: u64) -> Self {
        Self { pause: INITIAL_BACKOFF, state: seed | 1 }
    }

    /// Returns to the initial backoff.
    pub(in crate::relay) const fn reset(&mut self) {
        self.pause = INITIAL_BACKOFF;
    }

    /// Gives the next backoff: it doubles each time up to `max`; the jitter is up to half of it.
    pub(in crate::relay) fn next_backoff(&mut self, max: Duration) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.pause = self.pause.min(max);
        let half = self.pause / 2;
        let share = u32::try_from(self.state % 1_000).unwrap_or_default();
        self.pause = (self.pause * 2).min(max);
        half + half * share / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e10_backoff_grows_to_its_maximum_with_jitter() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.next_backoff(MAX_BACKOFF_REFUSED)).collect();
        let mut whole = INITIAL_BACKOFF;
        for pause in &pauses {
            assert!(*pause >= whole / 2 && *pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(MAX_BACKOFF_REFUSED);
        }
        backoff.reset();
        assert!(backoff.next_backoff(MAX_BACKOFF_REFUSED) <= INITIAL_BACKOFF);
        let first = |seed| Backoff::new(seed).next_backoff(MAX_BACKOFF_REFUSED);
        assert_ne!(first(8), first(1 << 40));
    }

    #[test]
    fn a_peer_that_is_down_is_retried_within_a_second() {
        let mut backoff = Backoff::new(7);
        for _ in 0..50 {
            assert!(backoff.next_backoff(MAX_BACKOFF_DOWN) <= MAX_BACKOFF_DOWN);
        }
    }
}
