//! What a record carries in the dead-letter topic: itself byte for byte, and where it came from and why.

use std::time::SystemTime;

use crate::consumer::record::Record;
use crate::consumer::record::Timestamp;

/// How long a reason may be, in bytes.
const REASON_MAX: usize = 2_048;

/// The names of the headers that say where a record came from and why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Names {
    /// `dlq_topic`, `dlq_partition`, `dlq_offset`, `dlq_timestamp`, `dlq_group`, `dlq_reason`, `dlq_tries`, `dlq_at`: text.
    #[default]
    Walrelay,
    /// Spring Kafka's `kafka_dlt-original-topic` and so on; numbers are big-endian, as Spring writes them.
    Spring,
    /// Kafka Connect's `__connect.errors.topic` and so on: text.
    Connect,
}

/// Where a record came from and why it was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provenance {
    /// The topic it was read from.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's time.
    pub timestamp: Timestamp,
    /// The consumer group that gave it up.
    pub group: String,
    /// Why.
    pub reason: String,
    /// After how many tries.
    pub tries: u32,
    /// When, in milliseconds of the Unix clock.
    pub at_millis: i64,
}

impl Provenance {
    /// Says where a record came from, as of now.
    #[must_use]
    pub fn of(record: &Record, group: &str, reason: &str, tries: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            topic: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            group: group.to_owned(),
            reason: cut(reason).to_owned(),
            tries,
            at_millis: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Reads it from the headers of a dead letter, whichever names it was written with.
    #[must_use]
    pub fn read(record: &Record) -> Option<Self> {
        let text = |name: &str| record.header(name).map(str::to_owned);
        let number = |name: &str| record.header(name)?.parse::<i64>().ok();
        let bytes = |name: &str| record.headers().filter(|(found, _)| *found == name).last()?.1;
        let long = |name: &str| Some(i64::from_be_bytes(bytes(name)?.try_into().ok()?));
        let int = |name: &str| Some(i32::from_be_bytes(bytes(name)?.try_into().ok()?));
        let created = |millis: Option<i64>| millis.map_or(Timestamp::None, Timestamp::Created);
        let small = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
        let tries = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
        if let Some(topic) = text(OURS[0]) {
            return Some(Self {
                topic,
                partition: small(number(OURS[1]))?,
                offset: number(OURS[2])?,
                timestamp: created(number(OURS[3])),
                group: text(OURS[4]).unwrap_or_default(),
                reason: text(OURS[5]).unwrap_or_default(),
                tries: tries(number(OURS[6])),
                at_millis: number(OURS[7]).unwrap_or_default(),
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
                tries: 0,
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
            tries: 0,
            at_millis: record.timestamp().millis().unwrap_or_default(),
        })
    }

    fn headers(&self, names: Names) -> Vec<(&'static str, Vec<u8>)> {
        let text = |text: &str| text.as_bytes().to_vec();
        let number = |number: i64| number.to_string().into_bytes();
        match names {
            Names::Walrelay => {
                let timestamp = self.timestamp.millis().map(number);
                let mut headers = vec![
                    (OURS[0], text(&self.topic)),
                    (OURS[1], number(self.partition.into())),
                    (OURS[2], number(self.offset)),
                    (OURS[4], text(&self.group)),
                    (OURS[5], text(&self.reason)),
                    (OURS[6], number(self.tries.into())),
                    (OURS[7], number(self.at_millis)),
                ];
                headers.extend(timestamp.map(|timestamp| (OURS[3], timestamp)));
                headers
            }
            Names::Spring => {
                let kind = match self.timestamp {
                    Timestamp::None => "NoTimestampType",
                    Timestamp::Created(_) => "CreateTime",
                    Timestamp::Appended(_) => "LogAppendTime",
                };
                vec![
                    (SPRING[0], text(&self.topic)),
                    (SPRING[1], self.partition.to_be_bytes().to_vec()),
                    (SPRING[2], self.offset.to_be_bytes().to_vec()),
                    (SPRING[3], self.timestamp.millis().unwrap_or(-1).to_be_bytes().to_vec()),
                    (SPRING[4], text(kind)),
                    (SPRING[5], text(&self.group)),
                    (SPRING[6], text(&self.reason)),
                ]
            }
            Names::Connect => vec![
                (CONNECT[0], text(&self.topic)),
                (CONNECT[1], number(self.partition.into())),
                (CONNECT[2], number(self.offset)),
                (CONNECT[3], text(&self.group)),
                (CONNECT[4], text(&self.reason)),
            ],
        }
    }
}

const OURS: [&str; 8] =
    ["dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp", "dlq_group", "dlq_reason", "dlq_tries", "dlq_at"];
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

/// Says whether a header tells of a dead letter, by any of the names.
fn is_provenance(name: &str) -> bool {
    OURS.contains(&name) || SPRING.contains(&name) || CONNECT.contains(&name)
}

/// Gives the record's own headers, without those of an earlier stay in a dead-letter topic.
pub(super) fn own_headers(record: &Record) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    record.headers().filter(|(name, _)| !is_provenance(name))
}

/// Gives every header of a dead letter: the record's own, byte for byte and in order, then where it came from and why.
pub(super) fn headers(record: &Record, provenance: &Provenance, names: Names) -> Vec<(String, Option<Vec<u8>>)> {
    let own = own_headers(record).map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
    let told = provenance.headers(names).into_iter().map(|(name, value)| (name.to_owned(), Some(value)));
    own.chain(told).collect()
}

fn cut(reason: &str) -> &str {
    let end = (0..=REASON_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, Option<&[u8]>)]) -> Record {
        Record::new("order-events", 3, 17, Some(b"o-1"), Some(b"\xff\x00"), headers)
    }

    #[test]
    fn a_letter_keeps_the_records_own_headers_and_tells_where_it_came_from() {
        let own: [(&str, Option<&[u8]>); 3] = [("event_id", Some(b"e")), ("twice", Some(b"1")), ("twice", None)];
        for names in [Names::Walrelay, Names::Spring, Names::Connect] {
            let first = record(&own);
            let provenance = Provenance::of(&first, "shipping", "no such order", 3);
            let headers = headers(&first, &provenance, names);
            let borrowed: Vec<(&str, Option<&[u8]>)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            assert_eq!(borrowed[..3], own);
            let letter = record(&borrowed);
            let read = Provenance::read(&letter).unwrap();
            let told = (read.topic, read.partition, read.offset, read.group, read.reason);
            assert_eq!(told, ("order-events".into(), 3, 17, "shipping".into(), "no such order".into()), "{names:?}");
            assert_eq!(own_headers(&letter).count(), 3, "and a second stay does not pile them up");
        }
        assert_eq!(Provenance::read(&record(&own)), None);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "ü".repeat(REASON_MAX);
        assert_eq!(cut(&long).len(), REASON_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), REASON_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
