//! What the endpoints show of a running relay.

use std::time::Duration;

use crate::metrics;
use crate::metrics::Sources;

use super::status::Status;

/// What the endpoints show, read for each request.
pub trait View: Send + Sync + 'static {
    /// The time since the last tick of the relay's loop.
    fn since_tick(&self) -> Duration;

    /// All series, in Prometheus' text format.
    fn exposition(&self) -> String;

    /// The relay's state.
    fn status(&self) -> Status;
}

impl View for Sources {
    fn since_tick(&self) -> Duration {
        self.relay.since_tick()
    }

    fn exposition(&self) -> String {
        metrics::exposition(self)
    }

    fn status(&self) -> Status {
        Status::of(self)
    }
}
