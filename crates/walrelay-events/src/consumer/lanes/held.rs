//! What is held of one partition: a lane for each key, and the prefix of what is done.
//!
//! It says when something becomes ready that had nothing ready before, so that whoever holds many partitions can give each
//! its turn. How many may run at once is not its business.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::time::Instant;

use crate::consumer::prefix::Prefix;

use super::Job;
use super::Partition;

/// What is held of one partition.
#[derive(Debug)]
pub(super) struct Held<R> {
    pub(super) partition: Partition,
    pub(super) tenure: u64,
    pub(super) prefix: Prefix,
    pub(super) running: usize,
    pub(super) bytes: u64,
    pub(super) committed: Option<i64>,
    /// Nothing of it is taken from Kafka.
    pub(super) is_paused: bool,
    /// How many that run began at a time.
    began: BTreeMap<Instant, usize>,
    lanes: HashMap<u64, Lane<R>, BuildHasherDefault<Numbered>>,
    /// Lanes whose first record may start.
    ready: VecDeque<u64>,
    is_closing: bool,
}

/// The records of one key; the lane exists as long as any is held.
#[derive(Debug)]
struct Lane<R> {
    /// The oldest, unless it is running. Most lanes hold no other.
    first: Option<Job<R>>,
    rest: VecDeque<Job<R>>,
    /// The first waits for a retry.
    is_waiting: bool,
}

/// A record that has just been made ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ready {
    /// It is the only one.
    First,
    /// There were others already.
    Another,
}

impl<R> Held<R> {
    pub(super) fn new(partition: Partition, tenure: u64) -> Self {
        Self {
            partition,
            tenure,
            prefix: Prefix::default(),
            running: 0,
            bytes: 0,
            committed: None,
            is_paused: false,
            began: BTreeMap::new(),
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            is_closing: false,
        }
    }

    /// Counts the records that may start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Starts nothing any more.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.ready.clear();
    }

    /// Takes a record to the end of its lane.
    pub(super) fn take(&mut self, job: Job<R>) -> Option<Ready> {
        let number = job.lane;
        self.bytes += job.bytes;
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.rest.push_back(job);
            return None;
        }
        self.lanes.insert(number, Lane { first: Some(job), rest: VecDeque::new(), is_waiting: false });
        self.make_ready(number)
    }

    /// Gives the next record to start.
    pub(super) fn start(&mut self, now: Instant) -> Option<Job<R>> {
        let number = self.ready.pop_front()?;
        let mut job = self.lanes.get_mut(&number)?.first.take()?;
        job.began = Some(now);
        *self.began.entry(now).or_default() += 1;
        self.running += 1;
        Some(job)
    }

    /// Gives when the record began that has been running for longest.
    pub(super) fn longest(&self) -> Option<Instant> {
        self.began.keys().next().copied()
    }

    /// Takes back a record that is dealt with.
    pub(super) fn done(&mut self, job: &Job<R>) -> Option<Ready> {
        self.ended(job);
        self.bytes -= job.bytes;
        self.prefix.done(job.number);
        let lane = self.lanes.get_mut(&job.lane)?;
        lane.first = lane.rest.pop_front();
        if lane.first.is_none() {
            self.lanes.remove(&job.lane);
            return None;
        }
        self.make_ready(job.lane)
    }

    /// Takes back a record that is to be tried again.
    pub(super) fn retry(&mut self, job: Job<R>) {
        self.ended(&job);
        if let Some(lane) = self.lanes.get_mut(&job.lane) {
            lane.is_waiting = true;
            lane.first = Some(job);
        }
    }

    /// The retry of a lane is due.
    pub(super) fn wake(&mut self, number: u64) -> Option<Ready> {
        let lane = self.lanes.get_mut(&number).filter(|lane| lane.is_waiting)?;
        lane.is_waiting = false;
        self.make_ready(number)
    }

    fn ended(&mut self, job: &Job<R>) {
        self.running -= 1;
        if let Some(Entry::Occupied(mut began)) = job.began.map(|began| self.began.entry(began)) {
            *began.get_mut() -= 1;
            if *began.get() == 0 {
                began.remove();
            }
        }
    }

    fn make_ready(&mut self, number: u64) -> Option<Ready> {
        if self.is_closing {
            return None;
        }
        let ready = if self.ready.is_empty() { Ready::First } else { Ready::Another };
        self.ready.push_back(number);
        Some(ready)
    }
}

/// Lanes are numbered by a hash: it is not hashed again.
#[derive(Debug, Default)]
struct Numbered(u64);

impl Hasher for Numbered {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
