//! How long to wait between two sweeps: less while rows keep coming, so that they wait less.

use std::time::Duration;

/// How many times shorter the pause may become than what is configured.
const MAX_SHORTENED: u32 = 8;

/// The pause before the next sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollInterval {
    longest: Duration,
    pause: Duration,
}

impl PollInterval {
    /// Starts with the longest pause, which is what is configured.
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, pause: longest }
    }

    /// Gives the pause after a sweep: half of the last one if there were rows, else twice as long.
    pub(super) fn after(&mut self, had_rows: bool) -> Duration {
        let pause = if had_rows { self.pause / 2 } else { self.pause * 2 };
        self.pause = pause.clamp(self.longest / MAX_SHORTENED, self.longest);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_shrink_while_rows_come_and_grow_back_while_none_does() {
        let mut interval = PollInterval::new(Duration::from_millis(80));
        let mut after = |had_rows| interval.after(had_rows).as_millis();
        assert_eq!(after(false), 80);
        assert_eq!([after(true), after(true), after(true), after(true)], [40, 20, 10, 10]);
        assert_eq!([after(false), after(true), after(false), after(false), after(false)], [20, 10, 20, 40, 80]);
        assert_eq!(after(false), 80);
    }
}
