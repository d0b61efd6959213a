//! How long to wait before everything is handed over once more to a Kafka that took nothing of it.

use std::time::Duration;

use crate::lsn::Lsn;

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// Where Kafka took nothing more, and how often that has been so without any progress since.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Stalls {
    last: Option<(Lsn, u32)>,
}

impl Stalls {
    /// Gives the pause after a stall at this position: longer each time that brought nothing, and none at first. Brokers that
    /// answer may still not take what was on the way.
    pub(in crate::relay) fn pause(&mut self, position: Lsn, unit: Duration) -> Duration {
        let times = self.last.filter(|(stalled, _)| *stalled == position).map_or(0, |(_, times)| times + 1);
        self.last = Some((position, times));
        if times == 0 { Duration::ZERO } else { (unit * (1 << times.min(8)) / 2).min(MAX_PAUSE.max(unit)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_moves_and_begin_again_with_any_progress() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(30));
        let mut pause = |position| stalls.pause(Lsn::from_wire(position), unit).as_secs();
        assert_eq!([pause(7), pause(7), pause(7), pause(7), pause(7)], [0, 30, 60, 120, 120]);
        assert_eq!([pause(8), pause(8)], [0, 30]);
    }

    #[test]
    fn a_unit_beyond_the_longest_pause_is_kept() {
        let (mut stalls, unit) = (Stalls::default(), Duration::from_secs(600));
        assert_eq!([(); 4].map(|()| stalls.pause(Lsn::ZERO, unit).as_secs()), [0, 600, 600, 600]);
    }
}
