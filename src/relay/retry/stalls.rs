//! How long to wait before everything is handed over once more to a Kafka that took nothing of it.

use std::time::Duration;

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// How far things had come when Kafka took nothing more, and how often that has been so without any progress since.
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
    /// Gives the pause after a stall at this progress: longer each time that brought nothing, and none at first. Brokers that
    /// answer may still not take what was on the way.
    pub(in crate::relay) fn pause(&mut self, progress: P, unit: Duration) -> Duration {
        let times = self.last.filter(|(stalled, _)| *stalled == progress).map_or(0, |(_, times)| times + 1);
        self.last = Some((progress, times));
        if times == 0 { Duration::ZERO } else { (unit * (1 << times.min(8)) / 2).min(PAUSE_MAX.max(unit)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_moves_and_begin_again_with_any_progress() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(30));
        let mut pause = |rows: u64| stalls.pause(rows, unit).as_secs();
        assert_eq!([pause(7), pause(7), pause(7), pause(7), pause(7)], [0, 30, 60, 120, 120]);
        assert_eq!([pause(8), pause(8)], [0, 30]);
    }

    #[test]
    fn a_unit_beyond_the_longest_pause_is_kept() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(600));
        assert_eq!([(); 4].map(|()| stalls.pause(0, unit).as_secs()), [0, 600, 600, 600]);
    }
}
