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
//! - **One at a time.** A lane has at most one run: consecutive records that are handed over together and are handled
//!   in the order of their offsets. A record in its backoff delays later records of its key and no others. This holds
//!   across assignments: if a partition comes back while a handler of its previous assignment still runs, the lane of
//!   that key waits.
//! - **Prefix.** The position of a partition never passes a record that is not done.
//! - **Bounded.** At most `max_concurrency` handlers run at once. A partition with `max_buffered_records` records is
//!   full. When all partitions together hold `max_buffered_bytes` bytes, every partition is full. The caller pauses
//!   full partitions. Handlers of revoked partitions and their bytes count until they return.
//! - **Fair.** A third of the bytes is divided evenly among the partitions. A partition above its share is full when
//!   the other two thirds are used. A partition below its share continues, whatever the others hold.
//! - **Revoked records do not count.** A run that returns after its partition was revoked changes no position.
//!
//! A lane is identified by a hash of the key. Two keys with the same hash share a lane, which costs speed and breaks
//! nothing. A record without a key has a lane of its own, which is identified by its offset.

mod buffer;
mod by_hash;
mod flow;
mod job;
mod limits;
mod report;
mod revoked;
mod starts;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::time::Duration;
use std::time::Instant;

use crate::consumer::position::Position;
use crate::consumer::retry::TransientRun;
use crate::consumer::topic_partition::TopicPartition;

use buffer::PartitionBuffer;
use buffer::Ready;
use revoked::Revoked;

pub(crate) use job::Job;
pub(crate) use job::LastJob;
pub(crate) use job::Run;
pub(crate) use job::Ticket;
pub(crate) use limits::Balance;
pub(crate) use limits::Limits;

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
    retries: BinaryHeap<Reverse<(Instant, usize, u64, usize)>>,
    revoked: Revoked,
    /// The number of runs, those of revoked partitions included.
    running: usize,
    /// How many of them wait for a dead-letter topic.
    writing: usize,
    /// The number of buffered bytes, those in runs of revoked partitions included.
    bytes: u64,
    /// A partition may have become full since the last call of `balance`.
    may_be_full: bool,
    /// How many partitions were held or paused at the last call of `balance`.
    out_of_flow: usize,
    /// Counts assignments. A run that returns from an earlier assignment of its partition has another epoch.
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
            revoked: Revoked::default(),
            running: 0,
            writing: 0,
            bytes: 0,
            may_be_full: false,
            out_of_flow: 0,
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
        let blocked = self.revoked.running(&partition);
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = Some(PartitionBuffer::new(partition.clone(), self.epoch, blocked));
        }
        self.assigned.insert(partition, slot);
    }

    /// Sets the start of a partition. It is the position until a record is done.
    pub(crate) fn begin(&mut self, partition: &TopicPartition, start: Position) {
        if let Some(buffer) = self.of(partition) {
            buffer.prefix.begin(start);
        }
    }

    /// Takes what librdkafka reports as polled when a partition is assigned. It is of an earlier assignment.
    pub(crate) fn polled_before(&mut self, partition: &TopicPartition, polled: Option<Position>) {
        if let Some(buffer) = self.of(partition) {
            buffer.polled_before = polled;
        }
    }

    /// Takes up to where a partition was polled; none means that nothing was. Every record before it was buffered.
    pub(crate) fn polled(&mut self, partition: &TopicPartition, polled: Option<Position>) {
        let Some(buffer) = self.of(partition) else { return };
        if buffer.polled_before.is_some() && buffer.polled_before == polled {
            return;
        }
        buffer.polled_before = None;
        if let Some(polled) = polled {
            buffer.prefix.passed(polled);
        }
    }

    /// Returns where a partition is polled next, by what librdkafka reports as polled.
    pub(crate) fn next(&self, partition: &TopicPartition, polled: Option<Position>) -> Option<Position> {
        let buffer = self.buffer(partition)?;
        polled.filter(|_| polled != buffer.polled_before).or_else(|| buffer.prefix.position())
    }

    /// Takes the leader epoch of the next record of a partition.
    pub(crate) fn epoch(&mut self, partition: &TopicPartition, offset: i64, epoch: i32) {
        if let Some(buffer) = self.of(partition) {
            buffer.prefix.epoch(offset, epoch);
        }
    }

    /// Starts no more runs of a partition, except for records before one that is done: they are few and would hold the
    /// position back. Running ones can finish.
    pub(crate) fn close_up(&mut self, partition: &TopicPartition) {
        if let Some(buffer) = self.slot(partition).and_then(|slot| self.slot_mut(slot)) {
            buffer.close_up();
        }
    }

    /// Starts no more runs of a partition. Running ones can finish.
    pub(crate) fn close(&mut self, partition: &TopicPartition) {
        if let Some(buffer) = self.of(partition) {
            buffer.close();
        }
    }

    /// Removes a revoked partition. Returns how many of its handlers still run. Until they return, they count in the
    /// limits, and their keys wait if the partition is assigned again.
    pub(crate) fn revoke(&mut self, partition: &TopicPartition) -> usize {
        let Some(slot) = self.assigned.remove(partition) else { return 0 };
        let Some(buffer) = self.slots.get_mut(slot).and_then(Option::take) else { return 0 };
        let (running, epoch) = (buffer.running(), buffer.epoch);
        self.bytes -= buffer.bytes - buffer.running_bytes;
        self.turns.retain(|turn| *turn != slot);
        let (starts, keys) = buffer.into_running();
        self.revoked.add(epoch, partition.clone(), starts, keys);
        running
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
        // A record without a key that is delivered twice waits for itself.
        let key = key.map_or_else(|| self.hasher.hash_one(offset), |key| self.hasher.hash_one(key));
        let Some(buffer) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let number = buffer.prefix.received(offset);
        buffer.polled_before = None;
        let took = Duration::ZERO;
        let (attempts, transient, is_alone) = (0, TransientRun::default(), false);
        let ready = buffer.take(Job { record, attempts, transient, took, is_alone, number, key, bytes });
        self.bytes += bytes;
        let (buffered_bytes, buffered_records) = (buffer.bytes, buffer.prefix.held());
        self.may_be_full |= self.limits.is_full(self.load(), buffered_bytes, buffered_records);
        self.take_turn(slot, ready);
        true
    }

    /// Returns the next run to start. The partitions take turns.
    pub(crate) fn start(&mut self, now: Instant) -> Option<Run<R>> {
        self.wake(now);
        while self.handlers() < self.limits.max_concurrency {
            let slot = self.turns.pop_front()?;
            let Some(buffer) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let run = buffer.start(slot, now, self.limits.max_run);
            if buffer.can_start() {
                self.turns.push_back(slot);
            }
            if run.is_some() {
                self.running += 1;
                return run;
            }
        }
        None
    }

    /// Takes the number of runs that wait for a dead-letter topic. Their lanes stay busy, but their handlers have
    /// returned: a topic that cannot be written to must not stop other keys and partitions.
    pub(crate) const fn writing(&mut self, runs: usize) {
        self.writing = runs;
    }

    /// Returns the number of handlers that have not returned, those of revoked partitions included.
    pub(crate) const fn handlers(&self) -> usize {
        self.running.saturating_sub(self.writing)
    }

    /// Returns whether the partition of a run is still assigned. If not, what its handler returned does not count, and
    /// only `end_late` may be called.
    pub(crate) fn is_current(&self, ticket: &Ticket) -> bool {
        self.slots.get(ticket.slot).and_then(Option::as_ref).is_some_and(|buffer| buffer.epoch == ticket.epoch)
    }

    /// Takes a record of a run that is done.
    pub(crate) fn done(&mut self, ticket: &Ticket, job: &Job<R>) {
        let Some(buffer) = self.current(ticket) else { return };
        buffer.done(job);
        self.bytes -= job.bytes;
    }

    /// Puts the records of a run back that are not done. They come before all others of their lane.
    pub(crate) fn put_back(&mut self, ticket: &Ticket, jobs: impl DoubleEndedIterator<Item = Job<R>>) {
        if let Some(buffer) = self.current(ticket) {
            buffer.put_back(ticket, jobs);
        }
    }

    /// Ends a run. Every record of it was done or put back.
    pub(crate) fn end(&mut self, ticket: &Ticket) {
        let Some(buffer) = self.current(ticket) else { return };
        let ready = buffer.end(ticket);
        self.running -= 1;
        self.take_turn(ticket.slot, ready);
        self.turn_to_close_up(ticket.slot);
    }

    /// Ends a run. The first record that was put back is retried at a given time.
    pub(crate) fn retry(&mut self, ticket: &Ticket, at: Instant) {
        let Some(buffer) = self.current(ticket) else { return };
        buffer.retry(ticket);
        self.running -= 1;
        self.turn_to_close_up(ticket.slot);
        self.retries.push(Reverse((at, ticket.slot, ticket.epoch, ticket.lane)));
    }

    /// Ends a run whose partition was revoked meanwhile, with the records that have returned with it.
    pub(crate) fn end_late(&mut self, ticket: &Ticket, jobs: &[Job<R>]) {
        let Some(partition) = self.revoked.end(ticket) else { return };
        self.running -= 1;
        self.bytes -= jobs.iter().map(|job| job.bytes).sum::<u64>();
        let Some(slot) = self.slot(&partition) else { return };
        let ready = self.slot_mut(slot).and_then(|buffer| buffer.unblock(ticket.key));
        self.take_turn(slot, ready);
    }

    /// Returns the positions that have changed since the last call, to be committed.
    pub(crate) fn take_positions(&mut self) -> Vec<(TopicPartition, Position)> {
        let moved = self.slots.iter_mut().flatten().filter_map(|buffer| {
            let position = buffer.prefix.position()?;
            (buffer.committed < Some(position.offset)).then(|| {
                buffer.committed = Some(position.offset);
                (buffer.partition.clone(), position)
            })
        });
        moved.collect()
    }

    /// Takes the committed offset of a partition as the broker reports it; a negative one means none. A position that
    /// was returned for a commit and differs is returned again: it is higher if the commit failed, lower if the topic
    /// was recreated.
    pub(crate) fn committed(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(buffer) = self.of(partition) {
            let known = (offset >= 0).then_some(offset);
            buffer.confirmed = known;
            buffer.committed = if known > buffer.committed { None } else { known };
        }
    }

    /// Returns the positions that are not known to be committed.
    pub(crate) fn uncommitted(&self) -> Vec<(TopicPartition, Position)> {
        let unconfirmed = self.slots.iter().flatten().filter_map(|buffer| {
            let position = buffer.prefix.position()?;
            (buffer.confirmed != Some(position.offset)).then(|| (buffer.partition.clone(), position))
        });
        unconfirmed.collect()
    }

    /// Returns every position again at the next call of `take_positions`: a commit failed, or its result is unknown.
    pub(crate) fn forget_commits(&mut self) {
        self.slots.iter_mut().flatten().for_each(|buffer| buffer.committed = None);
    }

    /// Returns the position of a partition: the first offset that is not done.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Position> {
        self.buffer(partition)?.prefix.position()
    }

    /// Returns when the next backoff ends.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse((at, ..))| *at)
    }

    fn slot(&self, partition: &TopicPartition) -> Option<usize> {
        let last = self.slots.get(self.last).and_then(Option::as_ref);
        let is_last = last.is_some_and(|buffer| buffer.partition == *partition);
        if is_last { Some(self.last) } else { self.assigned.get(partition).copied() }
    }

    fn buffer(&self, partition: &TopicPartition) -> Option<&PartitionBuffer<R>> {
        self.slots.get(self.slot(partition)?)?.as_ref()
    }

    fn of(&mut self, partition: &TopicPartition) -> Option<&mut PartitionBuffer<R>> {
        self.slot(partition).and_then(|slot| self.slot_mut(slot))
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut PartitionBuffer<R>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Returns the buffer of a run's partition, unless that was revoked meanwhile.
    fn current(&mut self, ticket: &Ticket) -> Option<&mut PartitionBuffer<R>> {
        self.slot_mut(ticket.slot).filter(|buffer| buffer.epoch == ticket.epoch)
    }

    /// Queues a partition that had no ready lanes before.
    fn take_turn(&mut self, slot: usize, ready: Option<Ready>) {
        match ready {
            Some(Ready::First) => self.turns.push_back(slot),
            Some(Ready::Another) => self.turn_to_close_up(slot),
            None => {}
        }
    }

    /// Queues a partition that is closing and has records before one that is done.
    fn turn_to_close_up(&mut self, slot: usize) {
        let buffer = self.slots.get(slot).and_then(Option::as_ref);
        let is_incomplete = buffer.is_some_and(|buffer| buffer.is_closing_up() && buffer.can_start());
        if is_incomplete && !self.turns.contains(&slot) {
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
