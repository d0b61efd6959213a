//! The headers of a dead-letter record: where it came from and why.

use std::time::SystemTime;

use crate::consumer::dead_letter::client::Headers;
use crate::consumer::record::Record;
use crate::consumer::record::Timestamp;

/// The maximum length of a reason. Longer ones are cut.
const MAX_REASON_BYTES: usize = 2_048;
/// The maximum length of a reason where every byte counts.
const SHORT_REASON_BYTES: usize = 128;

/// The format of the headers that describe the origin of a dead-letter record and the reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum HeaderFormat {
    /// `dlq_topic`, `dlq_partition`, `dlq_offset`, `dlq_timestamp`, `dlq_group`, `dlq_reason`, `dlq_attempts`,
    /// `dlq_at`, as text.
    #[default]
    Walrelay,
    /// `kafka_dlt-original-topic` and so on, as Spring Kafka writes them. Numbers are big-endian.
    Spring,
    /// `__connect.errors.topic` and so on, as Kafka Connect writes them, as text.
    Connect,
}

/// How much of the provenance a dead-letter record carries: less if the topic refuses the record for its size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Extent {
    /// The reason with up to 2,048 bytes.
    Full,
    /// The reason with up to 128 bytes.
    ShortReason,
    /// Only what a redrive needs: topic, partition, offset and group.
    Least,
}

/// Where a dead-letter record came from, and why it was dead-lettered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Provenance {
    /// The topic it was consumed from.
    pub topic: String,
    /// The partition it was consumed from.
    pub partition: i32,
    /// Its offset in that partition.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The consumer group that dead-lettered it.
    pub group: String,
    /// Why, for a person.
    pub reason: String,
    /// The number of attempts.
    pub attempts: u32,
    /// When it was dead-lettered, in milliseconds since 1970.
    pub at_millis: i64,
}

impl Provenance {
    /// Describes a record that is dead-lettered now.
    #[must_use]
    pub fn of(record: &Record, group: &str, reason: &str, attempts: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            group: group.to_owned(),
            reason: cut(reason, MAX_REASON_BYTES).to_owned(),
            attempts,
            at_millis: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Reads it from the headers of a dead-letter record, in any [`HeaderFormat`].
    #[must_use]
    pub fn read(record: &Record) -> Option<Self> {
        let text = |name: &str| record.header(name).map(str::to_owned);
        let number = |name: &str| record.header(name)?.parse::<i64>().ok();
        let bytes = |name: &str| record.headers().filter(|(found, _)| *found == name).last()?.1;
        let long = |name: &str| Some(i64::from_be_bytes(bytes(name)?.try_into().ok()?));
        let int = |name: &str| Some(i32::from_be_bytes(bytes(name)?.try_into().ok()?));
        let created = |millis: Option<i64>| millis.map_or(Timestamp::None, Timestamp::CreateTime);
        let small = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
        let attempts = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
        if let Some(topic) = text(WALRELAY[0]) {
            return Some(Self {
                topic,
                partition: small(number(WALRELAY[1]))?,
                offset: number(WALRELAY[2])?,
                timestamp: created(number(WALRELAY[3])),
                group: text(WALRELAY[4]).unwrap_or_default(),
                reason: text(WALRELAY[5]).unwrap_or_default(),
                attempts: attempts(number(WALRELAY[6])),
                at_millis: number(WALRELAY[7]).or(record.timestamp().millis()).unwrap_or_default(),
            });
        }
        if let Some(topic) = text(SPRING[0]) {
            return Some(Self {
                topic,
                partition: int(SPRING[1])?,
                offset: long(SPRING[2])?,
                timestamp: created(long(SPRING[3])),
                group: text(SPRING[5]).unwrap_or_default(),
                reason: text(SPRING[6]).unwrap_or_default(),
                attempts: 0,
                at_millis: record.timestamp().millis().unwrap_or_default(),
            });
        }
        Some(Self {
            topic: text(CONNECT[0])?,
            partition: small(number(CONNECT[1]))?,
            offset: number(CONNECT[2])?,
            timestamp: Timestamp::None,
            group: text(CONNECT[3]).unwrap_or_default(),
            reason: text(CONNECT[4]).unwrap_or_default(),
            attempts: 0,
            at_millis: record.timestamp().millis().unwrap_or_default(),
        })
    }

    fn headers(&self, format: HeaderFormat, extent: Extent) -> Vec<(&'static str, Vec<u8>)> {
        let mut headers =
            self.all_headers(format, if extent == Extent::Full { MAX_REASON_BYTES } else { SHORT_REASON_BYTES });
        headers.retain(|(name, _)| extent != Extent::Least || is_origin(name));
        headers
    }

    fn all_headers(&self, format: HeaderFormat, max_reason_bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
        let text = |text: &str| text.as_bytes().to_vec();
        let reason = cut(&self.reason, max_reason_bytes);
        let number = |number: i64| number.to_string().into_bytes();
        match format {
            HeaderFormat::Walrelay => {
                let timestamp = self.timestamp.millis().map(number);
                let mut headers = vec![
                    (WALRELAY[0], text(&self.topic)),
                    (WALRELAY[1], number(self.partition.into())),
                    (WALRELAY[2], number(self.offset)),
                    (WALRELAY[4], text(&self.group)),
                    (WALRELAY[5], text(reason)),
                    (WALRELAY[6], number(self.attempts.into())),
                    (WALRELAY[7], number(self.at_millis)),
                ];
                headers.extend(timestamp.map(|timestamp| (WALRELAY[3], timestamp)));
                headers
            }
            HeaderFormat::Spring => {
                let kind = match self.timestamp {
                    Timestamp::None => "NoTimestampType",
                    Timestamp::CreateTime(_) => "CreateTime",
                    Timestamp::LogAppendTime(_) => "LogAppendTime",
                };
                vec![
                    (SPRING[0], text(&self.topic)),
                    (SPRING[1], self.partition.to_be_bytes().to_vec()),
                    (SPRING[2], self.offset.to_be_bytes().to_vec()),
                    (SPRING[3], self.timestamp.millis().unwrap_or(-1).to_be_bytes().to_vec()),
                    (SPRING[4], text(kind)),
                    (SPRING[5], text(&self.group)),
                    (SPRING[6], text(reason)),
                ]
            }
            HeaderFormat::Connect => vec![
                (CONNECT[0], text(&self.topic)),
                (CONNECT[1], number(self.partition.into())),
                (CONNECT[2], number(self.offset)),
                (CONNECT[3], text(&self.group)),
                (CONNECT[4], text(reason)),
            ],
        }
    }
}

const WALRELAY: [&str; 8] =
    ["dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp", "dlq_group", "dlq_reason", "dlq_attempts", "dlq_at"];
const SPRING: [&str; 7] = [
    "kafka_dlt-original-topic",
    "kafka_dlt-original-partition",
    "kafka_dlt-original-offset",
    "kafka_dlt-original-timestamp",
    "kafka_dlt-original-timestamp-type",
    "kafka_dlt-original-consumer-group",
    "kafka_dlt-exception-message",
];
const CONNECT: [&str; 5] = [
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.connector.name",
    "__connect.errors.exception.message",
];

/// Returns whether a header is one of topic, partition, offset and group, in any format.
fn is_origin(name: &str) -> bool {
    let [topic, partition, offset, _, group, ..] = WALRELAY;
    let [spring_topic, spring_partition, spring_offset, _, _, spring_group, _] = SPRING;
    [topic, partition, offset, group, spring_topic, spring_partition, spring_offset, spring_group].contains(&name)
        || CONNECT.iter().take(4).any(|connect| *connect == name)
}

/// Returns whether a header describes the provenance, in any format.
fn is_provenance(name: &str) -> bool {
    WALRELAY.contains(&name) || SPRING.contains(&name) || CONNECT.contains(&name)
}

/// Returns the record's own headers, without those of an earlier dead-letter topic.
pub(super) fn own_headers(record: &Record) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    record.raw_headers().filter(|(name, _)| !std::str::from_utf8(name).is_ok_and(is_provenance))
}

/// Returns all headers of a dead-letter record: its own, byte for byte and in order, then the provenance.
pub(super) fn headers(record: &Record, provenance: &Provenance, format: HeaderFormat, extent: Extent) -> Headers {
    let own = own_headers(record).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
    let added = provenance.headers(format, extent).into_iter();
    own.chain(added.map(|(name, value)| (name.as_bytes().to_vec(), Some(value)))).collect()
}

fn cut(reason: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, Option<&[u8]>)]) -> Record {
        Record::new("order-events", 3, 17, Some(b"o-1"), Some(b"\xff\x00"), headers)
    }

    #[test]
    fn a_dead_letter_record_keeps_its_own_headers_and_adds_its_provenance() {
        let own: [(&str, Option<&[u8]>); 3] = [("event_id", Some(b"e")), ("twice", Some(b"1")), ("twice", None)];
        for format in [HeaderFormat::Walrelay, HeaderFormat::Spring, HeaderFormat::Connect] {
            let first = record(&own);
            let provenance = Provenance::of(&first, "shipping", "no such order", 3);
            let headers = headers(&first, &provenance, format, Extent::Full);
            let borrowed: Vec<(&str, Option<&[u8]>)> =
                headers.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap(), value.as_deref())).collect();
            assert_eq!(borrowed[..3], own);
            let dead_letter = record(&borrowed);
            let read = Provenance::read(&dead_letter).unwrap();
            let found = (read.topic, read.partition, read.offset, read.group, read.reason);
            assert_eq!(found, ("order-events".into(), 3, 17, "shipping".into(), "no such order".into()), "{format:?}");
            assert_eq!(own_headers(&dead_letter).count(), 3, "a second dead-letter topic replaces them");
        }
        assert_eq!(Provenance::read(&record(&own)), None);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "ü".repeat(MAX_REASON_BYTES);
        assert_eq!(cut(&long, MAX_REASON_BYTES).len(), MAX_REASON_BYTES);
        assert_eq!(cut(&format!("x{long}"), MAX_REASON_BYTES).len(), MAX_REASON_BYTES - 1);
        assert_eq!(cut("short", MAX_REASON_BYTES), "short");
    }

    #[test]
    fn a_smaller_extent_still_names_the_origin() {
        let own: [(&str, Option<&[u8]>); 1] = [("event_id", Some(b"e"))];
        for format in [HeaderFormat::Walrelay, HeaderFormat::Spring, HeaderFormat::Connect] {
            let first = record(&own);
            let provenance = Provenance::of(&first, "shipping", &"x".repeat(500), 3);
            for (extent, reason_bytes) in [(Extent::Full, 500), (Extent::ShortReason, 128), (Extent::Least, 0)] {
                let headers = headers(&first, &provenance, format, extent);
                let borrowed: Vec<(&str, Option<&[u8]>)> = headers
                    .iter()
                    .map(|(name, value)| (std::str::from_utf8(name).unwrap(), value.as_deref()))
                    .collect();
                let read = Provenance::read(&record(&borrowed)).unwrap();
                let found = (read.topic, read.partition, read.offset, read.group, read.reason.len());
                assert_eq!(
                    found,
                    ("order-events".into(), 3, 17, "shipping".into(), reason_bytes),
                    "{format:?} {extent:?}"
                );
            }
        }
    }
}
