//! The pipeline's counts and the server's times.

/// The counts since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Frames of any kind.
    pub frames: u64,
    /// Rows of outbox tables.
    pub events: u64,
    /// Those of them that an earlier pipeline has enqueued.
    pub replayed: u64,
    pub keepalives: u64,
    /// Transactions from Begin to Commit.
    pub transactions: u64,
    /// Transactions skipped because this pipeline had enqueued them already.
    pub skipped_transactions: u64,
    /// Updates, deletes and truncates, which an outbox does not publish.
    pub unexpected: u64,
    /// Ignored frames.
    pub ignored: u64,
}

/// Times of the server, by its own clock, in microseconds of the Unix clock; 0 before the first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// When it sent the last message.
    pub server_micros: i64,
    /// When the last transaction committed.
    pub committed_micros: i64,
    /// The time from the last commit to its transmission; 0 when the server has sent everything.
    pub lag_micros: i64,
}
