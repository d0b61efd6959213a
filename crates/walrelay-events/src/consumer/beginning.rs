//! Where a group began in a topic, if it starts after the newest records ([`Start::Latest`]).
//!
//! A partition without a committed offset can be one that was added later: its records must not be skipped. Or the
//! group begins, and another member has committed the offsets of its partitions first. Therefore the first member keeps
//! the end offsets of all partitions as metadata of what it commits, and all members pass them on until every partition
//! of that time has a committed offset.
//!
//! [`Start::Latest`]: crate::consumer::Start::Latest

use std::collections::HashMap;
use std::fmt::Write as _;

const MARK: &str = "walrelay-start ";
/// Brokers accept 4,096 bytes of metadata by default.
const MAX_BYTES: usize = 4_000;

/// The end offsets of a topic's partitions when the group began.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Beginning {
    /// How many partitions the topic had.
    partitions: usize,
    /// Their end offsets, by number. Those of the last ones are missing if there are too many for metadata.
    ends: Vec<i64>,
}

/// Where a partition without a committed offset starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FirstStart {
    /// At its end offset of the time when the group began.
    At(i64),
    /// At its end: it existed when the group began, and its end offset is not known.
    End,
    /// At its oldest record: it was added later.
    Oldest,
}

impl Beginning {
    pub(crate) const fn new(ends: Vec<i64>) -> Self {
        Self { partitions: ends.len(), ends }
    }

    /// Reads the metadata of a committed offset.
    pub(crate) fn read(metadata: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(metadata).ok()?.strip_prefix(MARK)?;
        let (partitions, ends) = text.split_once(':')?;
        let ends: Result<Vec<i64>, _> = ends.split(',').filter(|end| !end.is_empty()).map(str::parse).collect();
        Some(Self { partitions: partitions.parse().ok()?, ends: ends.ok()? })
    }

    /// Returns the metadata of a committed offset.
    pub(crate) fn metadata(&self) -> String {
        let mut text = format!("{MARK}{}:", self.partitions);
        for end in &self.ends {
            let length = text.len();
            let _ = write!(text, "{end},");
            if text.len() > MAX_BYTES {
                text.truncate(length);
                break;
            }
        }
        text
    }

    /// Combines what two members saw that began at the same time: what both saw counts, at the earlier offset.
    #[must_use]
    pub(crate) fn earlier(self, other: Self) -> Self {
        let ends = self.ends.into_iter().zip(other.ends).map(|(one, other)| one.min(other)).collect();
        Self { partitions: self.partitions.min(other.partitions), ends }
    }

    pub(crate) fn first_start(&self, partition: i32) -> FirstStart {
        let Ok(index) = usize::try_from(partition) else { return FirstStart::Oldest };
        if index >= self.partitions {
            return FirstStart::Oldest;
        }
        self.ends.get(index).map_or(FirstStart::End, |end| FirstStart::At(*end))
    }

    /// Returns how many partitions the topic had.
    pub(crate) const fn partitions(&self) -> usize {
        self.partitions
    }
}

/// The beginnings that are committed with offsets, by topic.
pub(crate) type Beginnings = HashMap<String, Beginning>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_read_as_it_was_written() {
        let beginning = Beginning::new(vec![5, 0, 1_234_567_890]);
        assert_eq!(beginning.metadata(), "walrelay-start 3:5,0,1234567890,");
        assert_eq!(Beginning::read(beginning.metadata().as_bytes()), Some(beginning));
        for foreign in ["", "walrelay-start", "walrelay-start x:1", "walrelay-start 1:x", "{}", "walrelay-start 1"] {
            assert_eq!(Beginning::read(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(Beginning::read(&[0xff]), None);
    }

    #[test]
    fn a_partition_that_was_added_later_starts_at_its_oldest_record() {
        let beginning = Beginning::new(vec![5, 7]).earlier(Beginning::new(vec![6, 4, 9]));
        let starts: Vec<FirstStart> = (-1..4).map(|partition| beginning.first_start(partition)).collect();
        use FirstStart::{At, Oldest};
        assert_eq!(starts, [Oldest, At(5), At(4), Oldest, Oldest]);
        assert_eq!(Beginning::default().first_start(0), Oldest, "nothing is known about the beginning");
    }

    #[test]
    fn metadata_is_never_longer_than_brokers_accept() {
        let beginning = Beginning::new(vec![1_000_000_000; 1_000]);
        let metadata = beginning.metadata();
        assert!(metadata.len() <= MAX_BYTES, "{}", metadata.len());
        let read = Beginning::read(metadata.as_bytes()).unwrap();
        assert_eq!(read.first_start(0), FirstStart::At(1_000_000_000));
        assert_eq!((read.first_start(999), read.first_start(1_000)), (FirstStart::End, FirstStart::Oldest));
    }
}
