//! The rate of acknowledged events over the last ten minutes, for the chart of the page.

use std::collections::VecDeque;
use std::time::Duration;

/// The time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// The number of rates that are kept.
pub(super) const MAX_RATES: usize = 120;

/// Events per second in each interval, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<u64>,
    rates: VecDeque<f64>,
}

impl History {
    /// Adds the number of events since the start, `elapsed` after the number before it.
    pub(super) fn note(&mut self, events: u64, elapsed: Duration) {
        if let Some(before) = self.last.replace(events) {
            if self.rates.len() == MAX_RATES {
                self.rates.pop_front();
            }
            // A count of one interval fits 32 bits, unless the machine slept: then the rate is too small.
            let more = f64::from(u32::try_from(events.saturating_sub(before)).unwrap_or(u32::MAX));
            self.rates.push_back(more / elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
        }
    }

    pub(super) fn rates(&self) -> Vec<f64> {
        self.rates.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_bounded_and_has_rates_per_second() {
        let mut history = History::default();
        history.note(100, INTERVAL);
        assert!(history.rates().is_empty(), "one number is no rate");
        history.note(110, INTERVAL);
        history.note(110, INTERVAL);
        history.note(160, 2 * INTERVAL);
        assert_eq!(history.rates(), [2.0, 0.0, 5.0]);
        for _ in 0..2 * MAX_RATES {
            history.note(0, INTERVAL);
        }
        assert_eq!(history.rates(), [0.0; MAX_RATES], "a counter does not go back");
    }
}
