//! A record as it came from Kafka, owned, key, value and headers byte for byte. Its memory is used again.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use rdkafka::message::Headers as _;
use rdkafka::message::Message;
use rdkafka::message::Timestamp as KafkaTimestamp;

use crate::consumer::lanes::Partition;

/// What a record costs in memory besides its bytes: itself, and its place in a lane.
const OVERHEAD: u64 = 256;

thread_local! {
    static READS_HEADERS: Cell<bool> = const { Cell::new(false) };
}

/// Says whether a panic of this thread, now, tells only of a header that cannot be read, and is caught.
pub fn is_expecting_a_panic() -> bool {
    READS_HEADERS.get()
}

/// A record. Cloning it copies no bytes.
#[derive(Clone)]
pub struct Record(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    place: Place,
    /// Key and value, in memory of exactly their size unless it was used before.
    body: Vec<u8>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    /// Each header's name and value, one behind the other.
    header_bytes: Vec<u8>,
    headers: Vec<Header>,
    /// Whether it has headers that cannot be read: they are left out.
    is_unreadable: bool,
}

/// Where a record stands, and when it was written.
#[derive(Clone, Default)]
struct Place {
    partition: Partition,
    offset: i64,
    timestamp: Timestamp,
}

/// Where a header's name and value stand in the bytes.
type Header = (Range<usize>, Option<Range<usize>>);

/// When a record was written, in milliseconds of the Unix clock, and by whose clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Timestamp {
    /// It has none.
    #[default]
    None,
    /// The producer's.
    Created(i64),
    /// The broker's.
    Appended(i64),
}

impl Timestamp {
    /// Gives the milliseconds.
    #[must_use]
    pub const fn millis(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Created(millis) | Self::Appended(millis) => Some(millis),
        }
    }
}

impl Record {
    /// Copies a message of librdkafka into memory out of the pool. The topic's name is shared.
    pub(super) fn copy(message: &impl Message, partition: &Partition, pool: &mut Pool) -> Self {
        let timestamp = match message.timestamp() {
            KafkaTimestamp::NotAvailable => Timestamp::None,
            KafkaTimestamp::CreateTime(millis) => Timestamp::Created(millis),
            KafkaTimestamp::LogAppendTime(millis) => Timestamp::Appended(millis),
        };
        let (place, memory) =
            (Place { partition: partition.clone(), offset: message.offset(), timestamp }, pool.take());
        Self::fill(memory, place, message.key(), message.payload(), |inner| {
            let Some(headers) = message.headers() else { return };
            // rdkafka panics at a header whose name is not UTF-8, and has no other way to read it. What was read until then is
            // thrown away.
            READS_HEADERS.set(true);
            let read = catch_unwind(AssertUnwindSafe(|| {
                headers.iter().for_each(|header| inner.put_header(header.key, header.value));
            }));
            READS_HEADERS.set(false);
            if read.is_err() {
                inner.header_bytes.clear();
                inner.headers.clear();
                inner.is_unreadable = true;
            }
        })
    }

    /// Makes a record without Kafka, for a test of a handler.
    #[must_use]
    pub fn new(
        topic: &str,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        let partition = Partition { topic: topic.into(), number: partition };
        let place = Place { partition, offset, timestamp: Timestamp::None };
        Self::fill(Arc::default(), place, key, value, |inner| {
            headers.iter().for_each(|(name, value)| inner.put_header(name, *value));
        })
    }

    fn fill(
        mut memory: Arc<Inner>,
        place: Place,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl FnOnce(&mut Inner),
    ) -> Self {
        // Nobody else has it: nothing is copied here.
        let inner = Arc::make_mut(&mut memory);
        inner.place = place;
        inner.body.reserve_exact(key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
        inner.key = key.map(|key| put(&mut inner.body, key));
        inner.value = value.map(|value| put(&mut inner.body, value));
        headers(inner);
        Self(memory)
    }

    /// Gives the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.place.partition.topic
    }

    /// Gives the number of the partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.place.partition.number
    }

    /// Gives the offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.place.offset
    }

    /// Gives the time of the record.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.0.place.timestamp
    }

    /// Gives the key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.0.body.get(self.0.key.clone()?)
    }

    /// Gives the value; a tombstone has none.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.0.body.get(self.0.value.clone()?)
    }

    /// Gives every header in order, as it is; a name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.headers.iter().map(|(name, value)| {
            let name = self.header_part(name).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            (name, value.as_ref().and_then(|value| self.header_part(value)))
        })
    }

    /// Gives the last header with this name, as text. One that is not UTF-8 counts as none.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |found: &&Header| self.header_part(&found.0) == Some(name.as_bytes());
        let (_, value) = self.0.headers.iter().rfind(is_it)?;
        std::str::from_utf8(self.header_part(value.as_ref()?)?).ok()
    }

    /// Says whether it has headers that cannot be read, because the name of one is not UTF-8. Then none of them is given.
    #[must_use]
    pub fn has_unreadable_headers(&self) -> bool {
        self.0.is_unreadable
    }

    pub(crate) fn whence(&self) -> &Partition {
        &self.0.place.partition
    }

    pub(super) fn cost(&self) -> u64 {
        self.0.size() as u64 + OVERHEAD
    }

    fn header_part(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.0.header_bytes.get(range.clone())
    }
}

impl Inner {
    fn put_header(&mut self, name: &str, value: Option<&[u8]>) {
        let name = put(&mut self.header_bytes, name.as_bytes());
        let value = value.map(|value| put(&mut self.header_bytes, value));
        self.headers.push((name, value));
    }

    /// Gives the bytes it takes, used or not.
    fn size(&self) -> usize {
        self.body.capacity() + self.header_bytes.capacity() + self.headers.capacity() * size_of::<Header>()
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

/// The memory of records that are dealt with, for those that come: to give it back and ask for it again, for each, takes a
/// good part of the time.
#[derive(Default)]
pub(super) struct Pool(Vec<Arc<Inner>>);

impl Pool {
    /// How much is kept at most: so many records, none of them larger than this. That is 4 MiB.
    const RECORDS_MAX: usize = 2_048;
    const BYTES_MAX: usize = 2_048;

    /// Takes the memory of a record, if nobody else has the record any more.
    pub(super) fn give(&mut self, record: Record) {
        let mut memory = record.0;
        if self.0.len() < Self::RECORDS_MAX
            && memory.size() <= Self::BYTES_MAX
            && let Some(inner) = Arc::get_mut(&mut memory)
        {
            inner.body.clear();
            inner.header_bytes.clear();
            inner.headers.clear();
            inner.is_unreadable = false;
            self.0.push(memory);
        }
    }

    /// Gives memory in which nothing stands.
    fn take(&mut self) -> Arc<Inner> {
        self.0.pop().unwrap_or_default()
    }
}

/// Where it stands; never what is in it.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({self})")
    }
}

/// Where it stands: `topic[partition]@offset`.
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
    fn a_record_gives_back_what_was_put_in_and_the_last_header_of_a_name() {
        let record = record(7, b"k");
        assert_eq!((record.topic(), record.partition(), record.offset()), ("t", 1, 7));
        assert_eq!((record.key(), record.value()), (Some(&b"k"[..]), None));
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
        assert_eq!((record.header("a"), record.header("b"), record.header("c")), (Some("2"), None, None));
    }

    #[test]
    fn memory_is_used_again_only_when_nobody_else_has_the_record() {
        let mut pool = Pool::default();
        let (kept, done) = (record(1, b"kept"), record(2, b"done"));
        pool.give(kept.clone());
        pool.give(done);
        assert_eq!(pool.0.len(), 1, "one is still held by somebody");
        let place = Place { partition: Partition::default(), offset: 3, timestamp: Timestamp::None };
        let next = Record::fill(pool.take(), place, None, Some(b"new"), |_| ());
        assert_eq!((next.key(), next.value(), next.headers().count()), (None, Some(&b"new"[..]), 0));
        assert_eq!(kept.key(), Some(&b"kept"[..]));
    }

    #[test]
    fn the_pool_keeps_neither_large_records_nor_too_many() {
        let mut pool = Pool::default();
        pool.give(record(1, &[0; 4_096]));
        assert!(pool.0.is_empty());
        (0..3_000).for_each(|offset| pool.give(record(offset, b"k")));
        assert_eq!(pool.0.len(), Pool::RECORDS_MAX);
    }
}
