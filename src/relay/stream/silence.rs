//! How long a server may say nothing before the connection counts as dead.
//!
//! A walsender that decodes a large transaction of no concern to us may say nothing for longer than its own limit (a refreshed
//! materialized view up to 15). Decoding begins anew with each connection, so the same limit again would never be enough.

use std::time::Duration;

use crate::lsn::Lsn;

/// The longest limit that silence alone leads to.
const MAX_LIMIT: Duration = Duration::from_secs(3600);

/// Where a connection fell silent last, and how often that has been so without any progress since.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Silence {
    last: Option<(Lsn, u32)>,
}

impl Silence {
    /// Gives the limit for a connection that starts at this position: `unit`, doubled for each that fell silent there.
    pub(in crate::relay) fn limit(&self, position: Lsn, unit: Duration) -> Duration {
        let times = self.last.filter(|(silent, _)| *silent == position).map_or(0, |(_, times)| times);
        unit.saturating_mul(1 << times.min(16)).min(MAX_LIMIT.max(unit))
    }

    /// Notes that a connection that started at this position fell silent.
    pub(in crate::relay) fn fell(&mut self, position: Lsn) {
        let times = self.last.filter(|(silent, _)| *silent == position).map_or(0, |(_, times)| times);
        self.last = Some((position, times + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e7_the_limit_grows_while_the_same_position_makes_no_progress() {
        let (mut silence, unit) = (Silence::default(), Duration::from_secs(2));
        let (here, further) = (Lsn::from_wire(7), Lsn::from_wire(8));
        let mut seconds = Vec::new();
        for _ in 0..13 {
            seconds.push(silence.limit(here, unit).as_secs());
            silence.fell(here);
        }
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        assert_eq!(silence.limit(further, unit), unit);
        silence.fell(further);
        assert_eq!((silence.limit(here, unit), silence.limit(further, unit)), (unit, unit * 2));
        assert_eq!(silence.limit(further, Duration::ZERO), Duration::ZERO, "no limit stays none");
    }
}
