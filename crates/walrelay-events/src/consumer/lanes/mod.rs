//! Lanes: many keys at once, one record of a key at a time.
//!
//! ```text
//!   partition 0   lane k1  [ running ] <- [ r7 ] <- [ r9 ]
//!                 lane k2  [ waits for its retry ] <- [ r8 ]
//!   partition 1   lane k5  [ running ]
//! ```
//!
//! Everything a consumer decides about records it holds: which may start, which waits, what is done, where a partition is
//! full. It has no clock, no Kafka and no handler. Invariants:
//!
//! - **One at a time.** Of the records with one key of a partition at most one is running, in the order of their offsets. One
//!   that waits for a retry holds back those of its own key and no other.
//! - **Prefix.** The position of a partition never passes a record that is not done.
//! - **Bounded.** No more than `running_max` run at once; a partition that holds `records_max` records, or all of them
//!   together `bytes_max` bytes, is full, and the caller takes no more from Kafka.
//! - **Nobody starves.** A third of the bytes is shared out evenly: who holds more than that is full once the other two
//!   thirds are gone, and who holds less goes on, whatever waits elsewhere.
//! - **Not ours, not counted.** What comes back from a partition that was given up changes nothing.
//!
//! Lanes are told apart by a hash of the key: two keys that collide share a lane, which costs speed and breaks nothing. A
//! record without a key has a lane of its own.

mod held;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant;

use held::Held;
use held::Ready;

/// A partition of a topic.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// The number within it.
    pub number: i32,
}

/// How much is held and run at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in handlers, all partitions together.
    pub running_max: usize,
    /// Records held of one partition.
    pub records_max: usize,
    /// Bytes held, all partitions together.
    pub bytes_max: u64,
}

/// A record on its way through a handler. It comes back by [`Lanes::done`] or [`Lanes::retry`].
#[derive(Debug)]
pub struct Job<R> {
    /// What was taken.
    pub record: R,
    /// How often it has been tried before.
    pub tries: u32,
    /// How often it came back before for what was no fault of its own.
    pub waits: u32,
    /// When it last started.
    began: Option<Instant>,
    slot: usize,
    tenure: u64,
    number: u64,
    lane: u64,
    bytes: u64,
}

impl<R> Job<R> {
    /// Gives a number that differs between records.
    #[must_use]
    pub const fn noise(&self) -> u64 {
        self.lane ^ self.number
    }
}

/// Which partitions to stop taking from, and which to take from again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Balance {
    /// They are full.
    pub pause: Vec<Partition>,
    /// They were full, and have room again: half of everything.
    pub resume: Vec<Partition>,
}

/// What is held of all assigned partitions.
#[derive(Debug)]
pub struct Lanes<R> {
    limits: Limits,
    hasher: RandomState,
    places: HashMap<Partition, usize>,
    slots: Vec<Option<Held<R>>>,
    /// The slot that was asked for last: records come in runs of one partition.
    last: usize,
    /// The slots that have something ready, each once; the first is next.
    turns: VecDeque<usize>,
    /// Retries by time: when, and in which slot, tenure and lane.
    retries: BinaryHeap<Reverse<(Instant, usize, u64, u64)>>,
    running: usize,
    bytes: u64,
    /// Something may have become full since it was last asked.
    may_be_full: bool,
    /// How many partitions are paused.
    paused: usize,
    /// The number of the next assignment, so that what comes late from an earlier one is known.
    tenure: u64,
}

impl<R> Lanes<R> {
    /// Starts without any partition.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            places: HashMap::new(),
            slots: Vec::new(),
            last: 0,
            turns: VecDeque::new(),
            retries: BinaryHeap::new(),
            running: 0,
            bytes: 0,
            may_be_full: false,
            paused: 0,
            tenure: 0,
        }
    }

    /// Takes over a partition.
    pub fn assign(&mut self, partition: Partition) {
        self.revoke(&partition);
        self.tenure += 1;
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.push(None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Held::new(partition.clone(), self.tenure));
        }
        self.places.insert(partition, slot);
    }

    /// Notes where a partition starts. That is its position until something is done.
    pub fn begin(&mut self, partition: &Partition, offset: i64) {
        if let Some(held) = self.place(partition).and_then(|slot| self.slot_mut(slot)) {
            held.prefix.begin(offset);
        }
    }

    /// Starts nothing of this partition any more; what runs may end.
    pub fn close(&mut self, partition: &Partition) {
        if let Some(held) = self.place(partition).and_then(|slot| self.slot_mut(slot)) {
            held.close();
        }
    }

    /// Gives a partition up. Says how many of its records were still in handlers.
    pub fn revoke(&mut self, partition: &Partition) -> usize {
        let Some(slot) = self.places.remove(partition) else { return 0 };
        let Some(held) = self.slots.get_mut(slot).and_then(Option::take) else { return 0 };
        self.bytes -= held.bytes;
        self.running -= held.running;
        self.paused -= usize::from(held.is_paused);
        self.turns.retain(|turn| *turn != slot);
        held.running
    }

    /// Takes a record. Says whether its partition is ours; if not, it is dropped.
    pub fn take(&mut self, partition: &Partition, offset: i64, key: Option<&[u8]>, bytes: u64, record: R) -> bool {
        let Some(slot) = self.place(partition) else { return false };
        self.last = slot;
        let hash = key.map(|key| self.hasher.hash_one(key));
        let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let number = held.prefix.received(offset);
        let lane = hash.unwrap_or_else(|| self.hasher.hash_one(number));
        let ready =
            held.take(Job { record, tries: 0, waits: 0, began: None, slot, tenure: held.tenure, number, lane, bytes });
        self.bytes += bytes;
        let (held_bytes, held_records) = (held.bytes, held.prefix.held());
        self.may_be_full |= self.is_full(held_bytes, held_records);
        self.take_turn(slot, ready);
        true
    }

    /// Gives the next record to start, in turn over the partitions.
    pub fn start(&mut self, now: Instant) -> Option<Job<R>> {
        self.wake(now);
        while self.running < self.limits.running_max {
            let slot = self.turns.pop_front()?;
            let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let job = held.start(now);
            if held.ready() > 0 {
                self.turns.push_back(slot);
            }
            if job.is_some() {
                self.running += 1;
                return job;
            }
        }
        None
    }

    /// Takes back a record that is dealt with.
    pub fn done(&mut self, job: &Job<R>) {
        let Some(held) = self.returned(job) else { return };
        let ready = held.done(job);
        self.bytes -= job.bytes;
        self.take_turn(job.slot, ready);
    }

    /// Takes back a record that is to be tried again at a time.
    pub fn retry(&mut self, job: Job<R>, at: Instant) {
        let (slot, tenure, lane) = (job.slot, job.tenure, job.lane);
        let Some(held) = self.returned(&job) else { return };
        held.retry(job);
        self.retries.push(Reverse((at, slot, tenure, lane)));
    }

    /// Gives the positions that have moved since they were last asked for: the first offset that is not done.
    pub fn take_positions(&mut self) -> Vec<(Partition, i64)> {
        let moved = self.slots.iter_mut().flatten().filter_map(|held| {
            let position = held.prefix.position()?;
            (held.committed < Some(position)).then(|| {
                held.committed = Some(position);
                (held.partition.clone(), position)
            })
        });
        moved.collect()
    }

    /// Notes what is known to be committed of a partition; below zero, nothing. What was taken and is not that is given again:
    /// what lies beyond it, and what lies before it, where a topic was made anew.
    pub fn committed(&mut self, partition: &Partition, offset: i64) {
        if let Some(held) = self.place(partition).and_then(|slot| self.slot_mut(slot)) {
            let known = (offset >= 0).then_some(offset);
            held.committed = if known > held.committed { None } else { known };
        }
    }

    /// Lets every position be asked for again: a commit has failed, or nobody knows whether it did.
    pub fn forget_commits(&mut self) {
        self.slots.iter_mut().flatten().for_each(|held| held.committed = None);
    }

    /// Gives the position of one partition: the first offset that is not done, if any was.
    #[must_use]
    pub fn position(&self, partition: &Partition) -> Option<i64> {
        self.held(partition)?.prefix.position()
    }

    /// Gives when the next retry is due.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse((at, ..))| *at)
    }

    /// Gives the partitions that have become full or have room again. They count as paused, or no longer.
    pub fn balance(&mut self) -> Option<Balance> {
        if !self.may_be_full && self.paused == 0 {
            return None;
        }
        self.may_be_full = false;
        let mut balance = Balance::default();
        let mut slots = std::mem::take(&mut self.slots);
        for held in slots.iter_mut().flatten() {
            let (bytes, records) = (held.bytes, held.prefix.held());
            if !held.is_paused && self.is_full(bytes, records) {
                held.is_paused = true;
                balance.pause.push(held.partition.clone());
            } else if held.is_paused && self.has_room(bytes, records) {
                held.is_paused = false;
                balance.resume.push(held.partition.clone());
            }
        }
        self.slots = slots;
        self.paused = self.paused + balance.pause.len() - balance.resume.len();
        (balance != Balance::default()).then_some(balance)
    }

    /// Says whether some partition may have become full since the balance was last asked for.
    #[must_use]
    pub const fn may_be_full(&self) -> bool {
        self.may_be_full
    }

    /// Says whether a partition that holds so much is full.
    fn is_full(&self, bytes: u64, records: usize) -> bool {
        let Limits { records_max, bytes_max, .. } = self.limits;
        let is_greedy = bytes >= self.share() && self.bytes >= bytes_max / 3 * 2;
        records >= records_max || self.bytes >= bytes_max || is_greedy
    }

    /// Says whether a partition that was full and holds so much has room again.
    fn has_room(&self, bytes: u64, records: usize) -> bool {
        let Limits { records_max, bytes_max, .. } = self.limits;
        let is_modest = bytes <= self.share() / 2 && self.bytes < bytes_max;
        records <= records_max / 2 && (is_modest || self.bytes <= bytes_max / 3)
    }

    /// The bytes that each partition may hold whatever the others do.
    fn share(&self) -> u64 {
        self.limits.bytes_max / 3 / (self.places.len().max(1) as u64)
    }

    /// Says whether a partition is paused: nothing of it should be taken.
    #[must_use]
    pub fn is_paused(&self, partition: &Partition) -> bool {
        self.held(partition).is_some_and(|held| held.is_paused)
    }

    /// Gives the partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = &Partition> {
        self.slots.iter().flatten().filter(|held| held.is_paused).map(|held| &held.partition)
    }

    /// Says whether more would only wait: as much as may run at once does, and as many lanes again are ready.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        let ready = self.turns.iter().filter_map(|slot| self.slots.get(*slot)?.as_ref()).map(Held::ready);
        self.running >= self.limits.running_max && ready.sum::<usize>() >= self.limits.running_max
    }

    /// Gives the assigned partitions.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.places.keys()
    }

    /// Counts the records in handlers.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Counts the records of one partition in handlers.
    #[must_use]
    pub fn running_of(&self, partition: &Partition) -> usize {
        self.held(partition).map_or(0, |held| held.running)
    }

    /// Gives the partition whose record has been in a handler for longest, and since when.
    #[must_use]
    pub fn longest(&self) -> Option<(&Partition, Instant)> {
        let held = self.slots.iter().flatten();
        held.filter_map(|held| Some((&held.partition, held.longest()?))).min_by_key(|(_, began)| *began)
    }

    /// Counts the bytes held.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn place(&self, partition: &Partition) -> Option<usize> {
        let last = self.slots.get(self.last).and_then(Option::as_ref);
        let is_last = last.is_some_and(|held| held.partition == *partition);
        if is_last { Some(self.last) } else { self.places.get(partition).copied() }
    }

    fn held(&self, partition: &Partition) -> Option<&Held<R>> {
        self.slots.get(self.place(partition)?)?.as_ref()
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut Held<R>> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Notes that a record has left its handler; nothing if its partition was given up meanwhile.
    fn returned(&mut self, job: &Job<R>) -> Option<&mut Held<R>> {
        let held = self.slots.get_mut(job.slot)?.as_mut().filter(|held| held.tenure == job.tenure)?;
        self.running -= 1;
        Some(held)
    }

    /// Lets a partition that had nothing ready take its turn.
    fn take_turn(&mut self, slot: usize, ready: Option<Ready>) {
        if ready == Some(Ready::First) {
            self.turns.push_back(slot);
        }
    }

    /// Makes ready whose retry is due.
    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, tenure, lane))) = self.retries.peek().copied() {
            if at > now {
                return;
            }
            self.retries.pop();
            let held = self.slot_mut(slot).filter(|held| held.tenure == tenure);
            let ready = held.and_then(|held| held.wake(lane));
            self.take_turn(slot, ready);
        }
    }
}
