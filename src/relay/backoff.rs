//! Growing pauses between attempts, with jitter, so that a herd does not come back as one.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// A pause that doubles.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    pause: Duration,
    /// A small pseudo-random state; nothing secret depends on it.
    state: u64,
}

impl Backoff {
    /// Starts with the shortest pause.
    pub(super) const fn new(seed: u64) -> Self {
        Self { pause: FIRST, state: seed | 1 }
    }

    /// Begins again with the shortest pause.
    pub(super) const fn reset(&mut self) {
        self.pause = FIRST;
    }

    /// Gives the next pause: between half and the whole of one that doubles each time.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let half = self.pause / 2;
        let share = u32::try_from(self.state % 1_000).unwrap_or_default();
        self.pause = (self.pause * 2).min(LONGEST);
        half + half * share / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e10_pauses_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.next_pause()).collect();
        let mut whole = FIRST;
        for pause in &pauses {
            assert!(*pause >= whole / 2 && *pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
        assert_ne!(Backoff::new(8).next_pause(), Backoff::new(1 << 40).next_pause());
    }
}
