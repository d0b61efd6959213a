//! A consumed record: key, value and headers byte for byte, in memory that is reused.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rdkafka::message::BorrowedMessage;
use rdkafka::message::Message as _;
use rdkafka::message::Timestamp as KafkaTimestamp;

use crate::consumer::raw;
use crate::consumer::topic_partition::TopicPartition;

/// The memory of a record besides its bytes: the record itself and its entry in a lane.
const OVERHEAD: u64 = 256;

/// A consumed record. Cloning it copies no bytes.
#[derive(Clone)]
pub struct Record(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    location: Location,
    /// Key and value. Exactly their size, unless the memory is reused.
    body: Vec<u8>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    /// The names and values of all headers.
    header_bytes: Vec<u8>,
    headers: Vec<Header>,
}

/// Where a record is, and its timestamp.
#[derive(Clone, Default)]
struct Location {
    partition: TopicPartition,
    offset: i64,
    timestamp: Timestamp,
}

/// The ranges of a header's name and value in `header_bytes`.
type Header = (Range<usize>, Option<Range<usize>>);

/// The timestamp of a record, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Timestamp {
    /// The record has none.
    #[default]
    None,
    /// `CreateTime`: set by the producer.
    CreateTime(i64),
    /// `LogAppendTime`: set by the broker.
    LogAppendTime(i64),
}

impl Timestamp {
    /// Returns the milliseconds, of either kind.
    #[must_use]
    pub const fn millis(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::CreateTime(millis) | Self::LogAppendTime(millis) => Some(millis),
        }
    }
}

impl Record {
    /// Copies a message of librdkafka into memory of the pool. The topic's name is shared.
    pub(super) fn copy(message: &BorrowedMessage<'_>, partition: &TopicPartition, pool: &mut Pool) -> Self {
        let timestamp = match message.timestamp() {
            KafkaTimestamp::NotAvailable => Timestamp::None,
            KafkaTimestamp::CreateTime(millis) => Timestamp::CreateTime(millis),
            KafkaTimestamp::LogAppendTime(millis) => Timestamp::LogAppendTime(millis),
        };
        let location = Location { partition: partition.clone(), offset: message.offset(), timestamp };
        Self::fill(pool.take(), location, message.key(), message.payload(), |inner| {
            raw::headers::visit(message, |name, value| inner.put_header(name, value));
        })
    }

    /// Creates a record without Kafka, for tests of handlers.
    #[must_use]
    pub fn new(
        topic: &str,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        let partition = TopicPartition::new(topic, partition);
        let location = Location { partition, offset, timestamp: Timestamp::None };
        Self::fill(Arc::default(), location, key, value, |inner| {
            headers.iter().for_each(|(name, value)| inner.put_header(name.as_bytes(), *value));
        })
    }

    fn fill(
        mut memory: Arc<Inner>,
        location: Location,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl FnOnce(&mut Inner),
    ) -> Self {
        // The memory has no other owner: nothing is copied here.
        let inner = Arc::make_mut(&mut memory);
        inner.location = location;
        inner.body.reserve_exact(key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        inner.key = key.map(|key| put(&mut inner.body, key));
        inner.value = value.map(|value| put(&mut inner.body, value));
        headers(inner);
        Self(memory)
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.location.partition.topic
    }

    /// Returns the number of the partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.location.partition.partition
    }

    /// Returns the offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.location.offset
    }

    /// Returns the timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.0.location.timestamp
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.body.get(self.0.key.clone()?)
    }

    /// Returns the value. A tombstone has none.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.0.body.get(self.0.value.clone()?)
    }

    /// Returns the headers whose name is UTF-8, in order. A name can occur more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.raw_headers().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    /// Returns all headers in order, those included whose name is not UTF-8.
    pub fn raw_headers(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.headers.iter().map(|(name, value)| {
            let name = self.header_part(name).unwrap_or_default();
            (name, value.as_ref().and_then(|value| self.header_part(value)))
        })
    }

    /// Returns the last header with this name as text, or none if its value is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |found: &&Header| self.header_part(&found.0) == Some(name.as_bytes());
        let (_, value) = self.0.headers.iter().rfind(is_it)?;
        std::str::from_utf8(self.header_part(value.as_ref()?)?).ok()
    }

    /// Returns whether the name of a header is not UTF-8. Only [`Record::raw_headers`] returns that header.
    #[must_use]
    pub fn has_unreadable_headers(&self) -> bool {
        self.raw_headers().any(|(name, _)| std::str::from_utf8(name).is_err())
    }

    pub(crate) fn topic_partition(&self) -> &TopicPartition {
        &self.0.location.partition
    }

    pub(super) fn cost(&self) -> u64 {
        self.0.size() as u64 + OVERHEAD
    }

    fn header_part(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.0.header_bytes.get(range.clone())
    }
}

impl Inner {
    fn put_header(&mut self, name: &[u8], value: Option<&[u8]>) {
        let name = put(&mut self.header_bytes, name);
        let value = value.map(|value| put(&mut self.header_bytes, value));
        self.headers.push((name, value));
    }

    /// Returns the allocated bytes.
    fn size(&self) -> usize {
        self.body.capacity() + self.header_bytes.capacity() + self.headers.capacity() * size_of::<Header>()
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

/// Reuses the memory of handled records for new ones: allocating it for each record is measurably slower.
#[derive(Default)]
pub(super) struct Pool(Vec<Arc<Inner>>);

impl Pool {
    /// At most this many records of at most this size are kept: 4 MiB.
    const MAX_RECORDS: usize = 2_048;
    const MAX_BYTES: usize = 2_048;

    /// Keeps the memory of a record, if the record has no other owner.
    pub(super) fn put(&mut self, record: Record) {
        let mut memory = record.0;
        if self.0.len() < Self::MAX_RECORDS
            && memory.size() <= Self::MAX_BYTES
            && let Some(inner) = Arc::get_mut(&mut memory)
        {
            inner.body.clear();
            inner.header_bytes.clear();
            inner.headers.clear();
            self.0.push(memory);
        }
    }

    /// Returns empty memory.
    fn take(&mut self) -> Arc<Inner> {
        self.0.pop().unwrap_or_default()
    }
}

/// The location only: contents are never logged.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({self})")
    }
}

/// `topic[partition]@offset`
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic(), self.partition(), self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, key: &[u8]) -> Record {
        Record::new("t", 1, offset, Some(key), None, &[("a", Some(b"1")), ("b", None), ("a", Some(b"2"))])
    }

    #[test]
    fn a_record_returns_what_it_was_created_with_and_the_last_header_of_a_name() {
        let record = record(7, b"k");
        assert_eq!((record.topic(), record.partition(), record.offset()), ("t", 1, 7));
        assert_eq!((record.key(), record.value()), (Some(&b"k"[..]), None));
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
        assert_eq!((record.header("a"), record.header("b"), record.header("c")), (Some("2"), None, None));
    }

    #[test]
    fn a_header_whose_name_is_not_utf8_is_kept_and_hides_no_other() {
        let record = Record::fill(Arc::default(), Location::default(), None, None, |inner| {
            inner.put_header(b"a", Some(b"1"));
            inner.put_header(b"\xff", Some(b"2"));
            inner.put_header(b"b", None);
        });
        assert_eq!(record.headers().collect::<Vec<_>>(), [("a", Some(&b"1"[..])), ("b", None)]);
        let raw: Vec<_> = record.raw_headers().collect();
        assert_eq!(raw, [(&b"a"[..], Some(&b"1"[..])), (b"\xff", Some(b"2")), (b"b", None)]);
        assert!(record.has_unreadable_headers() && record.header("a") == Some("1"));
    }

    #[test]
    fn memory_is_reused_only_when_the_record_has_no_other_owner() {
        let mut pool = Pool::default();
        let (kept, done) = (record(1, b"kept"), record(2, b"done"));
        pool.put(kept.clone());
        pool.put(done);
        assert_eq!(pool.0.len(), 1, "one record has another owner");
        let next = Record::fill(pool.take(), Location::default(), None, Some(b"new"), |_| ());
        assert_eq!((next.key(), next.value(), next.headers().count()), (None, Some(&b"new"[..]), 0));
        assert_eq!(kept.key(), Some(&b"kept"[..]));
    }

    #[test]
    fn the_pool_keeps_neither_large_records_nor_too_many() {
        let mut pool = Pool::default();
        pool.put(record(1, &[0; 4_096]));
        assert!(pool.0.is_empty());
        (0..3_000).for_each(|offset| pool.put(record(offset, b"k")));
        assert_eq!(pool.0.len(), Pool::MAX_RECORDS);
    }
}
