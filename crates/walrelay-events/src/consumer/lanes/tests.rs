#![expect(clippy::cast_sign_loss, reason = "the numbers of these partitions are 0 and 1")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { max_concurrency: 4, max_buffered_records: 10, max_buffered_bytes: 1_000 };

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
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
    let mut lanes = lanes(Limits { max_concurrency: 2, ..LIMITS });
    for offset in 0..8 {
        take(&mut lanes, 0, offset, &format!("k{offset}"));
    }
    take(&mut lanes, 1, 100, "x");
    let jobs = started(&mut lanes, Instant::now());
    assert_eq!(jobs.iter().map(|job| job.record).collect::<Vec<_>>(), [0, 100]);
}

#[test]
fn i5_a_record_that_returns_after_its_partition_was_revoked_changes_nothing() {
    let mut lanes = lanes(LIMITS);
    take(&mut lanes, 0, 0, "a");
    let jobs = started(&mut lanes, Instant::now());
    assert_eq!(lanes.revoke(&partition(0)), 1);
    assert!(!take(&mut lanes, 0, 1, "a"), "it is not assigned");
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
    assert_eq!(lanes.oldest_running(), Some((&partition(0), now)));
    lanes.done(&first);
    assert_eq!(lanes.oldest_running(), Some((&partition(1), later)));
    lanes.retry(second, later);
    assert_eq!(lanes.oldest_running(), None);
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
    assert_eq!(lanes.balance(), None);
    for offset in 0..10 {
        take(&mut lanes, 0, offset, "a");
    }
    assert_eq!(lanes.balance(), Some(Balance { pause: vec![partition(0)], resume: vec![] }));
    assert_eq!(lanes.balance(), None, "it is returned once");
    lanes.take(&partition(1), 0, None, 900, 0);
    assert_eq!(lanes.balance(), Some(Balance { pause: vec![partition(1)], resume: vec![] }));
    let now = Instant::now();
    for _ in 0..2 {
        started(&mut lanes, now).iter().for_each(|job| lanes.done(job));
    }
    assert_eq!(lanes.balance(), Some(Balance { pause: vec![], resume: vec![partition(1)] }));
    for _ in 0..2 {
        started(&mut lanes, now).iter().for_each(|job| lanes.done(job));
    }
    assert_eq!(lanes.balance(), None, "more than half is there");
    started(&mut lanes, now).iter().for_each(|job| lanes.done(job));
    assert_eq!(lanes.balance(), Some(Balance { pause: vec![], resume: vec![partition(0)] }));
    assert!(!lanes.is_paused(&partition(0)));
}

#[test]
fn a_stuck_key_that_holds_much_memory_pauses_no_other_partition() {
    let mut lanes = lanes(LIMITS);
    let partitions = u64::try_from(lanes.partitions().count()).unwrap();
    // One key of partition 0, whose first record never returns.
    for offset in 0..7 {
        lanes.take(&partition(0), offset, Some(b"stuck"), 100, 0);
    }
    let now = Instant::now();
    let stuck = started(&mut lanes, now);
    assert_eq!(stuck.len(), 1);
    assert_eq!(lanes.balance(), Some(Balance { pause: vec![partition(0)], resume: vec![] }), "more than its share");
    // The others still get through, far more than there is room for at once.
    let mut most = 0;
    for offset in 0..1_000 {
        assert!(!lanes.is_paused(&partition(1)), "at {offset}");
        lanes.take(&partition(1), offset, None, 60, 0);
        most = most.max(lanes.bytes());
        started(&mut lanes, now).iter().for_each(|job| lanes.done(job));
        lanes.balance();
    }
    assert!(most <= LIMITS.max_buffered_bytes && partitions > 1, "{most}");
    assert!(lanes.is_paused(&partition(0)));
}

#[test]
fn a_paused_partition_that_was_revoked_comes_back_unpaused() {
    let mut lanes = lanes(LIMITS);
    for offset in 0..10 {
        take(&mut lanes, 0, offset, "a");
    }
    lanes.balance();
    assert!(lanes.is_paused(&partition(0)));
    lanes.assign(partition(0));
    assert!(!lanes.is_paused(&partition(0)));
    assert_eq!(lanes.balance(), None);
}

#[test]
fn lanes_are_saturated_when_as_many_are_ready_as_can_run() {
    let mut lanes = lanes(Limits { max_concurrency: 2, ..LIMITS });
    for offset in 0..3 {
        take(&mut lanes, 0, offset, &format!("k{offset}"));
    }
    assert!(!lanes.is_saturated(), "nothing runs");
    let jobs = started(&mut lanes, Instant::now());
    assert!(!lanes.is_saturated(), "one is ready, and two can run");
    take(&mut lanes, 1, 0, "x");
    assert!(lanes.is_saturated());
    lanes.done(&jobs[0]);
    assert!(!lanes.is_saturated());
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

/// Partition, epoch, key and offset of a record.
type Entry = (i32, u64, u8, i64);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_sequence_runs_two_of_a_key_or_swaps_them_or_passes_one(steps in prop::collection::vec(step(), 1..150)) {
        let mut lanes: Lanes<Entry> = Lanes::new(LIMITS);
        let mut now = Instant::now();
        let mut epochs = [None, None];
        let (mut epoch, mut offset) = (0, 0);
        let mut running: Vec<Job<Entry>> = Vec::new();
        let mut open: Vec<Entry> = Vec::new();
        for step in steps {
            match step {
                Step::Take(number, key) => {
                    offset += 1;
                    if let Some(epoch) = epochs[number as usize] {
                        let entry = (number, epoch, key, offset);
                        prop_assert!(lanes.take(&partition(number), offset, Some(&[key]), 1, entry));
                        open.push(entry);
                    }
                }
                Step::Start => if let Some(job) = lanes.start(now) {
                    let (number, epoch, key, at) = job.record;
                    prop_assert_eq!(epochs[number as usize], Some(epoch), "the partition is assigned");
                    let same = |entry: &&Entry| (entry.0, entry.1, entry.2) == (number, epoch, key);
                    prop_assert_eq!(open.iter().find(same).map(|entry| entry.3), Some(at), "the oldest of its key");
                    prop_assert!(!running.iter().map(|job| &job.record).any(|entry| same(&entry)), "one at a time");
                    running.push(job);
                },
                Step::Done(index) if !running.is_empty() => {
                    let job = running.swap_remove(index.index(running.len()));
                    lanes.done(&job);
                    open.retain(|entry| *entry != job.record);
                }
                Step::Retry(index) if !running.is_empty() => {
                    let job = running.swap_remove(index.index(running.len()));
                    lanes.retry(job, now + Duration::from_millis(5));
                }
                Step::Wait => now += Duration::from_millis(10),
                Step::Revoke(number) => {
                    lanes.revoke(&partition(number));
                    if let Some(gone) = epochs[number as usize].take() {
                        open.retain(|entry| (entry.0, entry.1) != (number, gone));
                    }
                }
                Step::Assign(number) => {
                    if let Some(gone) = epochs[number as usize] {
                        open.retain(|entry| (entry.0, entry.1) != (number, gone));
                    }
                    epoch += 1;
                    epochs[number as usize] = Some(epoch);
                    lanes.assign(partition(number));
                }
                Step::Done(_) | Step::Retry(_) => {}
            }
            let assigned = running.iter().filter(|job| epochs[job.record.0 as usize] == Some(job.record.1)).count();
            prop_assert_eq!(lanes.running(), assigned);
            for number in 0..2 {
                if let Some(position) = lanes.position(&partition(number)) {
                    let is_passed = |entry: &Entry| entry.0 == number && entry.3 < position;
                    prop_assert!(!open.iter().any(is_passed), "a record was passed");
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
            open.retain(|entry| *entry != job.record);
        }
        prop_assert!(open.is_empty(), "{open:?} never ran");
    }
}
