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
//! - **Not ours, not counted.** What comes back from a partition that was given up changes nothing.
//!
//! Lanes are told apart by a hash of the key: two keys that collide share a lane, which costs speed and breaks nothing. A
//! record without a key has a lane of its own.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Instant;

use crate::consumer::prefix::Prefix;

/// A partition of a topic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
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

/// What is held of all assigned partitions.
#[derive(Debug)]
pub struct Lanes<R> {
    limits: Limits,
    hasher: RandomState,
    places: HashMap<Partition, usize>,
    slots: Vec<Option<Held<R>>>,
    /// The slots that have something ready, each once; the first is next.
    turns: VecDeque<usize>,
    /// Retries by time: when, and in which slot, tenure and lane.
    retries: BinaryHeap<Reverse<(Instant, usize, u64, u64)>>,
    running: usize,
    bytes: u64,
    /// The number of the next assignment, so that what comes late from an earlier one is known.
    tenure: u64,
}

/// What is held of one partition.
#[derive(Debug)]
struct Held<R> {
    partition: Partition,
    tenure: u64,
    prefix: Prefix,
    lanes: HashMap<u64, Lane<R>>,
    /// Lanes whose first record may start.
    ready: VecDeque<u64>,
    running: usize,
    /// How many that run began at a time.
    began: BTreeMap<Instant, usize>,
    bytes: u64,
    committed: Option<i64>,
    is_closing: bool,
}

/// The records of one key that have not started; the lane exists as long as any is held.
#[derive(Debug)]
struct Lane<R> {
    records: VecDeque<Job<R>>,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Its first record may start.
    Ready,
    /// A record of it is in a handler.
    Running,
    /// Its first record waits for a retry.
    Waiting,
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
            turns: VecDeque::new(),
            retries: BinaryHeap::new(),
            running: 0,
            bytes: 0,
            tenure: 0,
        }
    }

    /// Takes over a partition.
    pub fn assign(&mut self, partition: Partition) {
        self.revoke(&partition);
        self.tenure += 1;
        let held = Held {
            partition: partition.clone(),
            tenure: self.tenure,
            prefix: Prefix::default(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            running: 0,
            began: BTreeMap::new(),
            bytes: 0,
            committed: None,
            is_closing: false,
        };
        let free = self.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.push(None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(held);
        }
        self.places.insert(partition, slot);
    }

    /// Notes where a partition starts. That is its position until something is done.
    pub fn begin(&mut self, partition: &Partition, offset: i64) {
        if let Some(held) = self.held_mut(partition) {
            held.prefix.begin(offset);
        }
    }

    /// Starts nothing of this partition any more; what runs may end.
    pub fn close(&mut self, partition: &Partition) {
        if let Some(held) = self.held_mut(partition) {
            held.is_closing = true;
            held.ready.clear();
        }
    }

    /// Gives a partition up. Says how many of its records were still in handlers.
    pub fn revoke(&mut self, partition: &Partition) -> usize {
        let Some(slot) = self.places.remove(partition) else { return 0 };
        let Some(held) = self.slots.get_mut(slot).and_then(Option::take) else { return 0 };
        self.bytes -= held.bytes;
        self.running -= held.running;
        self.turns.retain(|turn| *turn != slot);
        held.running
    }

    /// Takes a record. Says whether its partition is ours; if not, it is dropped.
    pub fn take(&mut self, partition: &Partition, offset: i64, key: Option<&[u8]>, bytes: u64, record: R) -> bool {
        let key_hash = key.map(|key| self.hasher.hash_one(key));
        let Some(&slot) = self.places.get(partition) else { return false };
        let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        let number = held.prefix.received(offset);
        let lane = key_hash.unwrap_or_else(|| self.hasher.hash_one(number));
        let job = Job { record, tries: 0, waits: 0, began: None, slot, tenure: held.tenure, number, lane, bytes };
        held.bytes += bytes;
        self.bytes += bytes;
        let is_new = !held.lanes.contains_key(&lane);
        let entry = held.lanes.entry(lane).or_insert_with(|| Lane { records: VecDeque::new(), state: State::Ready });
        entry.records.push_back(job);
        if is_new && !held.is_closing {
            self.make_ready(slot, lane);
        }
        true
    }

    /// Gives the next record to start, in turn over the partitions.
    pub fn start(&mut self, now: Instant) -> Option<Job<R>> {
        self.wake(now);
        while self.running < self.limits.running_max {
            let slot = self.turns.pop_front()?;
            let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let Some(number) = held.ready.pop_front() else { continue };
            if !held.ready.is_empty() {
                self.turns.push_back(slot);
            }
            let Some(lane) = held.lanes.get_mut(&number) else { continue };
            let Some(mut job) = lane.records.pop_front() else { continue };
            lane.state = State::Running;
            job.began = Some(now);
            *held.began.entry(now).or_default() += 1;
            held.running += 1;
            self.running += 1;
            return Some(job);
        }
        None
    }

    /// Takes back a record that is dealt with.
    pub fn done(&mut self, job: &Job<R>) {
        let Some(held) = self.returned(job) else { return };
        held.prefix.done(job.number);
        held.bytes -= job.bytes;
        let is_over = held.lanes.get(&job.lane).is_none_or(|lane| lane.records.is_empty());
        if is_over {
            held.lanes.remove(&job.lane);
        }
        let is_closing = held.is_closing;
        self.bytes -= job.bytes;
        if !is_over && !is_closing {
            self.make_ready(job.slot, job.lane);
        }
    }

    /// Takes back a record that is to be tried again at a time.
    pub fn retry(&mut self, job: Job<R>, at: Instant) {
        let (slot, tenure, number) = (job.slot, job.tenure, job.lane);
        let Some(held) = self.returned(&job) else { return };
        let Some(lane) = held.lanes.get_mut(&number) else { return };
        lane.state = State::Waiting;
        lane.records.push_front(job);
        self.retries.push(Reverse((at, slot, tenure, number)));
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

    /// Notes what is known to be committed of a partition; below zero, nothing. What was taken beyond it is given again.
    pub fn committed(&mut self, partition: &Partition, offset: i64) {
        if let Some(held) = self.held_mut(partition) {
            held.committed = held.committed.min((offset >= 0).then_some(offset));
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

    /// Says whether a partition is full: nothing of it should be taken.
    #[must_use]
    pub fn is_full(&self, partition: &Partition) -> bool {
        self.bytes >= self.limits.bytes_max || self.count(partition) >= self.limits.records_max
    }

    /// Says whether a partition that was full has room again: half of everything.
    #[must_use]
    pub fn has_room(&self, partition: &Partition) -> bool {
        self.bytes <= self.limits.bytes_max / 2 && self.count(partition) <= self.limits.records_max / 2
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
        held.filter_map(|held| Some((&held.partition, *held.began.keys().next()?))).min_by_key(|(_, began)| *began)
    }

    /// Counts the bytes held.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&self, partition: &Partition) -> usize {
        self.held(partition).map_or(0, |held| held.prefix.held())
    }

    fn held(&self, partition: &Partition) -> Option<&Held<R>> {
        let slot = *self.places.get(partition)?;
        self.slots.get(slot)?.as_ref()
    }

    fn held_mut(&mut self, partition: &Partition) -> Option<&mut Held<R>> {
        let slot = *self.places.get(partition)?;
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Notes that a record has left its handler; nothing if its partition was given up meanwhile.
    fn returned(&mut self, job: &Job<R>) -> Option<&mut Held<R>> {
        let held = self.slots.get_mut(job.slot)?.as_mut().filter(|held| held.tenure == job.tenure)?;
        held.running -= 1;
        self.running -= 1;
        if let Some(Entry::Occupied(mut began)) = job.began.map(|began| held.began.entry(began)) {
            *began.get_mut() -= 1;
            if *began.get() == 0 {
                began.remove();
            }
        }
        Some(held)
    }

    fn make_ready(&mut self, slot: usize, number: u64) {
        let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(lane) = held.lanes.get_mut(&number) else { return };
        lane.state = State::Ready;
        if held.ready.is_empty() {
            self.turns.push_back(slot);
        }
        held.ready.push_back(number);
    }

    /// Makes ready whose retry is due.
    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, tenure, number))) = self.retries.peek().copied() {
            if at > now {
                return;
            }
            self.retries.pop();
            let held = self.slots.get(slot).and_then(Option::as_ref).filter(|held| held.tenure == tenure);
            let is_waiting = held.is_some_and(|held| {
                !held.is_closing && held.lanes.get(&number).is_some_and(|lane| lane.state == State::Waiting)
            });
            if is_waiting {
                self.make_ready(slot, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_sign_loss, reason = "the numbers of these partitions are 0 and 1")]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { running_max: 4, records_max: 10, bytes_max: 1_000 };

    fn partition(number: i32) -> Partition {
        Partition { topic: "t".into(), number }
    }

    fn lanes(limits: Limits) -> Lanes<i64> {
        let mut lanes = Lanes::new(limits);
        lanes.assign(partition(0));
        lanes.assign(partition(1));
        lanes
    }

    fn take(lanes: &mut Lanes<i64>, number: i32, offset: i64, key: &str) -> bool {
        lanes.take(&partition(number), offset, Some(key.as_bytes()), 10, offset)
    }

    fn started(lanes: &mut Lanes<i64>, now: Instant) -> Vec<Job<i64>> {
        std::iter::from_fn(|| lanes.start(now)).collect()
    }

    #[test]
    fn many_keys_run_at_once_and_one_key_in_order() {
        let mut lanes = lanes(LIMITS);
        let now = Instant::now();
        for (offset, key) in ["a", "b", "a", "c", "a"].into_iter().enumerate() {
            take(&mut lanes, 0, offset as i64, key);
        }
        let mut jobs = started(&mut lanes, now);
        assert_eq!(jobs.iter().map(|job| job.record).collect::<Vec<_>>(), [0, 1, 3]);
        assert!(started(&mut lanes, now).is_empty());
        lanes.done(&jobs.remove(0));
        assert_eq!(started(&mut lanes, now).iter().map(|job| job.record).collect::<Vec<_>>(), [2]);
        assert_eq!(lanes.position(&partition(0)), Some(1));
    }

    #[test]
    fn a_retry_holds_back_its_own_key_and_no_other() {
        let mut lanes = lanes(LIMITS);
        let now = Instant::now();
        for (offset, key) in ["a", "a", "b"].into_iter().enumerate() {
            take(&mut lanes, 0, offset as i64, key);
        }
        let mut jobs = started(&mut lanes, now);
        let (b, a) = (jobs.remove(1), jobs.remove(0));
        let later = now + Duration::from_secs(1);
        lanes.retry(a, later);
        lanes.done(&b);
        assert!(started(&mut lanes, now).is_empty(), "a waits, and its second record behind it");
        assert_eq!(lanes.wakes_at(), Some(later));
        let again = started(&mut lanes, later);
        assert_eq!(again.iter().map(|job| job.record).collect::<Vec<_>>(), [0]);
        assert_eq!(lanes.position(&partition(0)), None);
        lanes.done(&again[0]);
        let last = started(&mut lanes, later);
        lanes.done(&last[0]);
        assert_eq!(lanes.position(&partition(0)), Some(3));
    }

    #[test]
    fn a_busy_partition_does_not_keep_another_waiting() {
        let mut lanes = lanes(Limits { running_max: 2, ..LIMITS });
        for offset in 0..8 {
            take(&mut lanes, 0, offset, &format!("k{offset}"));
        }
        take(&mut lanes, 1, 100, "x");
        let jobs = started(&mut lanes, Instant::now());
        assert_eq!(jobs.iter().map(|job| job.record).collect::<Vec<_>>(), [0, 100]);
    }

    #[test]
    fn i5_what_comes_back_from_a_partition_that_was_given_up_changes_nothing() {
        let mut lanes = lanes(LIMITS);
        take(&mut lanes, 0, 0, "a");
        let jobs = started(&mut lanes, Instant::now());
        assert_eq!(lanes.revoke(&partition(0)), 1);
        assert!(!take(&mut lanes, 0, 1, "a"), "it is not ours");
        lanes.assign(partition(0));
        lanes.done(&jobs[0]);
        assert_eq!((lanes.position(&partition(0)), lanes.running(), lanes.bytes()), (None, 0, 0));
    }

    #[test]
    fn a_position_is_given_once_and_again_if_its_commit_did_not_land() {
        let mut lanes = lanes(LIMITS);
        take(&mut lanes, 0, 7, "a");
        let job = lanes.start(Instant::now()).unwrap();
        lanes.done(&job);
        let moved = vec![(partition(0), 8)];
        assert_eq!(lanes.take_positions(), moved);
        lanes.committed(&partition(0), 8);
        assert_eq!(lanes.take_positions(), []);
        for known in [7, -1001] {
            lanes.committed(&partition(0), known);
            assert_eq!(lanes.take_positions(), moved, "{known}");
        }
        lanes.forget_commits();
        assert_eq!(lanes.take_positions(), moved);
    }

    #[test]
    fn the_longest_running_is_known_until_it_comes_back() {
        let mut lanes = lanes(LIMITS);
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        take(&mut lanes, 0, 0, "a");
        let first = lanes.start(now).unwrap();
        take(&mut lanes, 1, 0, "a");
        let second = lanes.start(later).unwrap();
        assert_eq!(lanes.longest(), Some((&partition(0), now)));
        lanes.done(&first);
        assert_eq!(lanes.longest(), Some((&partition(1), later)));
        lanes.retry(second, later);
        assert_eq!(lanes.longest(), None);
    }

    #[test]
    fn i15_where_a_partition_begins_is_committed_before_anything_is_done() {
        let mut lanes = lanes(LIMITS);
        lanes.begin(&partition(0), 100);
        assert_eq!(lanes.take_positions(), [(partition(0), 100)]);
        take(&mut lanes, 0, 103, "a");
        let job = lanes.start(Instant::now()).unwrap();
        assert_eq!(lanes.position(&partition(0)), Some(100));
        lanes.done(&job);
        assert_eq!(lanes.take_positions(), [(partition(0), 104)]);
    }

    #[test]
    fn i3_a_closing_partition_ends_what_runs_and_starts_nothing() {
        let mut lanes = lanes(LIMITS);
        take(&mut lanes, 0, 0, "a");
        take(&mut lanes, 0, 1, "a");
        let jobs = started(&mut lanes, Instant::now());
        take(&mut lanes, 0, 2, "b");
        lanes.close(&partition(0));
        take(&mut lanes, 0, 3, "c");
        lanes.done(&jobs[0]);
        assert!(started(&mut lanes, Instant::now()).is_empty());
        assert_eq!((lanes.running_of(&partition(0)), lanes.position(&partition(0))), (0, Some(1)));
    }

    #[test]
    fn a_partition_is_full_by_count_and_all_are_by_bytes() {
        let mut lanes = lanes(LIMITS);
        for offset in 0..10 {
            take(&mut lanes, 0, offset, "a");
        }
        assert_eq!((lanes.is_full(&partition(0)), lanes.is_full(&partition(1))), (true, false));
        assert!(!lanes.has_room(&partition(0)));
        lanes.take(&partition(1), 0, None, 900, 0);
        assert!(lanes.is_full(&partition(1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(i32, u8),
        Start,
        Done(prop::sample::Index),
        Retry(prop::sample::Index),
        Wait,
        Revoke(i32),
        Assign(i32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..2, 0_u8..4).prop_map(|(partition, key)| Step::Take(partition, key)),
            6 => Just(Step::Start),
            5 => any::<prop::sample::Index>().prop_map(Step::Done),
            2 => any::<prop::sample::Index>().prop_map(Step::Retry),
            1 => Just(Step::Wait),
            1 => (0..2).prop_map(Step::Revoke),
            1 => (0..2).prop_map(Step::Assign),
        ]
    }

    /// What a record says about itself in the property test.
    type Told = (i32, u64, u8, i64);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_order_of_events_runs_two_of_a_key_swaps_them_or_passes_one(steps in prop::collection::vec(step(), 1..150)) {
            let mut lanes: Lanes<Told> = Lanes::new(LIMITS);
            let mut now = Instant::now();
            let mut tenures = [None, None];
            let (mut tenure, mut offset) = (0, 0);
            let mut running: Vec<Job<Told>> = Vec::new();
            let mut open: Vec<Told> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(number, key) => {
                        offset += 1;
                        if let Some(tenure) = tenures[number as usize] {
                            let told = (number, tenure, key, offset);
                            prop_assert!(lanes.take(&partition(number), offset, Some(&[key]), 1, told));
                            open.push(told);
                        }
                    }
                    Step::Start => if let Some(job) = lanes.start(now) {
                        let (number, tenure, key, at) = job.record;
                        prop_assert_eq!(tenures[number as usize], Some(tenure), "it is ours");
                        let same = |told: &&Told| (told.0, told.1, told.2) == (number, tenure, key);
                        prop_assert_eq!(open.iter().find(same).map(|told| told.3), Some(at), "the oldest of its key");
                        prop_assert!(!running.iter().map(|job| &job.record).any(|told| same(&told)), "one at a time");
                        running.push(job);
                    },
                    Step::Done(index) if !running.is_empty() => {
                        let job = running.swap_remove(index.index(running.len()));
                        lanes.done(&job);
                        open.retain(|told| *told != job.record);
                    }
                    Step::Retry(index) if !running.is_empty() => {
                        let job = running.swap_remove(index.index(running.len()));
                        lanes.retry(job, now + Duration::from_millis(5));
                    }
                    Step::Wait => now += Duration::from_millis(10),
                    Step::Revoke(number) => {
                        lanes.revoke(&partition(number));
                        if let Some(gone) = tenures[number as usize].take() {
                            open.retain(|told| (told.0, told.1) != (number, gone));
                        }
                    }
                    Step::Assign(number) => {
                        if let Some(gone) = tenures[number as usize] {
                            open.retain(|told| (told.0, told.1) != (number, gone));
                        }
                        tenure += 1;
                        tenures[number as usize] = Some(tenure);
                        lanes.assign(partition(number));
                    }
                    Step::Done(_) | Step::Retry(_) => {}
                }
                let ours = running.iter().filter(|job| tenures[job.record.0 as usize] == Some(job.record.1)).count();
                prop_assert_eq!(lanes.running(), ours);
                for number in 0..2 {
                    if let Some(position) = lanes.position(&partition(number)) {
                        prop_assert!(open.iter().all(|told| told.0 != number || told.3 >= position), "a record was passed");
                    }
                }
            }
            // Nothing is stuck: everything that is open runs to its end.
            for job in running.drain(..) {
                lanes.retry(job, now);
            }
            now += Duration::from_secs(1);
            while let Some(job) = lanes.start(now) {
                lanes.done(&job);
                open.retain(|told| *told != job.record);
            }
            prop_assert!(open.is_empty(), "{open:?} never ran");
        }
    }
}
