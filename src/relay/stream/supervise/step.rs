//! What follows a connection.

use std::time::Duration;

/// The supervisor's next step.
pub(super) enum StreamStep {
    Over,
    Again,
    /// Wait for Kafka, after a pause.
    AwaitKafka(Duration),
    /// Wait for an acknowledgement.
    AwaitProgress,
    /// Another connection holds the slot.
    StandBy,
    Pause(Duration),
}
