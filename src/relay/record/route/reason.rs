//! Why a row becomes no record.

/// Why a row cannot become a record. The text holds no payload, and nothing of the row that is not escaped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// A value is missing that the record needs.
    #[error("{0} is NULL")]
    Null(&'static str),
    /// A value is not what its type says.
    #[error("{role} is not a legal {expected}")]
    Illegal {
        /// Whose value.
        role: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The topic breaks Kafka's rule.
    #[error(
        "the topic {0:?} is not legal: 1 to 249 of A-Z a-z 0-9 . _ -, not \".\" or \"..\", not starting with \"__\""
    )]
    Topic(String),
    /// The topic is not in the allow-list.
    #[error("the topic {0:?} is not among allowed_topics")]
    TopicNotAllowed(String),
    /// The row's headers cannot be headers.
    #[error("headers: {0}")]
    Headers(String),
    /// The partition is negative or too large.
    #[error("partition {0} is not a partition number")]
    Partition(i64),
    /// The topic has fewer partitions.
    #[error("its topic has no partition {0}")]
    NoPartition(i32),
    /// The record is larger than the producer takes.
    #[error("the record has {size} bytes, more than the {limit} of message.max.bytes, which is walrelay's own limit")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}
