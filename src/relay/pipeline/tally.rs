//! What the pipeline has seen: counts, and the server's clock.

/// What has been seen so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Frames of any kind.
    pub frames: u64,
    /// Rows of outbox tables.
    pub events: u64,
    /// Those of them that an earlier pipeline has handed over already.
    pub replayed: u64,
    /// Keepalives.
    pub keepalives: u64,
    /// Transactions with at least their begin and commit.
    pub transactions: u64,
    /// Transactions skipped because this pipeline had already handed them over.
    pub skipped_transactions: u64,
    /// Updates, deletes and truncates, which an outbox does not publish.
    pub unexpected: u64,
    /// Frames that mean nothing to us.
    pub ignored: u64,
}

/// Times of the server, by its own clock, in microseconds of the Unix clock; 0 before the first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clock {
    /// When it sent the last message.
    pub server_micros: i64,
    /// When the last transaction committed.
    pub committed_micros: i64,
    /// How long after its commit the last transaction was sent; 0 once the server has nothing more.
    pub lag_micros: i64,
}
