//! What was accepted and has no result yet, in the order in which it was accepted.
//!
//! A client that fails is replaced. Every record without a result is then sent again, in the same order, so that the
//! records of a key are never swapped. A failed batch does not show which of its records Kafka refuses: all of them are
//! suspects. They are sent again in ever smaller company until the refused record is known.

use std::collections::BTreeMap;

/// Records by number. Those before `next_to_send` are with the client.
#[derive(Debug)]
pub(super) struct Queue<R> {
    entries: BTreeMap<usize, Entry<R>>,
    next_number: usize,
    next_to_send: usize,
    with_client: usize,
    /// How many suspects are with the client, and the smallest company that any of them allows.
    suspects: usize,
    company: usize,
}

#[derive(Debug)]
struct Entry<R> {
    record: R,
    /// The maximum number of records that may be with the client together with this one.
    company: usize,
    was_sent: bool,
    is_refused: bool,
}

/// Not a suspect.
const ANY: usize = usize::MAX;

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next_number: 0, next_to_send: 0, with_client: 0, suspects: 0, company: ANY }
    }
}

impl<R> Queue<R> {
    /// Appends a record and returns its number.
    pub(super) fn accept(&mut self, record: R) -> usize {
        let number = self.next_number;
        self.next_number += 1;
        self.entries.insert(number, Entry { record, company: ANY, was_sent: false, is_refused: false });
        number
    }

    /// Returns the record to send next, or none if there is none, or if it must wait for those that are with the
    /// client.
    pub(super) fn next_to_send(&mut self) -> Option<(usize, &mut R)> {
        let (number, entry) = self.entries.range_mut(self.next_to_send..).next()?;
        let company = entry.company.min(if self.suspects > 0 { self.company } else { ANY });
        (self.with_client < company).then_some((*number, &mut entry.record))
    }

    /// The client has taken the record.
    pub(super) fn sent(&mut self, number: usize) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.was_sent = true;
        self.next_to_send = number + 1;
        self.with_client += 1;
        if entry.company != ANY {
            self.company = if self.suspects == 0 { entry.company } else { self.company.min(entry.company) };
            self.suspects += 1;
        }
    }

    /// The record has its result. Returns it.
    pub(super) fn settle(&mut self, number: usize) -> Option<R> {
        let entry = self.entries.remove(&number)?;
        if number < self.next_to_send {
            self.with_client = self.with_client.saturating_sub(1);
            if entry.company != ANY {
                self.suspects = self.suspects.saturating_sub(1);
            }
        }
        Some(entry.record)
    }

    /// Kafka refuses the record, or another one of its batch. It keeps its place.
    pub(super) fn refuse(&mut self, number: usize) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.is_refused = true;
        }
    }

    /// The client is gone: what has no result is sent again. Returns the records that Kafka refuses for certain, and
    /// whether there are suspects left.
    pub(super) fn renew(&mut self) -> Renewed<R> {
        let refused = self.entries.values().filter(|entry| entry.is_refused).count();
        let is_certain = |entry: &Entry<R>| entry.is_refused && (refused == 1 || entry.company == 1);
        let certain: Vec<usize> =
            self.entries.iter().filter(|(_, entry)| is_certain(entry)).map(|(number, _)| *number).collect();
        let certain: Vec<R> = certain.iter().filter_map(|number| Some(self.entries.remove(number)?.record)).collect();
        for entry in self.entries.values_mut().filter(|entry| entry.is_refused) {
            entry.company = entry.company.min(refused.div_ceil(2));
            entry.is_refused = false;
        }
        self.next_to_send = self.entries.keys().next().copied().unwrap_or(self.next_number);
        (self.with_client, self.suspects) = (0, 0);
        let has_suspects = self.entries.values().any(|entry| entry.company != ANY);
        Renewed { refused: certain, has_suspects }
    }

    /// Removes a record that no client has ever had.
    pub(super) fn withdraw(&mut self, number: usize) -> Option<R> {
        let was_sent = self.entries.get(&number)?.was_sent;
        if was_sent { None } else { self.settle(number) }
    }

    /// Removes all, each with whether a client has had it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (R, bool)> {
        std::mem::take(&mut self.entries).into_values().map(|entry| (entry.record, entry.was_sent))
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut R> {
        self.entries.get_mut(&number).map(|entry| &mut entry.record)
    }

    /// Returns the number of the next record.
    pub(super) const fn next_number(&self) -> usize {
        self.next_number
    }

    /// Returns the records before a number that have no result, each with whether a client has had it.
    pub(super) fn before(&self, number: usize) -> impl Iterator<Item = (&R, bool)> {
        self.entries.range(..number).map(|(_, entry)| (&entry.record, entry.was_sent))
    }
}

/// What follows when a client is gone.
#[derive(Debug)]
pub(super) struct Renewed<R> {
    /// Kafka refuses these.
    pub(super) refused: Vec<R>,
    /// Kafka may refuse some of those that are left.
    pub(super) has_suspects: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(count: usize) -> Queue<usize> {
        let mut queue = Queue::default();
        (0..count).for_each(|record| assert_eq!(queue.accept(record), record));
        queue
    }

    /// Sends whatever can be sent.
    fn send(queue: &mut Queue<usize>) -> Vec<usize> {
        let mut sent = Vec::new();
        while let Some((number, _)) = queue.next_to_send() {
            queue.sent(number);
            sent.push(number);
        }
        sent
    }

    #[test]
    fn what_has_no_result_is_sent_again_in_its_order() {
        let mut queue = queue(4);
        assert_eq!(send(&mut queue), [0, 1, 2, 3]);
        queue.settle(1);
        queue.accept(4);
        let renewed = queue.renew();
        assert_eq!((renewed.refused, renewed.has_suspects), (vec![], false));
        assert_eq!(send(&mut queue), [0, 2, 3, 4]);
    }

    #[test]
    fn a_record_that_failed_without_company_is_the_refused_one() {
        let mut queue = queue(3);
        send(&mut queue);
        queue.refuse(1);
        assert_eq!(queue.renew().refused, [1]);
        assert_eq!(send(&mut queue), [0, 2]);
    }

    #[test]
    fn suspects_are_sent_in_ever_smaller_company() {
        let mut queue = queue(6);
        send(&mut queue);
        (0..4).for_each(|number| queue.refuse(number));
        let renewed = queue.renew();
        assert_eq!((renewed.refused, renewed.has_suspects), (vec![], true));
        assert_eq!(send(&mut queue), [0, 1]);
        (0..2).for_each(|number| queue.refuse(number));
        assert!(queue.renew().refused.is_empty());
        assert_eq!(send(&mut queue), [0]);
        queue.settle(0);
        assert_eq!(send(&mut queue), [1]);
        queue.refuse(1);
        assert_eq!(queue.renew().refused, [1]);
        assert_eq!(send(&mut queue), [2, 3]);
        queue.settle(2);
        assert_eq!(send(&mut queue), [4], "no more than two while a suspect is there");
        queue.settle(3);
        assert_eq!(send(&mut queue), [5]);
    }

    #[test]
    fn only_what_was_never_sent_can_be_withdrawn() {
        let mut queue = queue(2);
        queue.sent(0);
        assert_eq!((queue.withdraw(0), queue.withdraw(1), queue.withdraw(1)), (None, Some(1), None));
        queue.renew();
        assert_eq!(queue.withdraw(0), None, "the client before had it");
        assert_eq!(queue.drain().collect::<Vec<_>>(), [(0, true)]);
    }

    proptest! {
        /// Kafka writes batches until one with a bad record. The client then fails, and its answers up to there may be
        /// lost.
        #[test]
        fn all_good_records_are_written_in_order_and_all_bad_ones_are_refused(
            bad in proptest::collection::btree_set(0_usize..40, 0..5),
            batches in proptest::collection::vec((1_usize..9, any::<bool>()), 1..50),
        ) {
            let mut queue = queue(40);
            let (mut written, mut refused) = (Vec::new(), Vec::new());
            let mut batches = batches.iter().cycle();
            let mut with_client = Vec::new();
            for _ in 0..10_000 {
                with_client.extend(send(&mut queue));
                if with_client.is_empty() {
                    break;
                }
                let Some((size, is_lost)) = batches.next() else { break };
                let batch: Vec<usize> = with_client.drain(..(*size).min(with_client.len())).collect();
                let is_refused = batch.iter().any(|number| bad.contains(number));
                if is_refused {
                    batch.iter().for_each(|number| queue.refuse(*number));
                } else {
                    written.extend_from_slice(&batch);
                }
                if is_refused || *is_lost {
                    refused.extend(queue.renew().refused);
                    with_client.clear();
                } else {
                    batch.iter().for_each(|number| _ = queue.settle(*number));
                }
            }
            let mut next = 0;
            for number in &written {
                let good = (next..40).find(|number| !bad.contains(number));
                prop_assert!(*number < next || Some(*number) == good, "{number} before {good:?}");
                next = next.max(number + 1);
            }
            // An answer that is always lost never lets the queue become empty.
            if batches.clone().take(50).any(|(_, is_lost)| !is_lost) {
                refused.sort_unstable();
                prop_assert_eq!(refused, bad.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(queue.before(40).count(), 0);
            }
        }
    }
}
