//! Why an event was not published, and what follows.

use std::fmt;
use std::time::Duration;

use crate::event::EncodeError;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::kafka_error::KafkaError;

/// The number of events that an error names at most.
pub(super) const MAX_NAMED: usize = 1_000;

/// An event was not published, or its acknowledgment is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is invalid.
    #[error("{0}")]
    Option(String),
    /// librdkafka refused a property.
    #[error("cannot configure the Kafka producer")]
    Configuration(#[source] KafkaError),
    /// The publisher's thread could not start.
    #[error("cannot start the publisher's thread: {0}")]
    Thread(String),
    /// The value is not an event.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The name of the topic is invalid.
    #[error("invalid topic {topic:?}: expected 1 to 249 of A-Z a-z 0-9 . _ -")]
    Topic {
        /// The name.
        topic: String,
    },
    /// The time cannot be written as RFC 3339.
    #[error("invalid occurred_at: expected a time from 1970 to 9999")]
    OccurredAt,
    /// The record is larger than `message.max.bytes`, or than the publisher's queue.
    #[error("event {event_id} for topic {topic} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
        /// The size of key, value and headers.
        size: usize,
        /// The publisher's limit.
        limit: usize,
    },
    /// Kafka refuses this record.
    #[error("Kafka refused event {event_id} for topic {topic}")]
    Refused {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
        /// Kafka's reason.
        #[source]
        source: Box<KafkaError>,
    },
    /// The topic does not exist.
    #[error("cannot publish event {event_id}: topic {topic} does not exist")]
    TopicMissing {
        /// The missing topic.
        topic: String,
        /// The event's id.
        event_id: String,
    },
    /// The principal has no permission.
    #[error("cannot publish event {event_id} to topic {topic}: access denied")]
    AccessDenied {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
        /// Kafka's reason.
        #[source]
        source: Box<KafkaError>,
    },
    /// The event was not handed to Kafka's client in time: there was no room, or no client. It is not in Kafka.
    #[error("event {event_id} for topic {topic} was not sent within {timeout:?}{}", reason(waiting.as_ref()))]
    NotSent {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
        /// `delivery_timeout`.
        timeout: Duration,
        /// Why records wait, if it is known.
        waiting: Option<String>,
    },
    /// No acknowledgment came in time. Whether the event is delivered is unknown: it may be in Kafka, and it may still
    /// be delivered later.
    #[error("event {event_id} for topic {topic} was not acknowledged within {timeout:?}{}", reason(waiting.as_ref()))]
    NotAcknowledged {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
        /// `delivery_timeout`.
        timeout: Duration,
        /// Why records wait, if it is known.
        waiting: Option<String>,
    },
    /// The publisher ended before the acknowledgment. Whether the event is delivered is unknown.
    #[error("the publisher ended before event {event_id} for topic {topic} was acknowledged")]
    Ended {
        /// The topic of the event.
        topic: String,
        /// The event's id.
        event_id: String,
    },
    /// The publisher is closed and accepts no events.
    #[error("the publisher is closed")]
    Closed,
    /// Events were not delivered, or their acknowledgment is missing, at the end of `flush` or `close`.
    #[error("{count} events are not known to be delivered, first {}", first(events))]
    Undelivered {
        /// How many.
        count: usize,
        /// The events, at most 1,000 of them.
        events: Vec<Undelivered>,
    },
}

/// An event that is not known to be delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Undelivered {
    /// The topic of the event.
    pub topic: String,
    /// The event's id.
    pub event_id: String,
    /// Whether it may be in Kafka nevertheless, or may still be delivered.
    pub may_be_delivered: bool,
    /// Why it is not known to be delivered.
    pub reason: String,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} for topic {}: {}", self.event_id, self.topic, self.reason)
    }
}

/// What an error concerns, and so what the caller can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// Kafka or the connection: publishing the same [`Envelope`](crate::event::Envelope) again can succeed.
    Retriable,
    /// The set-up: a person must act first. Other events of the topic fail as well.
    Fatal,
    /// This event only: it fails each time, and others succeed.
    ThisEvent,
}

impl Error {
    /// Returns what the error concerns.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSent { .. } | Self::NotAcknowledged { .. } | Self::Ended { .. } | Self::Undelivered { .. } => {
                ErrorKind::Retriable
            }
            Self::Option(_)
            | Self::Configuration(_)
            | Self::Thread(_)
            | Self::TopicMissing { .. }
            | Self::AccessDenied { .. }
            | Self::Closed => ErrorKind::Fatal,
            Self::Encode(_) | Self::Topic { .. } | Self::OccurredAt | Self::TooLarge { .. } | Self::Refused { .. } => {
                ErrorKind::ThisEvent
            }
        }
    }

    /// Returns whether the event may be in Kafka nevertheless, or may still be delivered. If not, it is not in Kafka.
    #[must_use]
    pub fn may_be_delivered(&self) -> bool {
        match self {
            Self::NotAcknowledged { .. } | Self::Ended { .. } => true,
            Self::Undelivered { count, events } => {
                *count > events.len() || events.iter().any(|event| event.may_be_delivered)
            }
            Self::Option(_)
            | Self::Configuration(_)
            | Self::Thread(_)
            | Self::Encode(_)
            | Self::Topic { .. }
            | Self::OccurredAt
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::TopicMissing { .. }
            | Self::AccessDenied { .. }
            | Self::NotSent { .. }
            | Self::Closed => false,
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Option(_) => Code::new(Exit::Configuration, 80),
            Self::Configuration(_) => Code::new(Exit::Configuration, 81),
            Self::Thread(_) => Code::new(Exit::Internal, 80),
            Self::Encode(error) => error.code(),
            Self::Topic { .. } | Self::OccurredAt => Code::new(Exit::Internal, 81),
            Self::Closed => Code::new(Exit::Internal, 82),
            Self::TooLarge { .. } => Code::new(Exit::Poison, 80),
            Self::Refused { .. } => Code::new(Exit::Poison, 81),
            Self::AccessDenied { .. } => Code::new(Exit::Rights, 80),
            Self::TopicMissing { .. } => Code::new(Exit::Unavailable, 84),
            Self::NotSent { .. } => Code::new(Exit::Unavailable, 85),
            Self::NotAcknowledged { .. } => Code::new(Exit::Unavailable, 86),
            Self::Ended { .. } => Code::new(Exit::DrainTimeout, 80),
            Self::Undelivered { .. } => Code::new(Exit::DrainTimeout, 81),
        }
    }

    fn fate(&self) -> Fate {
        match self.kind() {
            ErrorKind::Retriable => Fate::Transient,
            ErrorKind::Fatal | ErrorKind::ThisEvent => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Encode(error) => return error.help(),
            Self::Thread(_) | Self::Topic { .. } | Self::OccurredAt => return None,
            Self::Option(_) | Self::Configuration(_) => "correct publisher::Config".to_owned(),
            Self::Closed => "publish before Publisher::close, or create another publisher".to_owned(),
            Self::TooLarge { .. } => {
                "raise message.max.bytes under Config::properties, and max.message.bytes of the topic".to_owned()
            }
            Self::Refused { topic, .. } => format!(
                "compare the event with the limits of {topic} (max.message.bytes, \
                 message.timestamp.before.max.ms, schema or policy checks)"
            ),
            Self::AccessDenied { topic, .. } => {
                format!("check the credentials; grant Write and Describe on topic {topic}")
            }
            Self::TopicMissing { topic, .. } => format!(
                "run `kafka-topics.sh --bootstrap-server BROKER --create --topic {topic} --partitions N \
                 --replication-factor 3`; the publisher creates no topics"
            ),
            Self::NotSent { .. } => "publish the same envelope again; if it recurs, check the brokers".to_owned(),
            Self::NotAcknowledged { .. } | Self::Ended { .. } | Self::Undelivered { .. } => {
                "publish the same envelope again: with its event id, a consumer's inbox recognizes it".to_owned()
            }
        })
    }
}

fn first(events: &[Undelivered]) -> &str {
    events.first().map_or("", |event| &event.event_id)
}

fn reason(waiting: Option<&String>) -> String {
    waiting.map_or_else(String::new, |waiting| format!(": {waiting}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_event_that_kafka_may_have_may_be_delivered() {
        let (topic, event_id, timeout) = ("t".to_owned(), "e".to_owned(), Duration::from_secs(1));
        let waiting = Some("all brokers are down".to_owned());
        let late = Error::NotAcknowledged { topic: topic.clone(), event_id: event_id.clone(), timeout, waiting };
        assert_eq!(late.to_string(), "event e for topic t was not acknowledged within 1s: all brokers are down");
        let never = Error::NotSent { topic, event_id, timeout, waiting: None };
        assert_eq!(never.to_string(), "event e for topic t was not sent within 1s");
        assert_eq!((late.may_be_delivered(), never.may_be_delivered()), (true, false));
        assert_eq!((late.fate(), never.fate()), (Fate::Transient, Fate::Transient));
        assert!(Error::Undelivered { count: 2, events: Vec::new() }.may_be_delivered(), "those without a name");
    }
}
