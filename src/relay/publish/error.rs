//! What can go wrong on the way to Kafka, and what follows from it: one table.

use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode as Kafka;

use crate::relay::record::route::Reason;
use crate::relay::record::route::add_partitions;
use crate::relay::record::route::printable;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::waiting::create_topic;

/// A producer cannot be made, or reaches nobody.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka refuses a property.
    #[error("configure the Kafka producer")]
    Configuration {
        /// What it says.
        #[source]
        source: KafkaError,
    },
    /// An option of ours cannot be used.
    #[error("{0}")]
    Option(String),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] crate::units::SecretError),
    /// No broker answers.
    #[error("reach Kafka at {brokers}")]
    Unreachable {
        /// Where it was looked for.
        brokers: String,
        /// What librdkafka says.
        #[source]
        source: KafkaError,
    },
    /// The brokers do not let us in.
    #[error("log in to Kafka at {brokers}: {reason}")]
    Refused {
        /// Where.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
}

impl Error {
    /// Says whether a file with a secret or a key may be absent or unfit: librdkafka reads it when a client is made.
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
            Self::Unreachable { .. } => Code::new(Exit::Unavailable, 30),
            Self::Refused { .. } => Code::new(Exit::Rights, 31),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Configuration { .. } | Self::Option(_) | Self::Secret(_) | Self::Refused { .. } => Fate::Fatal,
            Self::Unreachable { .. } => Fate::Transient,
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Configuration { .. } => "mend [kafka] or [kafka.properties] in the configuration",
                Self::Option(_) => "mend [kafka] in the configuration",
                Self::Secret(error) => return Some(error.help()),
                Self::Unreachable { .. } => {
                    "check kafka.brokers, [kafka.tls] and [kafka.sasl], and that the brokers run"
                }
                Self::Refused { .. } => {
                    "check kafka.sasl.mechanism, kafka.sasl.username and its password, and what the brokers know of them"
                }
            }
            .to_owned(),
        )
    }
}

/// A record that Kafka did not take, or a producer that is done for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {text}", self.subject())]
pub struct Failure {
    /// What follows.
    pub verdict: Verdict,
    /// It was too large for the topic, or its batch was.
    pub is_about_size: bool,
    /// Its timestamp is further from the broker's clock than the topic takes.
    pub is_about_time: bool,
    /// It only follows from something else: the producer is done for, or its queue was purged.
    is_consequence: bool,
    text: String,
    topic: Option<String>,
    event_id: Option<String>,
    /// The partition that the topic lacks.
    lacks: Option<i32>,
}

/// What follows from a failed record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Brokers or the producer's own state: a new producer helps.
    Transient,
    /// Kafka refuses this record (or one of its batch) whenever it is sent.
    Record,
    /// The topic is not there.
    Topic,
    /// We may not write there.
    Rights,
}

impl Failure {
    pub(super) fn new(error: &KafkaError, topic: Option<&str>, event_id: Option<String>) -> Self {
        let code = error.rdkafka_error_code();
        let verdict = code.map_or(Verdict::Transient, verdict);
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

    /// The producer met a fatal error, of this kind.
    pub(super) fn of_producer(code: Kafka, reason: &str) -> Self {
        Self::without_record(verdict(code), reason.to_owned())
    }

    /// The producer has nobody to ask any more, and never will.
    pub(super) fn forgotten() -> Self {
        let text = "an answer named no broker, and librdkafka has forgotten them all".to_owned();
        Self::without_record(Verdict::Transient, text)
    }

    const fn without_record(verdict: Verdict, text: String) -> Self {
        let (is_about_size, is_about_time, is_consequence) = (false, false, false);
        Self { verdict, is_about_size, is_about_time, is_consequence, text, topic: None, event_id: None, lacks: None }
    }

    /// Says whether something else caused it, which the producer may know.
    pub(super) const fn is_consequence(&self) -> bool {
        self.is_consequence
    }

    /// A purged record or a fatal state tells less than what caused it.
    pub(super) fn is_vaguer_than(&self, other: &Self) -> bool {
        self.rank() < other.rank()
    }

    /// How much it tells of what to do.
    fn rank(&self) -> u8 {
        match self.verdict {
            Verdict::Transient if self.is_consequence => 0,
            Verdict::Transient if !self.is_about_time => 1,
            Verdict::Transient | Verdict::Record | Verdict::Topic | Verdict::Rights => 2,
        }
    }

    /// Gives the id of the event that came back, if it is known.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }

    /// Gives the topic of the record that came back, if it is known.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    fn subject(&self) -> String {
        match (&self.topic, &self.event_id) {
            (Some(topic), Some(id)) => format!("Kafka did not take event {id} for topic {topic}"),
            (Some(topic), None) => format!("Kafka did not take a record for topic {topic}"),
            (None, _) => "the Kafka producer failed".to_owned(),
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
            // Of the whole cluster: no event gets through.
            Verdict::Rights if self.topic.is_none() => Fate::Fatal,
            Verdict::Transient | Verdict::Rights => Fate::Transient,
            Verdict::Record | Verdict::Topic => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        let topic = self.topic.as_deref().unwrap_or("the topic");
        if let Some(partition) = self.lacks {
            return Some(add_partitions(topic, partition));
        }
        Some(match self.verdict {
            Verdict::Transient if self.is_about_time => format!(
                "nothing to do: walrelay sends with the time of sending; if it goes on, compare this machine's clock with the \
                 brokers', and message.timestamp.before.max.ms and message.timestamp.after.max.ms of {topic}"
            ),
            Verdict::Record if self.is_about_size => format!(
                "raise max.message.bytes of {topic} (or message.max.bytes of its brokers), and message.max.bytes under \
                 [kafka.properties] if that is smaller (1048588 unless set); walrelay does not skip the event"
            ),
            Verdict::Transient => "nothing to do: walrelay starts again from the confirmed position".to_owned(),
            Verdict::Record => format!(
                "compare the event with what {topic} takes (max.message.bytes, number of partitions, schema or policy \
                 checks), then restart; walrelay does not skip the event"
            ),
            Verdict::Topic => create_topic(topic),
            Verdict::Rights if self.topic.is_none() => {
                "grant IdempotentWrite on the cluster to walrelay's principal (kafka-acls.sh --add --operation IdempotentWrite \
                 --cluster), then restart"
                    .to_owned()
            }
            Verdict::Rights => {
                format!("grant Write and Describe on {topic} to walrelay's principal; it goes on by itself")
            }
        })
    }
}

/// Sorts what librdkafka says of a record. What is not listed heals by a new producer, and is tried again loudly.
fn verdict(code: Kafka) -> Verdict {
    if is_refusal_of_the_record(code) {
        return Verdict::Record;
    }
    if matches!(code, Kafka::UnknownTopic | Kafka::UnknownTopicOrPartition) {
        return Verdict::Topic;
    }
    if is_lack_of_rights(code) {
        return Verdict::Rights;
    }
    Verdict::Transient
}

const fn is_consequence(code: Kafka) -> bool {
    matches!(code, Kafka::Fatal | Kafka::PurgeQueue | Kafka::PurgeInflight)
}

const fn is_about_size(code: Kafka) -> bool {
    matches!(code, Kafka::MessageSizeTooLarge | Kafka::InvalidMessageSize | Kafka::MessageBatchTooLarge)
}

fn is_refusal_of_the_record(code: Kafka) -> bool {
    is_about_size(code) || is_about_content(code)
}

const fn is_about_content(code: Kafka) -> bool {
    matches!(
        code,
        Kafka::InvalidMessage
            | Kafka::InvalidRecord
            | Kafka::PolicyViolation
            | Kafka::InvalidTopic
            | Kafka::UnsupportedForMessageFormat
            | Kafka::InvalidDifferentRecord
            // The topic is there, and has no partition of this number: the row has chosen it.
            | Kafka::UnknownPartition
    )
}

pub(super) const fn is_lack_of_rights(code: Kafka) -> bool {
    matches!(
        code,
        Kafka::TopicAuthorizationFailed
            | Kafka::ClusterAuthorizationFailed
            | Kafka::SaslAuthenticationFailed
            | Kafka::Authentication
            | Kafka::UnsupportedSASLMechanism
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Kafka) -> Failure {
        Failure::new(&KafkaError::MessageProduction(code), Some("orders"), Some("e-1".into()))
    }

    #[test]
    fn nothing_permanent_is_tried_for_ever_and_nothing_transient_stops_the_process() {
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
    fn a_cause_outranks_its_consequences() {
        assert!(failure(Kafka::PurgeQueue).is_vaguer_than(&failure(Kafka::MessageSizeTooLarge)));
        assert!(!failure(Kafka::MessageSizeTooLarge).is_vaguer_than(&failure(Kafka::PurgeQueue)));
        assert!(failure(Kafka::Fatal).is_vaguer_than(&failure(Kafka::InvalidTimestamp)));
        assert!(failure(Kafka::PurgeQueue).is_vaguer_than(&failure(Kafka::NotEnoughReplicas)));
        assert!(!failure(Kafka::InvalidTimestamp).is_vaguer_than(&failure(Kafka::MessageSizeTooLarge)));
    }
}
