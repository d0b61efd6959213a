//! A record as it came from Kafka, owned, in one buffer: key, value and headers byte for byte.

use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use rdkafka::message::Headers as _;
use rdkafka::message::Message;
use rdkafka::message::Timestamp as KafkaTimestamp;

use crate::consumer::lanes::Partition;

/// What a record costs in memory besides its bytes.
const OVERHEAD: u64 = 256;

/// A record. Cloning it copies no bytes.
#[derive(Clone)]
pub struct Record(Arc<Inner>);

struct Inner {
    partition: Partition,
    offset: i64,
    timestamp: Timestamp,
    bytes: Box<[u8]>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Box<[Place]>,
    /// Whether it has headers that cannot be read: they are left out.
    is_unreadable: bool,
}

/// Where a header's name and value stand.
type Place = (Range<usize>, Option<Range<usize>>);

/// When a record was written, in milliseconds of the Unix clock, and by whose clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timestamp {
    /// It has none.
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
    /// Copies a message of librdkafka. The topic's name is shared.
    pub(super) fn copy(message: &impl Message, partition: Partition) -> Self {
        let timestamp = match message.timestamp() {
            KafkaTimestamp::NotAvailable => Timestamp::None,
            KafkaTimestamp::CreateTime(millis) => Timestamp::Created(millis),
            KafkaTimestamp::LogAppendTime(millis) => Timestamp::Appended(millis),
        };
        let (key, value, headers) = (message.key(), message.payload(), message.headers());
        let read = || headers.into_iter().flat_map(|it| it.iter().map(|header| (header.key, header.value)));
        let gather = || Self::gather(partition.clone(), message.offset(), timestamp, key, value, read);
        // rdkafka panics at a header whose name is not UTF-8, and has no other way to read it. Nothing is shared with the
        // closure but the message, which is not changed.
        catch_unwind(AssertUnwindSafe(gather)).unwrap_or_else(|_| {
            Self::gather(partition.clone(), message.offset(), timestamp, key, value, std::iter::empty).without_headers()
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
        Self::gather(partition, offset, Timestamp::None, key, value, || headers.iter().copied())
    }

    /// Copies the parts into one buffer of exactly their size.
    fn gather<'p, I: Iterator<Item = (&'p str, Option<&'p [u8]>)>>(
        partition: Partition,
        offset: i64,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Fn() -> I,
    ) -> Self {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let header_bytes: usize = headers().map(|(name, value)| name.len() + length(value)).sum();
        let mut bytes = Vec::with_capacity(length(key) + length(value) + header_bytes);
        let mut put = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            start..bytes.len()
        };
        let key = key.map(&mut put);
        let value = value.map(&mut put);
        let headers = headers().map(|(name, value)| (put(name.as_bytes()), value.map(&mut put))).collect();
        let bytes = bytes.into_boxed_slice();
        Self(Arc::new(Inner { partition, offset, timestamp, bytes, key, value, headers, is_unreadable: false }))
    }

    /// Says that its headers were left out. Nobody else has it yet.
    fn without_headers(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.is_unreadable = true;
        }
        self
    }

    /// Gives the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.partition.topic
    }

    /// Gives the number of the partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.partition.number
    }

    /// Gives the offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    /// Gives the time of the record.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.0.timestamp
    }

    /// Gives the key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.part(self.0.key.as_ref()?)
    }

    /// Gives the value; a tombstone has none.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.part(self.0.value.as_ref()?)
    }

    /// Gives every header in order, as it is; a name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.headers.iter().map(|(name, value)| {
            let name = self.part(name).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
            (name, value.as_ref().and_then(|value| self.part(value)))
        })
    }

    /// Gives the last header with this name, as text. One that is not UTF-8 counts as none.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers().filter(|(found, _)| *found == name).last()?;
        std::str::from_utf8(found.1?).ok()
    }

    /// Says whether it has headers that cannot be read, because the name of one is not UTF-8. Then none of them is given.
    #[must_use]
    pub fn has_unreadable_headers(&self) -> bool {
        self.0.is_unreadable
    }

    pub(crate) fn whence(&self) -> &Partition {
        &self.0.partition
    }

    pub(super) fn cost(&self) -> u64 {
        self.0.bytes.len() as u64 + OVERHEAD
    }

    fn part(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.0.bytes.get(range.clone())
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
