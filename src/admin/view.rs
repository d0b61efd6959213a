//! What the endpoints show of a running relay.

use std::time::Duration;

use crate::metrics;
use crate::metrics::Sources;

use super::status::Status;

/// What can be seen from outside. Every answer is made from one of these, at the moment of the question.
pub trait View: Send + Sync + 'static {
    /// The time since the relay's loop last went round.
    fn since_tick(&self) -> Duration;

    /// All series, in Prometheus' text format.
    fn exposition(&self) -> String;

    /// Everything else.
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
