//! The phases of the loop over one connection, from the stream's start to its end.

use std::time::Instant;

use crate::relay::pipeline::Pipeline;
use crate::relay::stream::feedback::Feedback;

/// The phase of the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Streaming.
    Flowing,
    /// The relay is stopping; this is the deadline.
    Draining(Instant),
    /// An event cannot be published: waiting for the acknowledgement of earlier ones until this time.
    Clearing(Instant),
    /// The last position is being stored.
    Storing(Instant),
    /// The server is shutting down: waiting for acknowledgements until this time.
    Parking(Instant),
}

impl Phase {
    /// Says whether the socket is read.
    pub(super) fn reads(self, pipeline: &Pipeline) -> bool {
        match self {
            Self::Flowing | Self::Draining(_) => !pipeline.is_at_border(),
            Self::Clearing(_) | Self::Storing(_) | Self::Parking(_) => false,
        }
    }

    /// Says whether everything is acknowledged that this phase waits for.
    pub(super) fn is_acked(self, pipeline: &Pipeline) -> bool {
        match self {
            Self::Draining(_) => pipeline.is_at_border() && pipeline.is_drained(),
            Self::Clearing(_) | Self::Parking(_) => pipeline.ledger().records() == 0,
            Self::Flowing | Self::Storing(_) => false,
        }
    }

    /// Says when there is something to do, if nothing happens before.
    pub(super) fn deadline(self, feedback: &Feedback, publishes_from: Option<Instant>) -> Instant {
        match self {
            Self::Flowing => publishes_from.map_or(feedback.deadline(), |from| feedback.deadline().min(from)),
            Self::Draining(until) | Self::Clearing(until) => feedback.deadline().min(until),
            // Positions are no longer stored at intervals.
            Self::Storing(until) | Self::Parking(until) => feedback.report_due().min(until),
        }
    }
}
