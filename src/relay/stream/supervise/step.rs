//! What comes after a connection.

use std::time::Duration;

/// What the supervisor does next.
pub(super) enum StreamStep {
    Over,
    Again,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
    /// A record must be acknowledged first.
    AwaitProgress,
    /// Another connection holds the slot.
    StandBy,
    Pause(Duration),
}
