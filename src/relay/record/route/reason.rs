//! Why a row becomes no record.

/// Why a row cannot become a record. The text has no payload, and escapes any value of the row.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// A required value is NULL.
    #[error("{0} is NULL")]
    Null(&'static str),
    /// A value is invalid.
    #[error("{role} is not a valid {expected}")]
    Illegal {
        role: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The topic is not a valid name.
    #[error(
        "invalid topic {0:?}: allowed are 1 to 249 of A-Z a-z 0-9 . _ -, not \".\" or \"..\", not starting with \"__\""
    )]
    Topic(String),
    /// The topic is not in the allow-list.
    #[error("topic {0:?} is not in allowed_topics")]
    TopicNotAllowed(String),
    /// The row's headers are invalid.
    #[error("invalid headers: {0}")]
    Headers(String),
    /// The partition is negative or too large.
    #[error("invalid partition number {0}")]
    Partition(i64),
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition} (key {})", key.as_deref().unwrap_or("none"))]
    NoPartition {
        topic: String,
        /// The partition that the row chooses.
        partition: i32,
        /// The record's key, escaped and cut.
        key: Option<String>,
    },
    /// The record is larger than the producer's limit.
    #[error("the record of {size} bytes is larger than message.max.bytes of the producer ({limit} bytes)")]
    TooLarge { size: usize, limit: usize },
}
