//! How a batch and a connection end.

use crate::relay::publish::Failure;

/// The result of a batch.
pub(super) enum BatchRun {
    /// It is committed, or was empty.
    Over {
        /// There may be more rows.
        is_full: bool,
    },
    /// It was abandoned.
    Abandoned(PollEnd),
}

/// Why a connection ended without an error.
#[derive(Debug)]
pub(super) enum PollEnd {
    /// The relay is stopped between two batches.
    Stopped,
    /// A batch was not acknowledged in time.
    Stalled,
    /// A record or the producer failed.
    SinkFailed {
        failure: Failure,
        /// It was the only record in flight, so it is the one that failed.
        was_alone: bool,
    },
}
