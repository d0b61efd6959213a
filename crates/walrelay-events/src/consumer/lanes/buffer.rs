//! The buffered records of one partition: a lane for each key, and the prefix of acked records.
//!
//! It returns when a partition without ready lanes gets one, so that `Lanes` can take turns over the partitions. It
//! does not limit concurrency.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::time::Instant;

use crate::consumer::position::Position;
use crate::consumer::prefix::Prefix;
use crate::consumer::topic_partition::TopicPartition;

use super::by_hash::ByHash;
use super::job::Job;
use super::job::Run;
use super::job::Ticket;
use super::limits::Flow;
use super::starts::Starts;

/// A free lane keeps the memory of at most this many records.
const KEPT_RECORDS: usize = 32;

/// The buffered records of one partition.
#[derive(Debug)]
pub(super) struct PartitionBuffer<R> {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    pub(super) prefix: Prefix,
    pub(super) bytes: u64,
    /// The bytes of records in runs.
    pub(super) running_bytes: u64,
    pub(super) committed: Option<i64>,
    /// The committed offset as the broker reported it last.
    pub(super) confirmed: Option<i64>,
    /// What was polled before the partition was assigned. librdkafka can report it for a while.
    pub(super) polled_before: Option<Position>,
    pub(super) flow: Flow,
    /// When it was paused because it was not half empty soon enough, if not again soon after that.
    pub(super) held_in_vain: Option<Instant>,
    /// How many handlers of earlier assignments still run, by the hash of the key.
    blocked: ByHash<usize>,
    starts: Starts,
    lanes: Vec<Lane<R>>,
    /// Where the lane of a key is. A lane without records that does not run is free.
    places: ByHash<usize>,
    free: Vec<usize>,
    /// Lanes whose next run can start.
    ready: VecDeque<usize>,
    phase: Phase,
}

/// Which runs are started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// Those of records before the last one that is done: otherwise that would be repeated by the next owner.
    ClosingUp,
    Closed,
}

/// The buffered records of one key.
#[derive(Debug)]
struct Lane<R> {
    key: u64,
    state: State,
    /// The records that are not in a run, oldest first.
    records: VecDeque<Job<R>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Free,
    /// The next run can start.
    Ready,
    Running,
    /// The first record is in its backoff.
    BackingOff,
    /// A handler of an earlier assignment still runs.
    Blocked,
}

/// What it means for the partition that a lane became ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ready {
    /// It is the only ready lane.
    First,
    /// Other lanes are ready, too.
    Another,
}

impl<R> PartitionBuffer<R> {
    /// Creates the buffer of an assigned partition. The lanes of `blocked` wait for handlers of earlier assignments.
    pub(super) fn new(partition: TopicPartition, epoch: u64, blocked: ByHash<usize>) -> Self {
        Self {
            partition,
            epoch,
            prefix: Prefix::default(),
            bytes: 0,
            running_bytes: 0,
            committed: None,
            confirmed: None,
            polled_before: None,
            flow: Flow::Polled,
            held_in_vain: None,
            blocked,
            starts: Starts::default(),
            lanes: Vec::new(),
            places: ByHash::default(),
            free: Vec::new(),
            ready: VecDeque::new(),
            phase: Phase::Open,
        }
    }

    /// Counts the lanes that can start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Counts the runs.
    pub(super) const fn running(&self) -> usize {
        self.starts.count()
    }

    /// Returns when the oldest run was started.
    pub(super) fn oldest_start(&self) -> Option<Instant> {
        self.starts.oldest()
    }

    /// Starts only records before the last one that is done.
    pub(super) fn close_up(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::ClosingUp;
        }
    }

    /// Starts no more runs.
    pub(super) const fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    pub(super) fn is_closing_up(&self) -> bool {
        self.phase == Phase::ClosingUp
    }

    /// Returns whether a lane can start.
    pub(super) fn can_start(&self) -> bool {
        self.next().is_some()
    }

    /// Appends a record to its lane.
    pub(super) fn take(&mut self, job: Job<R>) -> Option<Ready> {
        self.bytes += job.bytes;
        let key = job.key;
        match self.places.entry(key) {
            Entry::Occupied(place) => {
                if let Some(lane) = self.lanes.get_mut(*place.get()) {
                    lane.records.push_back(job);
                }
                None
            }
            Entry::Vacant(vacant) => {
                let free = self.free.pop();
                let place = *vacant.insert(free.unwrap_or(self.lanes.len()));
                if free.is_none() {
                    self.lanes.push(Lane { key, state: State::Free, records: VecDeque::new() });
                }
                let is_blocked = !self.blocked.is_empty() && self.blocked.contains_key(&key);
                let lane = self.lanes.get_mut(place)?;
                lane.key = key;
                lane.records.push_back(job);
                if is_blocked {
                    lane.state = State::Blocked;
                    return None;
                }
                self.make_ready(place)
            }
        }
    }

    /// Starts a run of the next lane, with at most `max` records. A record that failed before is a run of its own.
    pub(super) fn start(&mut self, slot: usize, now: Instant, max: usize) -> Option<Run<R>> {
        let (at, end) = self.next()?;
        let place = self.ready.remove(at)?;
        let lane = self.lanes.get_mut(place)?;
        lane.state = State::Running;
        let max = if lane.records.front()?.is_alone() { 1 } else { max };
        let others = lane.records.iter().skip(1).take(max - 1);
        let records = others.take_while(|job| !job.is_alone() && job.number < end).count() + 1;
        let jobs: Vec<Job<R>> = lane.records.drain(..records).collect();
        self.running_bytes += jobs.iter().map(|job| job.bytes).sum::<u64>();
        self.starts.add(now);
        let ticket = Ticket { slot, epoch: self.epoch, lane: place, key: lane.key, started: now };
        Some(Run { ticket, jobs })
    }

    /// Takes a record of a run that is done.
    pub(super) fn done(&mut self, job: &Job<R>) {
        self.bytes -= job.bytes;
        self.running_bytes -= job.bytes;
        self.prefix.done(job.number);
    }

    /// Puts records of a run back, which come before all others of their lane.
    pub(super) fn put_back(&mut self, ticket: &Ticket, jobs: impl DoubleEndedIterator<Item = Job<R>>) {
        let Some(lane) = self.lanes.get_mut(ticket.lane) else { return };
        for job in jobs.rev() {
            self.running_bytes -= job.bytes;
            lane.records.push_front(job);
        }
    }

    /// Ends a run.
    pub(super) fn end(&mut self, ticket: &Ticket) -> Option<Ready> {
        self.starts.remove(ticket.started);
        let lane = self.lanes.get_mut(ticket.lane)?;
        if !lane.records.is_empty() {
            return self.make_ready(ticket.lane);
        }
        lane.state = State::Free;
        lane.records.shrink_to(KEPT_RECORDS);
        self.places.remove(&ticket.key);
        self.free.push(ticket.lane);
        None
    }

    /// Ends a run whose first remaining record is retried.
    pub(super) fn retry(&mut self, ticket: &Ticket) {
        self.starts.remove(ticket.started);
        if let Some(lane) = self.lanes.get_mut(ticket.lane) {
            lane.state = State::BackingOff;
        }
    }

    /// Makes a lane ready whose backoff has ended.
    pub(super) fn wake(&mut self, place: usize) -> Option<Ready> {
        self.lanes.get(place).filter(|lane| lane.state == State::BackingOff)?;
        self.make_ready(place)
    }

    /// Takes notice that a handler of an earlier assignment has returned.
    pub(super) fn unblock(&mut self, key: u64) -> Option<Ready> {
        let Entry::Occupied(mut running) = self.blocked.entry(key) else { return None };
        *running.get_mut() -= 1;
        if *running.get() > 0 {
            return None;
        }
        running.remove();
        let place = *self.places.get(&key)?;
        self.lanes.get(place).filter(|lane| lane.state == State::Blocked)?;
        self.make_ready(place)
    }

    /// Returns when the runs were started, and the keys of their lanes.
    pub(super) fn into_running(self) -> (Starts, impl Iterator<Item = u64>) {
        let running = self.lanes.into_iter().filter(|lane| lane.state == State::Running);
        (self.starts, running.map(|lane| lane.key))
    }

    /// Returns where the next lane is among the ready ones, and the number before which its records can start.
    fn next(&self) -> Option<(usize, u64)> {
        let end = match self.phase {
            Phase::Open => return (!self.ready.is_empty()).then_some((0, u64::MAX)),
            Phase::ClosingUp => self.prefix.last_done()?,
            Phase::Closed => return None,
        };
        let first = |place: &usize| self.lanes.get(*place)?.records.front().map(|job| job.number);
        let at = self.ready.iter().position(|place| first(place).is_some_and(|number| number < end))?;
        Some((at, end))
    }

    fn make_ready(&mut self, place: usize) -> Option<Ready> {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.state = State::Ready;
        }
        let ready = if self.ready.is_empty() { Ready::First } else { Ready::Another };
        self.ready.push_back(place);
        Some(ready)
    }
}
