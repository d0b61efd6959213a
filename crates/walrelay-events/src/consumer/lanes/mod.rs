//! Lanes: many keys at once, but one record of a key at a time.
//!
//! ```text
//!   partition 0   lane k1  [ running ] <- [ r7 ] <- [ r9 ]
//!                 lane k2  [ in backoff ] <- [ r8 ]
//!   partition 1   lane k5  [ running ]
//! ```
//!
//! This module decides which buffered record starts, which waits, what is done, and which partitions are paused. It has
//! no clock, no Kafka client and no handler. Invariants:
//!
//! - **One at a time.** Of the records of one key in a partition at most one is running, in the order of their offsets.
//!   A record in its backoff delays later records of its key and no others.
//! - **Prefix.** The position of a partition never passes a record that is not done.
//! - **Bounded.** At most `max_concurrency` records run at once. A partition with `max_buffered_records` records is
//!   full. When all partitions together hold `max_buffered_bytes` bytes, every partition is full. The caller pauses
//!   full partitions.
//! - **Fair.** A third of the bytes is divided evenly among the partitions. A partition above its share is full when
//!   the other two thirds are used. A partition below its share continues, whatever the others hold.
//! - **Revoked records do not count.** A record that returns after its partition was revoked changes nothing.
//!
//! A lane is identified by a hash of the key. Two keys with the same hash share a lane, which costs speed and breaks
//! nothing. A record without a key has a lane of its own.

mod buffer;
mod job;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::time::Instant;

use crate::consumer::topic_partition::TopicPartition;

use buffer::PartitionBuffer;
use buffer::Ready;

pub(crate) use job::Job;

/// How many records run and are buffered at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Records in handlers, of all partitions.
    pub(crate) max_concurrency: usize,
    /// Buffered records per partition.
    pub(crate) max_buffered_records: usize,
    /// Buffered bytes of all partitions.
    pub(crate) max_buffered_bytes: u64,
}

/// Which partitions to pause and to resume.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Balance {
    /// These became full.
    pub(crate) pause: Vec<TopicPartition>,
    /// These were full and are half empty again.
    pub(crate) resume: Vec<TopicPartition>,
}

/// The buffered records of all assigned partitions.
#[derive(Debug)]
pub(crate) struct Lanes<R> {
    limits: Limits,
    hasher: RandomState,
    assigned: HashMap<TopicPartition, usize>,
    slots: Vec<Option<PartitionBuffer<R>>>,
    /// The slot of the last record: consecutive records are usually of one partition.
    last: usize,
    /// The slots with ready records, each once. The first one is next.
    turns: VecDeque<usize>,
    /// Retries by time: when, and the slot, epoch and lane.
    retries: BinaryHeap<Reverse<(Instant, usize, u64, u64)>>,
    running: usize,
    bytes: u64,
    /// A partition may have become full since the last call of `balance`.
    may_be_full: bool,
    /// The number of paused partitions.
    paused: usize,
    /// Counts assignments. A record that returns from an earlier assignment of its partition has another epoch.
    epoch: u64,
}

impl<R> Lanes<R> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            assigned: HashMap::new(),
            slots: Vec::new(),
            last: 0,
            turns: VecDeque::new(),
            retries: BinaryHeap::new(),
            running: 0,
            bytes: 0,
            may_be_full: false,
            paused: 0,
            epoch: 0,
        }
    }

    /// Adds an assigned partition.
    pub(crate) fn assign(&mut self, partition: TopicPartition) {
        self.revoke(&partition);
        self.epoch += 1;
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.push(None);
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = Some(PartitionBuffer::new(partition.clone(), self.epoch));
        }
        self.assigned.insert(partition, slot);
    }

    /// Sets the start of a partition. It is the position until a record is done.
    pub(crate) fn begin(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(buffer) = self.slot(partition).and_then(|slot| self.slot_mut(slot)) {
            buffer.prefix.begin(offset);
        }
    }

    /// Starts no more records of a partition. Running ones can finish.
    pub(crate) fn close(&mut self, partition: &TopicPartition) {
        if let Some(buffer) = self.slot(partition).and_then(|slot| self.slot_mut(slot)) {
            buffer.close();
        }
    }

    /// Removes a revoked partition. Returns how many of its records are still in handlers.
    pub(crate) fn revoke(&mut self, partition: &TopicPartition) -> usize {
        let Some(slot) = self.assigned.remove(partition) else { return 0 };
        let Some(buffer) = self.slots.get_mut(slot).and_then(Option::take) else { return 0 };
        self.bytes -= buffer.bytes;
        self.running -= buffer.running;
        self.paused -= usize::from(buffer.is_paused);
        self.turns.retain(|turn| *turn != slot);
        buffer.running
    }

    /// Buffers a record. Returns whether its partition is assigned; if not, the record is dropped.
    pub(crate) fn take(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
        key: Option<&[u8]>,
        bytes: u64,
        record: R,
    ) -> bool {
        let Some(slot) = self.slot(partition) else { return false };
        self.last = slot;
        let hash = key.map(|key| self.hasher.hash_one(key));
        let Some(buffer) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let number = buffer.prefix.received(offset);
        let lane = hash.unwrap_or_else(|| self.hasher.hash_one(number));
        let ready = buffer.take(Job {
            record,
            attempts: 0,
            transient_failures: 0,
            started: None,
            slot,
            epoch: buffer.epoch,
            number,
            lane,
            bytes,
        });
        self.bytes += bytes;
        let (buffered_bytes, buffered_records) = (buffer.bytes, buffer.prefix.held());
        self.may_be_full |= self.is_full(buffered_bytes, buffered_records);
        self.take_turn(slot, ready);
        true
    }

    /// Returns the next record to start. The partitions take turns.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Job<R>> {
        self.wake(now);
        while self.running < self.limits.max_concurrency {
            let slot = self.turns.pop_front()?;
            let Some(buffer) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let job = buffer.start(now);
            if buffer.ready() > 0 {
                self.turns.push_back(slot);
            }
            if job.is_some() {
                self.running += 1;
                return job;
            }
        }
        None
    }

    /// Takes back a record that is done.
    pub(crate) fn done(&mut self, job: &Job<R>) {
        let Some(buffer) = self.returned(job) else { return };
        let ready = buffer.done(job);
        self.bytes -= job.bytes;
        self.take_turn(job.slot, ready);
    }

    /// Takes back a record that is retried at a given time.
    pub(crate) fn retry(&mut self, job: Job<R>, at: Instant) {
        let (slot, epoch, lane) = (job.slot, job.epoch, job.lane);
        let Some(buffer) = self.returned(&job) else { return };
        buffer.retry(job);
        self.retries.push(Reverse((at, slot, epoch, lane)));
    }

    /// Returns the positions that have changed since the last call, to be committed.
    pub(crate) fn take_positions(&mut self) -> Vec<(TopicPartition, i64)> {
        let moved = self.slots.iter_mut().flatten().filter_map(|buffer| {
            let position = buffer.prefix.position()?;
            (buffer.committed < Some(position)).then(|| {
                buffer.committed = Some(position);
                (buffer.partition.clone(), position)
            })
        });
        moved.collect()
    }

    /// Takes the committed offset of a partition as the broker reports it; a negative one means none. A position that
    /// was returned for a commit and differs is returned again: it is higher if the commit failed, lower if the topic
    /// was recreated.
    pub(crate) fn committed(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(buffer) = self.slot(partition).and_then(|slot| self.slot_mut(slot)) {
            let known = (offset >= 0).then_some(offset);
            buffer.committed = if known > buffer.committed { None } else { known };
        }
    }

    /// Returns every position again at the next call of `take_positions`: a commit failed, or its result is unknown.
    pub(crate) fn forget_commits(&mut self) {
        self.slots.iter_mut().flatten().for_each(|buffer| buffer.committed = None);
    }

    /// Returns the position of a partition: the first offset that is not done.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.buffer(partition)?.prefix.position()
    }

    /// Returns when the next backoff ends.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse((at, ..))| *at)
    }

    /// Returns the partitions to pause and to resume, if any. They count as paused or resumed from then on.
    pub(crate) fn balance(&mut self) -> Option<Balance> {
        if !self.may_be_full && self.paused == 0 {
            return None;
        }
        self.may_be_full = false;
        let mut balance = Balance::default();
        let mut slots = std::mem::take(&mut self.slots);
        for buffer in slots.iter_mut().flatten() {
            let (bytes, records) = (buffer.bytes, buffer.prefix.held());
            if !buffer.is_paused && self.is_full(bytes, records) {
                buffer.is_paused = true;
                balance.pause.push(buffer.partition.clone());
            } else if buffer.is_paused && self.has_room(bytes, records) {
                buffer.is_paused = false;
                balance.resume.push(buffer.partition.clone());
            }
        }
        self.slots = slots;
        self.paused = self.paused + balance.pause.len() - balance.resume.len();
        (balance != Balance::default()).then_some(balance)
    }

    /// Returns whether a partition may have become full since the last call of `balance`.
    pub(crate) const fn may_be_full(&self) -> bool {
        self.may_be_full
    }

    /// Returns whether a partition that buffers this much is full.
    fn is_full(&self, bytes: u64, records: usize) -> bool {
        let Limits { max_buffered_records, max_buffered_bytes, .. } = self.limits;
        let is_over_share = bytes >= self.share() && self.bytes >= max_buffered_bytes / 3 * 2;
        records >= max_buffered_records || self.bytes >= max_buffered_bytes || is_over_share
    }

    /// Returns whether a paused partition that buffers this much can be resumed.
    fn has_room(&self, bytes: u64, records: usize) -> bool {
        let Limits { max_buffered_records, max_buffered_bytes, .. } = self.limits;
        let is_under_share = bytes <= self.share() / 2 && self.bytes < max_buffered_bytes;
        records <= max_buffered_records / 2 && (is_under_share || self.bytes <= max_buffered_bytes / 3)
    }

    /// The bytes that each partition may buffer, whatever the others do.
    fn share(&self) -> u64 {
        self.limits.max_buffered_bytes / 3 / (self.assigned.len().max(1) as u64)
    }

    #[cfg(test)]
    fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.buffer(partition).is_some_and(|buffer| buffer.is_paused)
    }

    /// Returns the paused partitions.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        self.slots.iter().flatten().filter(|buffer| buffer.is_paused).map(|buffer| &buffer.partition)
    }

    /// Returns whether further records would only wait: `max_concurrency` records run, and as many lanes are ready.
    pub(crate) fn is_saturated(&self) -> bool {
        let ready = self.turns.iter().filter_map(|slot| self.slots.get(*slot)?.as_ref()).map(PartitionBuffer::ready);
        self.running >= self.limits.max_concurrency && ready.sum::<usize>() >= self.limits.max_concurrency
    }

    /// Returns the assigned partitions.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// Returns the number of records in handlers.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    /// Returns the number of records of a partition in handlers.
    pub(crate) fn running_of(&self, partition: &TopicPartition) -> usize {
        self.buffer(partition).map_or(0, |buffer| buffer.running)
    }

    /// Returns the partition with the oldest running record, and when that was started.
    pub(crate) fn oldest_running(&self) -> Option<(&TopicPartition, Instant)> {
        let buffers = self.slots.iter().flatten();
        buffers
            .filter_map(|buffer| Some((&buffer.partition, buffer.oldest_start()?)))
            .min_by_key(|(_, started)| *started)
    }

    /// Returns the number of buffered records, of all partitions.
    pub(crate) fn records(&self) -> usize {
        self.slots.iter().flatten().map(|buffer| buffer.prefix.held()).sum()
    }

    /// Returns the number of buffered bytes, of all partitions.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn slot(&self, partition: &TopicPartition) -> Option<usize> {
        let last = self.slots.get(self.last).and_then(Option::as_ref);
        let is_last = last.is_some_and(|buffer| buffer.partition == *partition);
        if is_last { Some(self.last) } else { self.assigned.get(partition).copied() }
    }

    fn buffer(&self, partition: &TopicPartition) -> Option<&PartitionBuffer<R>> {
        self.slots.get(self.slot(partition)?)?.as_ref()
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut PartitionBuffer<R>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Takes a record out of its handler. Returns nothing if the partition was revoked meanwhile.
    fn returned(&mut self, job: &Job<R>) -> Option<&mut PartitionBuffer<R>> {
        let buffer = self.slots.get_mut(job.slot)?.as_mut().filter(|buffer| buffer.epoch == job.epoch)?;
        self.running -= 1;
        Some(buffer)
    }

    /// Queues a partition that had no ready records before.
    fn take_turn(&mut self, slot: usize, ready: Option<Ready>) {
        if ready == Some(Ready::First) {
            self.turns.push_back(slot);
        }
    }

    /// Makes lanes ready whose backoff has ended.
    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, epoch, lane))) = self.retries.peek().copied() {
            if at > now {
                return;
            }
            self.retries.pop();
            let buffer = self.slot_mut(slot).filter(|buffer| buffer.epoch == epoch);
            let ready = buffer.and_then(|buffer| buffer.wake(lane));
            self.take_turn(slot, ready);
        }
    }
}
