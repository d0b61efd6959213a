//! The buffered records of one partition: a lane for each key, and the prefix of acked records.
//!
//! It returns when a partition without ready records gets one, so that `Lanes` can take turns over the
//! partitions. It does not limit concurrency.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::time::Instant;

use crate::consumer::prefix::Prefix;
use crate::consumer::topic_partition::TopicPartition;

use super::job::Job;

/// The buffered records of one partition.
#[derive(Debug)]
pub(super) struct PartitionBuffer<R> {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    pub(super) prefix: Prefix,
    pub(super) running: usize,
    pub(super) bytes: u64,
    pub(super) committed: Option<i64>,
    /// Nothing is fetched from Kafka.
    pub(super) is_paused: bool,
    /// How many of the running records were started at a time.
    started: BTreeMap<Instant, usize>,
    lanes: HashMap<u64, Lane<R>, BuildHasherDefault<IdentityHasher>>,
    /// Lanes whose first record can start.
    ready: VecDeque<u64>,
    is_closing: bool,
}

/// The buffered records of one key. An empty lane is removed.
#[derive(Debug)]
struct Lane<R> {
    /// The oldest record, unless it is running. Most lanes hold only this one.
    first: Option<Job<R>>,
    rest: VecDeque<Job<R>>,
    /// The first record is in its backoff.
    is_backing_off: bool,
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
    pub(super) fn new(partition: TopicPartition, epoch: u64) -> Self {
        Self {
            partition,
            epoch,
            prefix: Prefix::default(),
            running: 0,
            bytes: 0,
            committed: None,
            is_paused: false,
            started: BTreeMap::new(),
            lanes: HashMap::default(),
            ready: VecDeque::new(),
            is_closing: false,
        }
    }

    /// Counts the records that can start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Starts no more records.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.ready.clear();
    }

    /// Appends a record to its lane.
    pub(super) fn take(&mut self, job: Job<R>) -> Option<Ready> {
        let number = job.lane;
        self.bytes += job.bytes;
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.rest.push_back(job);
            return None;
        }
        self.lanes.insert(number, Lane { first: Some(job), rest: VecDeque::new(), is_backing_off: false });
        self.make_ready(number)
    }

    /// Returns the next record to start.
    pub(super) fn start(&mut self, now: Instant) -> Option<Job<R>> {
        let number = self.ready.pop_front()?;
        let mut job = self.lanes.get_mut(&number)?.first.take()?;
        job.started = Some(now);
        *self.started.entry(now).or_default() += 1;
        self.running += 1;
        Some(job)
    }

    /// Returns when the oldest running record was started.
    pub(super) fn oldest_start(&self) -> Option<Instant> {
        self.started.keys().next().copied()
    }

    /// Takes back a record that is done.
    pub(super) fn done(&mut self, job: &Job<R>) -> Option<Ready> {
        self.stopped(job);
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

    /// Takes back a record that is retried.
    pub(super) fn retry(&mut self, job: Job<R>) {
        self.stopped(&job);
        if let Some(lane) = self.lanes.get_mut(&job.lane) {
            lane.is_backing_off = true;
            lane.first = Some(job);
        }
    }

    /// Makes a lane ready whose backoff has ended.
    pub(super) fn wake(&mut self, number: u64) -> Option<Ready> {
        let lane = self.lanes.get_mut(&number).filter(|lane| lane.is_backing_off)?;
        lane.is_backing_off = false;
        self.make_ready(number)
    }

    fn stopped(&mut self, job: &Job<R>) {
        self.running -= 1;
        if let Some(Entry::Occupied(mut started)) = job.started.map(|started| self.started.entry(started)) {
            *started.get_mut() -= 1;
            if *started.get() == 0 {
                started.remove();
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

/// The number of a lane is a hash already and is not hashed again.
#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
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
