//! Why a consumer ended.

use crate::consumer::budget::BudgetExceeded;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::write_error::WriteError;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::kafka_error::KafkaError;

/// Why a consumer ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is invalid.
    #[error("{0}")]
    Option(String),
    /// librdkafka refused a property.
    #[error("cannot configure the Kafka consumer")]
    Configuration(#[source] KafkaError),
    /// Topics or dead-letter topics do not exist.
    #[error("topics do not exist: {}", topics.join(", "))]
    TopicsMissing {
        /// Their names.
        topics: Vec<String>,
    },
    /// Records were deleted before the group consumed them.
    #[error(
        "group {group:?} committed offset {committed} of {topic}[{partition}], which holds offsets {oldest} to {end}"
    )]
    Gap {
        /// The consumer group.
        group: String,
        /// The topic with the deleted records.
        topic: String,
        /// The partition with the deleted records.
        partition: i32,
        /// The committed offset.
        committed: i64,
        /// The oldest offset of the partition.
        oldest: i64,
        /// The offset after the newest record.
        end: i64,
    },
    /// A leader that lacks records which the group consumed was elected (unclean leader election), and the log has
    /// other records at their offsets, or none. librdkafka validates positions that have a leader epoch.
    #[error(
        "group {group:?} committed offset {committed} of {topic}[{partition}] in leader epoch {epoch}, but the log was \
         truncated: from offset {parts_at} on it differs"
    )]
    Truncated {
        /// The consumer group.
        group: String,
        /// The topic with the truncated log.
        topic: String,
        /// The partition with the truncated log.
        partition: i32,
        /// The committed offset, or the position of a running consumer.
        committed: i64,
        /// The epoch of the leader that wrote the record before the committed offset.
        epoch: i32,
        /// The first offset at which the log differs from the one that the group has read.
        parts_at: i64,
    },
    /// Too many records were dead-lettered.
    #[error("dead-letter budget exceeded at {record}: {exceeded}; reason of this record: {reason}")]
    DeadLetterBudgetExceeded {
        /// The first record that was not dead-lettered. It is handled again after the next start.
        record: String,
        /// Which limit was reached.
        exceeded: BudgetExceeded,
        /// Why this record would have been dead-lettered.
        reason: String,
    },
    /// A dead-letter topic refuses a record, and another attempt does not help.
    #[error("cannot dead-letter {record}")]
    DeadLetterRefused {
        /// The record. It is handled again after the next start.
        record: String,
        /// Why the topic refuses it.
        #[source]
        source: WriteError,
    },
    /// Records were not written to their dead-letter topic before the shutdown timed out.
    #[error(
        "shutdown timed out: {records} records were not yet written to their dead-letter topics and {running} handlers \
         were still running; their events are handled again; the oldest is {record} for {topic}, last error: {error}"
    )]
    DeadLettersPending {
        /// How many.
        records: usize,
        /// The one that waits for the longest time.
        record: String,
        /// Its dead-letter topic.
        topic: String,
        /// Why the last attempt to write it failed.
        error: String,
        /// How many handlers were still running.
        running: usize,
    },
    /// A handler stopped the consumer.
    #[error("handler stopped the consumer at {record}: {reason}")]
    HandlerStopped {
        /// It is handled again after the next start.
        record: String,
        /// What the handler gave as the reason.
        reason: String,
    },
    /// The inbox keeps event ids for a shorter time than a topic keeps records.
    #[error("the inbox keeps event ids for {inbox}, but topic {topic} keeps records {retention}")]
    InboxRetentionTooShort {
        /// The retention of the inbox.
        inbox: String,
        /// The topic with the longer retention.
        topic: String,
        /// The retention of the topic.
        retention: String,
    },
    /// Authentication failed, or the principal lacks a permission.
    #[error("Kafka denied access")]
    AccessDenied(#[source] KafkaError),
    /// The Kafka client failed.
    #[error("Kafka client failed")]
    ClientFailed(#[source] KafkaError),
    /// The group refuses the member, and a retry cannot help.
    #[error("group {group:?} refused this member: {reason}")]
    JoinRefused {
        /// The consumer group.
        group: String,
        /// Kafka's reason.
        reason: String,
        /// What to do.
        next: String,
    },
    /// Handlers did not finish in time, or their offsets could not be committed in time.
    #[error("shutdown timed out: {}", unfinished(*running, uncommitted))]
    ShutdownTimeout {
        /// How many handlers were still running.
        running: usize,
        /// The partitions whose last commit is not confirmed, and the offset that was to be committed.
        uncommitted: Vec<(TopicPartition, i64)>,
    },
    /// The consumer's thread could not start, or panicked.
    #[error("consumer thread failed: {0}")]
    Thread(String),
}

/// Says what a shutdown did not finish.
fn unfinished(running: usize, uncommitted: &[(TopicPartition, i64)]) -> String {
    let mut parts = Vec::new();
    if running > 0 {
        let handlers = if running == 1 { "1 handler was".to_owned() } else { format!("{running} handlers were") };
        parts.push(format!("{handlers} still running"));
    }
    if !uncommitted.is_empty() {
        let offsets: Vec<String> = uncommitted.iter().map(|(it, offset)| format!("{it}@{offset}")).collect();
        parts.push(format!("not committed: {}", offsets.join(", ")));
    }
    if parts.is_empty() {
        return "the consumer's thread did not end; nothing is handled again".to_owned();
    }
    format!("{}; these events are handled again", parts.join("; "))
}

impl Error {
    pub(super) const fn configuration(error: rdkafka::error::KafkaError) -> Self {
        Self::Configuration(KafkaError::new(error))
    }

    pub(super) const fn access_denied(error: rdkafka::error::KafkaError) -> Self {
        Self::AccessDenied(KafkaError::new(error))
    }

    pub(super) const fn client_failed(error: rdkafka::error::KafkaError) -> Self {
        Self::ClientFailed(KafkaError::new(error))
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Option(_) => Code::new(Exit::Configuration, 70),
            Self::Configuration(_) => Code::new(Exit::Configuration, 71),
            Self::InboxRetentionTooShort { .. } => Code::new(Exit::Configuration, 72),
            Self::TopicsMissing { .. } => Code::new(Exit::Unavailable, 70),
            Self::ClientFailed(_) => Code::new(Exit::Unavailable, 71),
            Self::JoinRefused { .. } => Code::new(Exit::Configuration, 73),
            Self::Gap { .. } => Code::new(Exit::PositionLost, 70),
            Self::Truncated { .. } => Code::new(Exit::PositionLost, 71),
            Self::DeadLetterBudgetExceeded { .. } => Code::new(Exit::Poison, 70),
            Self::DeadLetterRefused { .. } => Code::new(Exit::Poison, 71),
            Self::HandlerStopped { .. } => Code::new(Exit::Poison, 72),
            Self::AccessDenied(_) => Code::new(Exit::Rights, 70),
            Self::ShutdownTimeout { .. } => Code::new(Exit::DrainTimeout, 70),
            Self::DeadLettersPending { .. } => Code::new(Exit::DrainTimeout, 71),
            Self::Thread(_) => Code::new(Exit::Internal, 70),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::ClientFailed(_) => Fate::Transient,
            Self::Option(_)
            | Self::Configuration(_)
            | Self::InboxRetentionTooShort { .. }
            | Self::TopicsMissing { .. }
            | Self::JoinRefused { .. }
            | Self::Gap { .. }
            | Self::Truncated { .. }
            | Self::DeadLetterBudgetExceeded { .. }
            | Self::DeadLetterRefused { .. }
            | Self::HandlerStopped { .. }
            | Self::AccessDenied(_)
            | Self::ShutdownTimeout { .. }
            | Self::DeadLettersPending { .. }
            | Self::Thread(_) => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Option(_) | Self::Configuration(_) => "correct consumer::Config".to_owned(),
            Self::InboxRetentionTooShort { .. } => "raise the retention of the inbox above that of the topic, shorten \
                                                    retention.ms, or set InboxRetention::ShorterThanTopic"
                .to_owned(),
            Self::TopicsMissing { topics } => format!(
                "create them (kafka-topics.sh --bootstrap-server BROKER --create --topic {}), or grant Describe on \
                 them; the consumer creates no topics",
                topics.first().map_or("", String::as_str)
            ),
            Self::Gap { group, topic, partition, .. } => format!(
                "find out which events were lost, then set the offset (kafka-consumer-groups.sh --bootstrap-server \
                 BROKER --reset-offsets --group {group} --topic {topic}:{partition} --to-earliest --execute), or set \
                 OnGap::SkipToEarliest"
            ),
            Self::Truncated { group, topic, partition, parts_at, .. } => format!(
                "find out which events were lost, then set the offset to where the log differs \
                 (kafka-consumer-groups.sh --bootstrap-server BROKER --reset-offsets --group {group} --topic \
                 {topic}:{partition} --to-offset {parts_at} --execute), or set OnGap::SkipToEarliest"
            ),
            Self::DeadLetterBudgetExceeded { .. } => {
                "correct the handler or the events, then start the consumer again; \
                                                      `walrelay dlq list` shows what was dead-lettered"
                    .to_owned()
            }
            Self::DeadLetterRefused { source, .. } => {
                format!("{}, then start the consumer again: it handles the record again", source.next_step())
            }
            Self::HandlerStopped { .. } => "remove the reason, then start the consumer again".to_owned(),
            Self::AccessDenied(_) => {
                "check the credentials; grant Read on the topics and the group, Write on the dead-letter \
                                      topics and, with Config::inbox_retention, DescribeConfigs on the topics"
                    .to_owned()
            }
            Self::ClientFailed(_) => "start the consumer again".to_owned(),
            Self::JoinRefused { next, .. } => next.clone(),
            Self::ShutdownTimeout { running: 0, .. } => {
                "start the consumer again when the brokers are up; it continues at the committed offsets".to_owned()
            }
            Self::ShutdownTimeout { .. } => "raise Config::shutdown_timeout, or speed up the handlers".to_owned(),
            Self::DeadLettersPending { topic, .. } => format!(
                "check that topic {topic} exists, the permission Write on it and its brokers, then start the consumer \
                 again"
            ),
            Self::Thread(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_that_timed_out_says_what_was_not_finished() {
        let text = |running, uncommitted: &[(&str, i32, i64)]| {
            let partition =
                |(topic, number, offset): &(&str, i32, i64)| (TopicPartition::new(*topic, *number), *offset);
            let uncommitted = uncommitted.iter().map(partition).collect();
            Error::ShutdownTimeout { running, uncommitted }.to_string()
        };
        assert_eq!(text(1, &[]), "shutdown timed out: 1 handler was still running; these events are handled again");
        assert_eq!(
            text(0, &[("t", 0, 20), ("t", 1, 3)]),
            "shutdown timed out: not committed: t[0]@20, t[1]@3; these events are handled again"
        );
        assert_eq!(
            text(2, &[("t", 0, 20)]),
            "shutdown timed out: 2 handlers were still running; not committed: t[0]@20; these events are handled again"
        );
    }
}
