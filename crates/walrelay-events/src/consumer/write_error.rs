//! Why a record could not be written to a topic, and whether another attempt can help.
//!
//! | error of Kafka | what follows |
//! |---|---|
//! | too large, also compressed and with fewer headers | permanent: the limit of the topic must be raised |
//! | invalid record, policy violation, unsupported message format | permanent: the topic refuses it each time |
//! | unknown topic, permission denied, invalid timestamp (a wrong clock) | retried: heals without a restart |
//! | everything else: brokers down, too few replicas, timeouts | retried |

use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode as Kafka;

use crate::kafka;
use crate::kafka_error::KafkaError;

/// What a batch and a record need besides key, value and headers, at most.
const OVERHEAD_BYTES: u64 = 512;
/// A limit that is raised is a multiple of this.
const LIMIT_STEP_BYTES: u64 = 64 << 10;

/// A record could not be written to a topic.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The topic refuses the record for its size, also compressed. Another attempt does not help.
    #[error(transparent)]
    TooLarge(Box<TooLarge>),
    /// The topic refuses the record for another reason. Another attempt does not help.
    #[error("topic {topic} refuses the record")]
    Refused {
        /// The topic that refuses it.
        topic: String,
        /// The bootstrap servers.
        brokers: String,
        /// Kafka's reason.
        #[source]
        source: Box<KafkaError>,
    },
    /// Kafka did not acknowledge the record. Another attempt can help.
    #[error("cannot write to topic {topic}")]
    Failed {
        /// The topic it was meant for.
        topic: String,
        /// Kafka's error.
        #[source]
        source: Box<KafkaError>,
    },
}

/// A record is larger than its topic allows.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a record with a key of {key_bytes} bytes, a value of {value_bytes} bytes and headers of {header_bytes} bytes is \
     too large for topic {topic}, also compressed{}",
    self.limit()
)]
#[non_exhaustive]
pub struct TooLarge {
    /// The topic that refuses it.
    pub topic: String,
    /// The bootstrap servers.
    pub brokers: String,
    /// The size of its key.
    pub key_bytes: u64,
    /// The size of its value.
    pub value_bytes: u64,
    /// The size of the names and values of its headers.
    pub header_bytes: u64,
    /// `max.message.bytes` of the topic, if the principal may describe it.
    pub max_message_bytes: Option<u64>,
}

impl WriteError {
    /// Sorts an error of librdkafka. Errors about the size are the caller's.
    pub(super) fn new(error: ClientError, topic: &str, brokers: &str) -> Self {
        let is_permanent = error.rdkafka_error_code().is_some_and(is_permanent);
        let (topic, source) = (topic.to_owned(), Box::new(KafkaError::new(error)));
        if is_permanent {
            Self::Refused { topic, brokers: brokers.to_owned(), source }
        } else {
            Self::Failed { topic, source }
        }
    }

    /// Returns whether the topic refuses this record each time.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::TooLarge(_) | Self::Refused { .. } => true,
            Self::Failed { .. } => false,
        }
    }

    /// Returns the next step for a person, with a command that can be pasted if there is one.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::TooLarge(too_large) => {
                format!("raise the limit of the topic with `{}`", too_large.command())
            }
            Self::Refused { topic, brokers, .. } => format!(
                "compare the record with the settings of the topic (`kafka-configs.sh --bootstrap-server {brokers} \
                 --describe --entity-type topics --entity-name {topic}`): a compacted topic refuses records without a \
                 key"
            ),
            Self::Failed { topic, .. } => {
                format!("check that the brokers are up, that topic {topic} exists, and the permission Write on it")
            }
        }
    }
}

impl TooLarge {
    /// Returns the command that raises `max.message.bytes` as far as this record needs.
    #[must_use]
    pub fn command(&self) -> String {
        let needed = self.key_bytes + self.value_bytes + self.header_bytes + OVERHEAD_BYTES;
        let limit = needed.div_ceil(LIMIT_STEP_BYTES) * LIMIT_STEP_BYTES;
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} --add-config \
             max.message.bytes={limit}",
            self.brokers, self.topic
        )
    }

    fn limit(&self) -> String {
        self.max_message_bytes.map_or_else(String::new, |limit| format!("; its max.message.bytes is {limit}"))
    }
}

/// Returns whether a record was refused for its size.
pub(super) fn is_about_size(error: &ClientError) -> bool {
    error.rdkafka_error_code().is_some_and(kafka::is_about_size)
}

/// Returns whether a record was refused because of its compression.
pub(super) fn is_about_compression(error: &ClientError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Kafka::UnsupportedCompressionType))
}

/// Returns whether Kafka refuses the record each time, whatever its size. An unknown topic, a missing permission and a
/// wrong clock are not permanent: they concern every record, and a retry succeeds as soon as they are corrected.
const fn is_permanent(code: Kafka) -> bool {
    matches!(
        code,
        Kafka::InvalidRecord
            | Kafka::PolicyViolation
            | Kafka::InvalidTopic
            | Kafka::UnsupportedForMessageFormat
            | Kafka::InvalidDifferentRecord
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_heals_by_itself_is_retried_and_what_concerns_the_record_is_not() {
        let rows = [
            (Kafka::InvalidRecord, true),
            (Kafka::PolicyViolation, true),
            (Kafka::UnsupportedForMessageFormat, true),
            (Kafka::InvalidMessage, false),
            (Kafka::InvalidTimestamp, false),
            (Kafka::UnknownTopicOrPartition, false),
            (Kafka::UnknownTopic, false),
            (Kafka::TopicAuthorizationFailed, false),
            (Kafka::ClusterAuthorizationFailed, false),
            (Kafka::Authentication, false),
            (Kafka::MessageTimedOut, false),
            (Kafka::NotEnoughReplicas, false),
            (Kafka::AllBrokersDown, false),
        ];
        for (code, expected) in rows {
            let error = WriteError::new(ClientError::MessageProduction(code), "t.dlq", "b:9092");
            assert_eq!(error.is_permanent(), expected, "{code:?}");
        }
    }

    #[test]
    fn the_limit_that_is_named_has_room_for_the_record() {
        let too_large = TooLarge {
            topic: "t.dlq".to_owned(),
            brokers: "b:9092".to_owned(),
            key_bytes: 4,
            value_bytes: 2_000_000,
            header_bytes: 300,
            max_message_bytes: Some(1_048_588),
        };
        let expected = "kafka-configs.sh --bootstrap-server b:9092 --alter --entity-type topics --entity-name t.dlq \
                        --add-config max.message.bytes=2031616";
        assert_eq!(too_large.command(), expected);
        assert!(too_large.to_string().ends_with("also compressed; its max.message.bytes is 1048588"), "{too_large}");
    }
}
