//! An event that is not published yet, as the record that it will be, and how many of them are kept.

use crate::lsn::Lsn;
use crate::relay::record::route::ProducerRecord;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::chain;

/// The memory of the collected events. One event is always kept, whatever its size.
const MAX_BYTES: usize = 32 << 20;

/// An event, or why it cannot become a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    pub place: Place,
    pub record: Result<PendingRecord, Unpublishable>,
}

/// Where an event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the transaction that commits here.
    Commit(Lsn),
    /// In the row with this number; only in mode `poll`.
    Sequence(i64),
}

/// A copy of the record, byte for byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PendingRecord {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// A header without a value is one of a NULL.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// None means the time of sending.
    pub timestamp_millis: Option<i64>,
    /// The partition, if the row has one.
    pub partition: Option<i32>,
}

/// The error with which `run` would stop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unpublishable {
    pub code: String,
    pub text: String,
    pub help: Option<String>,
}

impl PendingRecord {
    #[must_use]
    pub fn copy(record: &ProducerRecord<'_>) -> Self {
        let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
        Self {
            topic: record.topic.to_owned(),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
            timestamp_millis: record.timestamp_millis,
            partition: record.partition,
        }
    }

    fn size(&self) -> usize {
        let of_value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + of_value(value)).sum::<usize>();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

impl Unpublishable {
    pub fn new(error: &impl Diagnose) -> Self {
        Self { code: error.code().to_string(), text: chain(error), help: error.help() }
    }
}

/// The first pending events, up to a number and to a size.
#[derive(Debug)]
pub(in crate::relay) struct Collection {
    events: Vec<Pending>,
    max_events: usize,
    bytes: usize,
    has_more: bool,
}

impl Collection {
    pub(in crate::relay) const fn new(max_events: usize) -> Self {
        Self { events: Vec::new(), max_events, bytes: 0, has_more: false }
    }

    /// Adds an event, unless a limit is reached.
    pub(in crate::relay) fn add(&mut self, place: Place, record: Result<PendingRecord, Unpublishable>) {
        let bytes = record.as_ref().map_or(0, PendingRecord::size);
        let fits = self.events.is_empty() || self.bytes + bytes <= MAX_BYTES;
        if self.has_more || self.events.len() >= self.max_events || !fits {
            self.has_more = true;
            return;
        }
        self.bytes += bytes;
        self.events.push(Pending { place, record });
    }

    /// Gives how many further events it takes at most.
    pub(in crate::relay) fn room(&self) -> usize {
        self.max_events.saturating_sub(self.events.len())
    }

    /// Says whether an event was not added: the next ones would not be either.
    pub(in crate::relay) const fn is_full(&self) -> bool {
        self.has_more
    }

    pub(in crate::relay) fn into_events(self) -> Vec<Pending> {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> Result<PendingRecord, Unpublishable> {
        let value = Some(vec![0; bytes]);
        let (topic, headers) = ("t".to_owned(), vec![("name".to_owned(), Some(b"value".to_vec()))]);
        Ok(PendingRecord { topic, key: None, value, headers, timestamp_millis: None, partition: None })
    }

    fn collected(max_events: usize, sizes: &[usize]) -> (usize, bool) {
        let mut collection = Collection::new(max_events);
        sizes.iter().for_each(|bytes| collection.add(Place::Commit(Lsn::ZERO), record(*bytes)));
        let is_full = collection.is_full();
        (collection.into_events().len(), is_full)
    }

    #[test]
    fn events_are_kept_up_to_a_number_and_a_size_but_always_one() {
        for (max_events, sizes, expected) in [
            (2, &[1, 1][..], (2, false)),
            (2, &[1, 1, 1], (2, true)),
            (9, &[MAX_BYTES, 1], (1, true)),
            (9, &[2 * MAX_BYTES], (1, false)),
            // A small one behind a large one would be out of order.
            (9, &[1, MAX_BYTES, 1], (1, true)),
        ] {
            assert_eq!(collected(max_events, sizes), expected, "{max_events} {sizes:?}");
        }
    }
}
