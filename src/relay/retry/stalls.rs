//! How long to wait before a batch that timed out is published again.

use std::time::Duration;

/// The maximum pause.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// The progress at the last stall, and the number of stalls there without further progress.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct Stalls<P> {
    last: Option<(P, u32)>,
}

impl<P> Default for Stalls<P> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<P: Copy + PartialEq> Stalls<P> {
    /// Gives the pause after a stall at this progress: none at first, then longer each time without more. Brokers that
    /// answer a probe may still not acknowledge records.
    pub(in crate::relay) fn pause(&mut self, progress: P, unit: Duration) -> Duration {
        let times = self.last.filter(|(stalled, _)| *stalled == progress).map_or(0, |(_, times)| times + 1);
        self.last = Some((progress, times));
        if times == 0 { Duration::ZERO } else { (unit * (1 << times.min(8)) / 2).min(MAX_PAUSE.max(unit)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_without_progress_and_start_again_after_progress() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(30));
        let mut pause = |rows: u64| stalls.pause(rows, unit).as_secs();
        assert_eq!([pause(7), pause(7), pause(7), pause(7), pause(7)], [0, 30, 60, 120, 120]);
        assert_eq!([pause(8), pause(8)], [0, 30]);
    }

    #[test]
    fn a_unit_above_the_maximum_pause_is_used() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(600));
        assert_eq!([(); 4].map(|()| stalls.pause(0, unit).as_secs()), [0, 600, 600, 600]);
    }
}
