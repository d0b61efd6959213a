//! From an event to a record: the topic is checked, and the headers are those that the relay writes.
//!
//! The relay writes its own headers first, then those of the row. PostgreSQL orders the keys of `jsonb` by their
//! length, then by their bytes, and so does [`ROW`].

use std::time::Duration;
use std::time::SystemTime;

use crate::event;
use crate::event::Encoded;
use crate::event::TraceContext;
use crate::publisher::error::Error;

/// Kafka's limit of a topic's name.
const MAX_TOPIC_BYTES: usize = 249;
/// What a record needs besides its bytes, here and in librdkafka.
const OVERHEAD_BYTES: usize = 512;
/// The headers that the outbox writer adds to a row, in the order of `jsonb`.
const ROW: [&str; 5] =
    [event::BAGGAGE, event::TRACESTATE, event::OCCURRED_AT, event::TRACEPARENT, event::AGGREGATE_TYPE];

/// An event and its metadata, before it is a record.
#[derive(Clone, Debug)]
pub(super) struct Draft<'a> {
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) event_id: String,
    pub(super) aggregate_type: Option<&'a str>,
    pub(super) occurred_at: SystemTime,
    pub(super) trace: Option<TraceContext>,
    pub(super) encoded: Encoded,
}

/// A record to publish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) topic: String,
    /// An empty key counts as none, as for the relay: Java and librdkafka choose different partitions for it.
    pub(super) key: Option<String>,
    pub(super) value: String,
    /// The first one is the event's id.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) timestamp_millis: i64,
}

impl Record {
    /// Creates the record of an event that is published now.
    pub(super) fn new(draft: Draft<'_>, now: SystemTime) -> Result<Self, Error> {
        let Draft { topic, key, event_id, aggregate_type, occurred_at, trace, encoded } = draft;
        if !is_topic(topic) {
            return Err(Error::Topic { topic: topic.chars().take(MAX_TOPIC_BYTES).collect() });
        }
        let time = |time: SystemTime| event::format_rfc3339(time).ok_or(Error::OccurredAt);
        let (occurred_at, produced_at) = (time(occurred_at)?, time(now)?);
        let mut headers = vec![
            (event::EVENT_ID, event_id),
            (event::EVENT_TYPE, encoded.event_type),
            (event::PRODUCED_AT, produced_at),
        ];
        let row = ROW.into_iter().filter_map(|name| {
            let text = match name {
                event::OCCURRED_AT => Some(occurred_at.as_str()),
                event::AGGREGATE_TYPE => aggregate_type,
                _ => {
                    trace.as_ref().and_then(|trace| trace.headers().find(|(set, _)| *set == name)).map(|(_, text)| text)
                }
            };
            Some((name, text?.to_owned()))
        });
        headers.extend(row);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Ok(Self {
            topic: topic.to_owned(),
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            value: encoded.payload,
            headers,
            timestamp_millis: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// Returns the event's id.
    pub(super) fn event_id(&self) -> &str {
        self.headers.first().map_or("", |(_, id)| id)
    }

    /// Returns the bytes of key, value and headers.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, text)| name.len() + text.len()).sum();
        self.key.as_ref().map_or(0, String::len) + self.value.len() + headers
    }

    /// Returns the bytes that the record takes of `max_in_flight_bytes`.
    pub(super) fn size(&self) -> usize {
        OVERHEAD_BYTES + self.topic.len() + self.bytes()
    }

    pub(super) fn not_sent(&self, timeout: Duration, waiting: Option<String>) -> Error {
        let (topic, event_id) = (self.topic.clone(), self.event_id().to_owned());
        Error::NotSent { topic, event_id, timeout, waiting }
    }
}

/// Kafka's rule for names of topics.
fn is_topic(name: &str) -> bool {
    (1..=MAX_TOPIC_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn draft<'a>(topic: &'a str, key: &'a str) -> Draft<'a> {
        let encoded = event::encode(&serde_json::json!({"event_type": "Created"})).unwrap();
        let (event_id, occurred_at) = ("e-1".to_owned(), UNIX_EPOCH);
        Draft { topic, key, event_id, aggregate_type: None, occurred_at, trace: None, encoded }
    }

    #[test]
    fn headers_have_the_order_in_which_the_relay_writes_them() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let now = UNIX_EPOCH + Duration::from_micros(1_767_225_600_000_001);
        let trace = TraceContext::new(parent, Some("a=b"), Some("c=d")).ok();
        let record = Record::new(Draft { aggregate_type: Some("Order"), trace, ..draft("t", "k") }, now).unwrap();
        let expected = [
            ("event_id", "e-1"),
            ("event_type", "Created"),
            ("produced_at", "2026-01-01T00:00:00.000001Z"),
            ("baggage", "c=d"),
            ("tracestate", "a=b"),
            ("occurred_at", "1970-01-01T00:00:00.000000Z"),
            ("traceparent", parent),
            ("aggregate_type", "Order"),
        ];
        assert_eq!(record.headers, expected.map(|(name, text)| (name, text.to_owned())));
        assert_eq!((record.event_id(), record.timestamp_millis), ("e-1", 1_767_225_600_000));
        let names = Record::new(draft("t", "k"), now).unwrap().headers.into_iter().map(|(name, _)| name);
        assert_eq!(names.collect::<Vec<_>>(), ["event_id", "event_type", "produced_at", "occurred_at"]);
    }

    #[test]
    fn a_topic_follows_kafkas_rule_and_an_empty_key_is_none() {
        for topic in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
            assert!(matches!(Record::new(draft(topic, "k"), UNIX_EPOCH), Err(Error::Topic { .. })), "{topic:?}");
        }
        assert_eq!(Record::new(draft("a.B_c-1", ""), UNIX_EPOCH).unwrap().key, None);
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let early = Record::new(Draft { occurred_at: before, ..draft("t", "k") }, UNIX_EPOCH);
        assert!(matches!(early, Err(Error::OccurredAt)));
    }
}
