//! What ends a consumer.

use rdkafka::error::KafkaError;

use crate::consumer::budget::Exceeded;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// The consumer has stopped, and a person must act.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An option cannot be used.
    #[error("{0}")]
    Option(String),
    /// librdkafka refuses a property.
    #[error("configure the Kafka consumer")]
    Configuration(#[source] KafkaError),
    /// Topics that must be there are not.
    #[error("topics are missing: {}", topics.join(", "))]
    TopicsMissing {
        /// Their names.
        topics: Vec<String>,
    },
    /// Records are gone that the group had not consumed.
    #[error(
        "group {group:?} had consumed {topic}[{partition}] up to offset {committed}, and it now holds offsets {oldest} to {end}"
    )]
    Gap {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
        /// The oldest offset that is there.
        oldest: i64,
        /// The offset after the newest.
        end: i64,
    },
    /// Too much was rejected.
    #[error("stopped at {record}: {exceeded}; the last reason was: {reason}")]
    TooManyRejected {
        /// The record that was not given up any more.
        record: String,
        /// Which limit.
        exceeded: Exceeded,
        /// Why it would have been rejected.
        reason: String,
    },
    /// The inbox forgets sooner than a topic.
    #[error("the inbox keeps events for {inbox}, and topic {topic} keeps them {retention}")]
    InboxTooShort {
        /// What the inbox keeps.
        inbox: String,
        /// The topic.
        topic: String,
        /// What the topic keeps.
        retention: String,
    },
    /// Kafka refuses us.
    #[error("Kafka refuses the consumer")]
    Refused(#[source] KafkaError),
    /// librdkafka's client is done for.
    #[error("the Kafka consumer failed")]
    Failed(#[source] KafkaError),
    /// A stop took too long.
    #[error("{running} handlers were still running when the drain deadline passed; their events come again")]
    DrainTimeout {
        /// How many.
        running: usize,
    },
    /// A thread cannot be started, or ended by a panic.
    #[error("the consumer's thread: {0}")]
    Thread(String),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Option(_) => Code::new(Exit::Configuration, 70),
            Self::Configuration(_) => Code::new(Exit::Configuration, 71),
            Self::InboxTooShort { .. } => Code::new(Exit::Configuration, 72),
            Self::TopicsMissing { .. } => Code::new(Exit::Unavailable, 70),
            Self::Failed(_) => Code::new(Exit::Unavailable, 71),
            Self::Gap { .. } => Code::new(Exit::PositionLost, 70),
            Self::TooManyRejected { .. } => Code::new(Exit::Poison, 70),
            Self::Refused(_) => Code::new(Exit::Rights, 70),
            Self::DrainTimeout { .. } => Code::new(Exit::DrainTimeout, 70),
            Self::Thread(_) => Code::new(Exit::Internal, 70),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Failed(_) => Fate::Transient,
            Self::Option(_)
            | Self::Configuration(_)
            | Self::InboxTooShort { .. }
            | Self::TopicsMissing { .. }
            | Self::Gap { .. }
            | Self::TooManyRejected { .. }
            | Self::Refused(_)
            | Self::DrainTimeout { .. }
            | Self::Thread(_) => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Option(_) | Self::Configuration(_) => "mend the consumer's Config".to_owned(),
            Self::InboxTooShort { .. } => {
                "keep events longer in the inbox than the topic keeps them, shorten retention.ms, or \
                                           choose InboxKeeps::ForLessThanTopic"
                    .to_owned()
            }
            Self::TopicsMissing { topics } => format!(
                "create them (kafka-topics.sh --create --topic {}), or grant Describe on them; nothing is created here",
                topics.first().map_or("", String::as_str)
            ),
            Self::Gap { .. } => {
                "events are gone that were never handled: find out which, then set the group's offset by hand \
                                 (kafka-consumer-groups.sh --reset-offsets), or choose OnGap::GoOn"
                    .to_owned()
            }
            Self::TooManyRejected { .. } => {
                "mend the handler or the events; what was rejected is in the dead-letter topic \
                                             (walrelay dlq list), and the rest comes again at the next start"
                    .to_owned()
            }
            Self::Refused(_) => "check the credentials, and grant Read on the topics and the group; with \
                                 Config::inbox_keeps also DescribeConfigs on the topics"
                .to_owned(),
            Self::Failed(_) => "start the consumer again".to_owned(),
            Self::DrainTimeout { .. } => "raise Config::drain, or make the handlers quicker".to_owned(),
            Self::Thread(_) => return None,
        })
    }
}
