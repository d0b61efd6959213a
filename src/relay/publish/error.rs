//! Errors of publishing, and what follows from each: one table.

use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode as Kafka;

use crate::relay::record::route::Reason;
use crate::relay::record::route::add_partitions;
use crate::relay::record::route::printable;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::internal::Verdict;
use walrelay_events::internal::is_about_size;
use walrelay_events::internal::is_consequence;

use super::waiting::create_topic;

/// A producer cannot be created, or no broker can be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka rejects a property.
    #[error("cannot configure the Kafka producer")]
    Configuration {
        /// librdkafka's error.
        #[source]
        source: KafkaError,
    },
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] crate::units::SecretError),
    /// There is no valid OAuth token.
    #[error("cannot get a token for Kafka: {reason}")]
    Token {
        /// Why the command failed.
        reason: String,
    },
    /// No broker answers.
    #[error("cannot connect to Kafka at {brokers}: {}", reason.clone().unwrap_or_else(|| code.to_string()))]
    Unreachable {
        /// The bootstrap servers.
        brokers: String,
        /// Why the last connection failed, if librdkafka says it.
        reason: Option<String>,
        /// librdkafka's error.
        code: Kafka,
    },
    /// The brokers reject the credentials.
    #[error("authentication at Kafka {brokers} failed: {reason}")]
    Refused {
        /// The bootstrap servers.
        brokers: String,
        /// librdkafka's reason.
        reason: String,
    },
}

impl Error {
    /// Gives librdkafka's reason of a failed connection.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        if let Self::Unreachable { reason, .. } = self { reason.as_deref() } else { None }
    }

    /// Says whether a file with a secret or a key may be missing or invalid: librdkafka reads it when a client is
    /// created.
    pub(crate) const fn is_about_files(&self) -> bool {
        matches!(self, Self::Configuration { .. } | Self::Secret(_))
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Configuration { .. } => Code::new(Exit::Configuration, 30),
            Self::Option(_) => Code::new(Exit::Configuration, 31),
            Self::Secret(_) => Code::new(Exit::Configuration, 32),
            Self::Token { .. } => Code::new(Exit::Unavailable, 35),
            Self::Unreachable { .. } => Code::new(Exit::Unavailable, 30),
            Self::Refused { .. } => Code::new(Exit::Rights, 31),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Configuration { .. } | Self::Option(_) | Self::Secret(_) | Self::Refused { .. } => Fate::Fatal,
            Self::Token { .. } | Self::Unreachable { .. } => Fate::Transient,
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Configuration { .. } => "correct [kafka] or [kafka.properties] in the configuration",
                Self::Option(_) => "correct [kafka] in the configuration",
                Self::Secret(error) => return Some(error.help()),
                Self::Token { .. } => "run the command of kafka.oauth.token_command as walrelay's user, and correct it",
                Self::Unreachable { .. } => {
                    "check kafka.brokers, [kafka.tls] and [kafka.sasl], and that the brokers run"
                }
                Self::Refused { .. } => {
                    "check kafka.sasl.mechanism, kafka.sasl.username and kafka.sasl.password (or what \
                     kafka.oauth.token_command prints), and the user on the brokers"
                }
            }
            .to_owned(),
        )
    }
}

/// A record was not delivered, or its producer failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {text}", self.subject())]
pub struct Failure {
    /// What follows.
    pub verdict: Verdict,
    /// The record or its batch was too large for the topic.
    pub is_about_size: bool,
    /// Its timestamp is further from the broker's clock than the topic allows.
    pub is_about_time: bool,
    /// It is a consequence of another failure: the producer has failed, or its queue was purged.
    is_consequence: bool,
    text: String,
    topic: Option<String>,
    event_id: Option<String>,
    /// The partition that the topic lacks.
    lacks: Option<i32>,
}

impl Failure {
    pub(super) fn new(error: &KafkaError, topic: Option<&str>, event_id: Option<String>) -> Self {
        let code = error.rdkafka_error_code();
        let verdict = code.map_or(Verdict::Transient, Verdict::of);
        let text = code.map_or_else(|| error.to_string(), |code| code.to_string());
        let is_about_size = code.is_some_and(is_about_size);
        let is_about_time = code == Some(Kafka::InvalidTimestamp);
        let is_consequence = code.is_some_and(is_consequence);
        let topic = topic.map(str::to_owned);
        Self { verdict, is_about_size, is_about_time, is_consequence, text, topic, event_id, lacks: None }
    }

    /// The row chooses a partition that the topic lacks.
    pub(super) fn lacks(&mut self, topic: &str, partition: i32, key: Option<&[u8]>) {
        let reason = Reason::NoPartition { topic: topic.to_owned(), partition, key: key.map(printable) };
        (self.text, self.lacks) = (reason.to_string(), Some(partition));
    }

    /// The producer failed with this fatal error.
    pub(super) fn of_producer(code: Kafka, reason: &str) -> Self {
        Self::without_record(Verdict::of(code), reason.to_owned())
    }

    /// The producer cannot reach its brokers again.
    pub(super) fn of_client(reason: &str) -> Self {
        Self::without_record(Verdict::Transient, format!("the producer must be replaced: {reason}"))
    }

    const fn without_record(verdict: Verdict, text: String) -> Self {
        let (is_about_size, is_about_time, is_consequence) = (false, false, false);
        Self { verdict, is_about_size, is_about_time, is_consequence, text, topic: None, event_id: None, lacks: None }
    }

    /// Says whether it is a consequence of another failure, which the producer may know.
    pub(super) const fn is_consequence(&self) -> bool {
        self.is_consequence
    }

    /// Says whether the other failure says more: a purged record says less than its cause.
    pub(super) fn is_vaguer_than(&self, other: &Self) -> bool {
        self.rank() < other.rank()
    }

    /// How specific it is.
    fn rank(&self) -> u8 {
        match self.verdict {
            Verdict::Transient if self.is_consequence => 0,
            Verdict::Transient if !self.is_about_time => 1,
            Verdict::Transient | Verdict::Record | Verdict::Topic | Verdict::Rights => 2,
        }
    }

    /// Gives the id of the event, if it is known.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }

    /// Gives the topic of the record, if it is known.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    fn subject(&self) -> String {
        match (&self.topic, &self.event_id) {
            (Some(topic), Some(id)) => format!("delivery of event {id} to topic {topic} failed"),
            (Some(topic), None) => format!("delivery of a record to topic {topic} failed"),
            (None, _) => "Kafka producer failed".to_owned(),
        }
    }
}

impl Diagnose for Failure {
    fn code(&self) -> Code {
        match self.verdict {
            Verdict::Transient => Code::new(Exit::Unavailable, 31),
            Verdict::Record => Code::new(Exit::Poison, 10),
            Verdict::Topic => Code::new(Exit::Unavailable, 32),
            Verdict::Rights => Code::new(Exit::Rights, 30),
        }
    }

    fn fate(&self) -> Fate {
        match self.verdict {
            // Of the whole cluster: no event can be delivered.
            Verdict::Rights if self.topic.is_none() => Fate::Fatal,
            Verdict::Transient | Verdict::Rights => Fate::Transient,
            Verdict::Record | Verdict::Topic => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        let topic = self.topic.as_deref().unwrap_or("the topic");
        if let Some(partition) = self.lacks {
            return Some(format!(
                "{}, then restart; walrelay does not skip the event",
                add_partitions(topic, partition)
            ));
        }
        Some(match self.verdict {
            Verdict::Transient if self.is_about_time => format!(
                "none needed: walrelay sends such records with the current time; if it recurs, compare this machine's \
                 clock with the brokers', and check message.timestamp.before.max.ms and message.timestamp.after.max.ms \
                 of {topic}"
            ),
            Verdict::Record if self.is_about_size => format!(
                "raise max.message.bytes of {topic} (or message.max.bytes of its brokers), and message.max.bytes under \
                 [kafka.properties] if that is smaller (1048588 unless set); walrelay does not skip the event"
            ),
            Verdict::Transient => "none needed: walrelay retries from the confirmed position".to_owned(),
            Verdict::Record => format!(
                "compare the event with the limits of {topic} (max.message.bytes, number of partitions, schema or \
                 policy checks), then restart; walrelay does not skip the event"
            ),
            Verdict::Topic => create_topic(topic),
            Verdict::Rights if self.topic.is_none() => {
                "grant IdempotentWrite on the cluster to walrelay's principal (kafka-acls.sh --add --operation \
                 IdempotentWrite --cluster), then restart"
                    .to_owned()
            }
            Verdict::Rights => {
                format!("grant Write and Describe on {topic} to walrelay's principal; walrelay retries")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Kafka) -> Failure {
        Failure::new(&KafkaError::MessageProduction(code), Some("orders"), Some("e-1".into()))
    }

    #[test]
    fn permanent_errors_are_not_retried_and_transient_ones_do_not_stop_the_process() {
        let rows = [
            (Kafka::MessageSizeTooLarge, Fate::Fatal, "WR-6810"),
            (Kafka::PolicyViolation, Fate::Fatal, "WR-6810"),
            (Kafka::InvalidTimestamp, Fate::Transient, "WR-6931"),
            (Kafka::UnknownPartition, Fate::Fatal, "WR-6810"),
            (Kafka::UnknownTopicOrPartition, Fate::Fatal, "WR-6932"),
            (Kafka::TopicAuthorizationFailed, Fate::Transient, "WR-6730"),
            (Kafka::NotEnoughReplicas, Fate::Transient, "WR-6931"),
            (Kafka::OutOfOrderSequenceNumber, Fate::Transient, "WR-6931"),
            (Kafka::UnknownProducerId, Fate::Transient, "WR-6931"),
            (Kafka::PurgeQueue, Fate::Transient, "WR-6931"),
            (Kafka::Fatal, Fate::Transient, "WR-6931"),
        ];
        for (code, fate, number) in rows {
            let failure = failure(code);
            assert_eq!((failure.fate(), failure.code().to_string().as_str()), (fate, number), "{code:?}");
        }
    }

    #[test]
    fn a_cause_replaces_its_consequences() {
        assert!(failure(Kafka::PurgeQueue).is_vaguer_than(&failure(Kafka::MessageSizeTooLarge)));
        assert!(!failure(Kafka::MessageSizeTooLarge).is_vaguer_than(&failure(Kafka::PurgeQueue)));
        assert!(failure(Kafka::Fatal).is_vaguer_than(&failure(Kafka::InvalidTimestamp)));
        assert!(failure(Kafka::PurgeQueue).is_vaguer_than(&failure(Kafka::NotEnoughReplicas)));
        assert!(!failure(Kafka::InvalidTimestamp).is_vaguer_than(&failure(Kafka::MessageSizeTooLarge)));
    }
}
