//! The contiguous prefix of a partition: all records up to it are done.
//!
//! Offsets can have gaps (compaction, transactions), and an offset can be delivered twice. Records are therefore
//! numbered as they are received. **Prefix:** the position never passes a record that is not done, in whatever order
//! they finish.

use std::collections::VecDeque;

/// The records of a partition that have been received, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefix {
    /// The number of the oldest record.
    oldest: u64,
    records: VecDeque<Entry>,
    position: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    is_done: bool,
}

impl Prefix {
    /// Sets the start of the partition.
    pub(crate) fn begin(&mut self, offset: i64) {
        self.position = self.position.max(Some(offset));
    }

    /// Adds a record and returns its number.
    pub(crate) fn received(&mut self, offset: i64) -> u64 {
        self.records.push_back(Entry { offset, is_done: false });
        self.oldest + self.records.len() as u64 - 1
    }

    /// Marks a record as done.
    pub(crate) fn done(&mut self, number: u64) {
        let index = number.checked_sub(self.oldest).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.records.get_mut(index)) {
            entry.is_done = true;
        }
        while let Some(Entry { offset, is_done: true }) = self.records.front() {
            self.position = self.position.max(Some(offset + 1));
            self.oldest += 1;
            self.records.pop_front();
        }
    }

    /// Returns the offset after the last record of the prefix. Before there is one it is the start, if that was set.
    pub(crate) const fn position(&self) -> Option<i64> {
        self.position
    }

    /// Returns the number of the last record that is done before an earlier one is.
    pub(crate) fn last_done(&self) -> Option<u64> {
        let index = self.records.iter().rposition(|entry| entry.is_done)?;
        Some(self.oldest + index as u64)
    }

    /// Returns the number of records that are not below the position.
    pub(crate) fn held(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slow_record_holds_back_everything_after_it() {
        let mut prefix = Prefix::default();
        let numbers: Vec<u64> = [10, 11, 15].into_iter().map(|offset| prefix.received(offset)).collect();
        prefix.done(numbers[1]);
        prefix.done(numbers[2]);
        assert_eq!((prefix.position(), prefix.held(), prefix.last_done()), (None, 3, Some(numbers[2])));
        prefix.done(numbers[0]);
        assert_eq!((prefix.position(), prefix.held(), prefix.last_done()), (Some(16), 0, None));
    }

    #[test]
    fn i6_an_offset_that_is_delivered_twice_counts_when_both_are_done() {
        let mut prefix = Prefix::default();
        let (first, second) = (prefix.received(7), prefix.received(7));
        prefix.done(second);
        assert_eq!(prefix.position(), None);
        prefix.done(first);
        assert_eq!(prefix.position(), Some(8));
    }

    proptest! {
        #[test]
        fn the_position_is_the_first_offset_that_is_not_done(
            gaps in prop::collection::vec(1_i64..4, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut prefix = Prefix::default();
            let mut offset = 0;
            let mut open: Vec<(u64, i64)> = Vec::new();
            let mut last = None;
            for gap in gaps {
                offset += gap;
                open.push((prefix.received(offset), offset));
                last = Some(offset + 1);
            }
            for index in order {
                if open.is_empty() {
                    break;
                }
                let (number, _) = open.remove(index.index(open.len()));
                prefix.done(number);
                if let Some(position) = prefix.position() {
                    prop_assert!(open.iter().all(|(_, offset)| *offset >= position));
                }
                if open.is_empty() {
                    prop_assert_eq!(prefix.position(), last);
                }
            }
        }
    }
}
