//! The contiguous prefix of a partition: all records up to it are done.
//!
//! Offsets can have gaps (compaction, transactions), and an offset can be delivered twice. Records are therefore
//! numbered as they are received. **Prefix:** the position never passes a record that is not done, in whatever order
//! they finish.
//!
//! Behind the last record there can be offsets without records: transaction markers, aborted transactions, compacted
//! records. The position passes them when they are known to have been passed, so that they do not count as lag.

use std::collections::VecDeque;

use crate::consumer::position::Position;

/// The records of a partition that have been received, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefix {
    /// The number of the oldest record.
    oldest: u64,
    records: VecDeque<Entry>,
    position: Option<Position>,
    /// Every record before this offset has been received.
    passed: Option<Position>,
    /// From which offset on records were written in which leader epoch, oldest first.
    epochs: VecDeque<(i64, i32)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    is_done: bool,
}

impl Prefix {
    /// Sets the start of the partition.
    pub(crate) fn begin(&mut self, start: Position) {
        self.position = Some(start.later(self.position));
    }

    /// Takes the leader epoch of the next record.
    pub(crate) fn epoch(&mut self, offset: i64, epoch: i32) {
        if self.epochs.back().is_none_or(|(_, last)| *last != epoch) {
            self.epochs.push_back((offset, epoch));
        }
    }

    /// Adds a record and returns its number.
    pub(crate) fn received(&mut self, offset: i64) -> u64 {
        self.records.push_back(Entry { offset, is_done: false });
        self.oldest + self.records.len() as u64 - 1
    }

    /// Takes note that every record before an offset has been received.
    pub(crate) fn passed(&mut self, passed: Position) {
        self.passed = Some(passed.later(self.passed));
        self.pass();
    }

    /// Marks a record as done.
    pub(crate) fn done(&mut self, number: u64) {
        let index = number.checked_sub(self.oldest).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.records.get_mut(index)) {
            entry.is_done = true;
        }
        while let Some(Entry { offset, is_done: true }) = self.records.front().copied() {
            self.position = Some(Position { offset: offset + 1, epoch: self.epoch_of(offset) }.later(self.position));
            self.oldest += 1;
            self.records.pop_front();
        }
        self.pass();
    }

    /// Returns the offset after the last record of the prefix, or after what holds no records behind it. Before there
    /// is one it is the start, if that was set.
    pub(crate) const fn position(&self) -> Option<Position> {
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

    /// Passes what holds no records, once all records before it are done.
    fn pass(&mut self) {
        let is_free = |passed: &Position| self.records.front().is_none_or(|record| record.offset >= passed.offset);
        if let Some(passed) = self.passed.filter(is_free) {
            self.position = Some(passed.later(self.position));
        }
    }

    /// Returns the leader epoch of the oldest record, and forgets those before it.
    fn epoch_of(&mut self, offset: i64) -> Option<i32> {
        while self.epochs.get(1).is_some_and(|(first, _)| *first <= offset) {
            self.epochs.pop_front();
        }
        self.epochs.front().filter(|(first, _)| *first <= offset).map(|(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position_of(prefix: &Prefix) -> Option<i64> {
        prefix.position().map(|position| position.offset)
    }

    #[test]
    fn a_slow_record_holds_back_everything_after_it() {
        let mut prefix = Prefix::default();
        let numbers: Vec<u64> = [10, 11, 15].into_iter().map(|offset| prefix.received(offset)).collect();
        prefix.done(numbers[1]);
        prefix.done(numbers[2]);
        assert_eq!((position_of(&prefix), prefix.held(), prefix.last_done()), (None, 3, Some(numbers[2])));
        prefix.done(numbers[0]);
        assert_eq!((position_of(&prefix), prefix.held(), prefix.last_done()), (Some(16), 0, None));
    }

    #[test]
    fn what_holds_no_records_is_passed_when_every_record_before_it_is_done() {
        let mut prefix = Prefix::default();
        prefix.begin(4.into());
        prefix.passed(6.into());
        assert_eq!(position_of(&prefix), Some(6), "nothing was received");
        let (first, second) = (prefix.received(6), prefix.received(7));
        prefix.passed(9.into());
        prefix.done(second);
        assert_eq!(position_of(&prefix), Some(6));
        prefix.done(first);
        assert_eq!(position_of(&prefix), Some(9));
        let third = prefix.received(12);
        prefix.passed(13.into());
        assert_eq!(position_of(&prefix), Some(9), "the record at 12 is not done");
        prefix.done(third);
        prefix.passed(11.into());
        assert_eq!(position_of(&prefix), Some(13), "never back");
    }

    #[test]
    fn a_position_has_the_leader_epoch_of_the_record_before_it() {
        let mut prefix = Prefix::default();
        prefix.begin(Position { offset: 5, epoch: Some(1) });
        let mut numbers = Vec::new();
        for (offset, epoch) in [(5, 1), (6, 3), (7, 3), (8, 4)] {
            prefix.epoch(offset, epoch);
            numbers.push(prefix.received(offset));
        }
        for (number, epoch) in numbers.into_iter().zip([1, 3, 3, 4]) {
            prefix.done(number);
            assert_eq!(prefix.position().unwrap().epoch, Some(epoch));
        }
        prefix.passed(Position { offset: 10, epoch: Some(6) });
        assert_eq!(prefix.position(), Some(Position { offset: 10, epoch: Some(6) }));
        prefix.passed(10.into());
        assert_eq!(prefix.position().unwrap().epoch, Some(6), "an epoch is not lost");
    }

    #[test]
    fn i6_an_offset_that_is_delivered_twice_counts_when_both_are_done() {
        let mut prefix = Prefix::default();
        let (first, second) = (prefix.received(7), prefix.received(7));
        prefix.done(second);
        assert_eq!(position_of(&prefix), None);
        prefix.done(first);
        assert_eq!(position_of(&prefix), Some(8));
    }

    proptest! {
        #[test]
        fn the_position_is_the_first_offset_that_is_not_done(
            gaps in prop::collection::vec(1_i64..4, 1..60),
            passes in any::<bool>(),
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
            let polled = offset;
            for index in order {
                if open.is_empty() {
                    break;
                }
                let (number, _) = open.remove(index.index(open.len()));
                prefix.done(number);
                if passes {
                    // What was polled ends behind the last record.
                    prefix.passed((polled + 2).into());
                }
                if let Some(position) = position_of(&prefix) {
                    prop_assert!(open.iter().all(|(_, offset)| *offset >= position));
                }
                if open.is_empty() {
                    let behind = if passes { Some(polled + 2) } else { last };
                    prop_assert_eq!(position_of(&prefix), behind);
                }
            }
        }
    }
}
