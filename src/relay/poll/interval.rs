//! The pause between two sweeps: shorter while rows keep coming.

use std::time::Duration;

/// The maximum factor by which the pause becomes shorter.
const MAX_SPEEDUP: u32 = 8;

/// The pause before the next sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollInterval {
    max: Duration,
    pause: Duration,
}

impl PollInterval {
    /// Starts with the configured pause, which is the maximum.
    pub(super) const fn new(max: Duration) -> Self {
        Self { max, pause: max }
    }

    /// Gives the pause after a sweep: half of the last one if there were rows, else twice.
    pub(super) fn after(&mut self, had_rows: bool) -> Duration {
        let pause = if had_rows { self.pause / 2 } else { self.pause * 2 };
        self.pause = pause.clamp(self.max / MAX_SPEEDUP, self.max);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_shorter_while_rows_keep_coming() {
        let mut interval = PollInterval::new(Duration::from_millis(80));
        let mut after = |had_rows| interval.after(had_rows).as_millis();
        assert_eq!(after(false), 80);
        assert_eq!([after(true), after(true), after(true), after(true)], [40, 20, 10, 10]);
        assert_eq!([after(false), after(true), after(false), after(false), after(false)], [20, 10, 20, 40, 80]);
        assert_eq!(after(false), 80);
    }
}
