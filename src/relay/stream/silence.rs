//! The timeout without a message from the server.
//!
//! A walsender that decodes a large irrelevant transaction may send nothing for longer than its own timeout (up to
//! PostgreSQL 15 while a materialized view is refreshed). Decoding starts again with each connection, so the timeout
//! must grow.

use std::time::Duration;

use crate::lsn::Lsn;

/// The maximum timeout.
const MAX_LIMIT: Duration = Duration::from_secs(3600);

/// The start position of the last connection that timed out, and the number of timeouts there without progress.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::relay) struct Silence {
    last: Option<(Lsn, u32)>,
}

impl Silence {
    /// Gives the timeout of a connection that starts at this position: `unit`, doubled for each timeout there.
    pub(in crate::relay) fn limit(&self, position: Lsn, unit: Duration) -> Duration {
        let times = self.last.filter(|(silent, _)| *silent == position).map_or(0, |(_, times)| times);
        unit.saturating_mul(1 << times.min(16)).min(MAX_LIMIT.max(unit))
    }

    /// Records that a connection that started at this position timed out.
    pub(in crate::relay) fn timed_out(&mut self, position: Lsn) {
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
            silence.timed_out(here);
        }
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        assert_eq!(silence.limit(further, unit), unit);
        silence.timed_out(further);
        assert_eq!((silence.limit(here, unit), silence.limit(further, unit)), (unit, unit * 2));
        assert_eq!(silence.limit(further, Duration::ZERO), Duration::ZERO, "0 means no timeout");
    }
}
