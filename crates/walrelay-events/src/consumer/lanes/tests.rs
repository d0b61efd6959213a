#![expect(clippy::cast_sign_loss, reason = "the numbers of these partitions are 0 and 1")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod flow;
mod sequences;

const LIMITS: Limits = Limits { max_concurrency: 4, max_run: 1, max_buffered_records: 10, max_buffered_bytes: 1_000 };

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

fn position<R>(lanes: &Lanes<R>, number: i32) -> Option<i64> {
    lanes.position(&partition(number)).map(|position| position.offset)
}

fn started(lanes: &mut Lanes<i64>, now: Instant) -> Vec<Run<i64>> {
    std::iter::from_fn(|| lanes.start(now)).collect()
}

/// Every record of the run is done.
fn done<R>(lanes: &mut Lanes<R>, run: Run<R>) {
    run.jobs.iter().for_each(|job| lanes.done(&run.ticket, job));
    lanes.end(&run.ticket);
}

/// The first record of the run has failed.
fn retry<R>(lanes: &mut Lanes<R>, mut run: Run<R>, at: Instant) {
    run.jobs[0].attempts += 1;
    lanes.put_back(&run.ticket, run.jobs.into_iter());
    lanes.retry(&run.ticket, at);
}

fn records<R: Copy>(runs: &[Run<R>]) -> Vec<R> {
    runs.iter().flat_map(|run| &run.jobs).map(|job| job.record).collect()
}

#[test]
fn many_keys_run_at_once_and_one_key_in_order() {
    let mut lanes = lanes(LIMITS);
    let now = Instant::now();
    for (offset, key) in ["a", "b", "a", "c", "a"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let mut runs = started(&mut lanes, now);
    assert_eq!(records(&runs), [0, 1, 3]);
    assert!(started(&mut lanes, now).is_empty());
    done(&mut lanes, runs.remove(0));
    assert_eq!(records(&started(&mut lanes, now)), [2]);
    assert_eq!(position(&lanes, 0), Some(1));
}

#[test]
fn a_retry_holds_back_its_own_key_and_no_other() {
    let mut lanes = lanes(LIMITS);
    let now = Instant::now();
    for (offset, key) in ["a", "a", "b"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let mut runs = started(&mut lanes, now);
    let (b, a) = (runs.remove(1), runs.remove(0));
    let later = now + Duration::from_secs(1);
    retry(&mut lanes, a, later);
    done(&mut lanes, b);
    assert!(started(&mut lanes, now).is_empty(), "a waits, and its second record behind it");
    assert_eq!(lanes.wakes_at(), Some(later));
    let again = lanes.start(later).unwrap();
    assert_eq!((again.jobs[0].record, position(&lanes, 0)), (0, None));
    done(&mut lanes, again);
    let last = lanes.start(later).unwrap();
    done(&mut lanes, last);
    assert_eq!(position(&lanes, 0), Some(3));
}

#[test]
fn a_run_that_waits_for_its_dead_letter_topic_keeps_its_lane_and_no_handler() {
    let mut lanes = lanes(Limits { max_concurrency: 1, ..LIMITS });
    for (offset, key) in ["a", "a", "b", "c"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let now = Instant::now();
    let waiting = lanes.start(now).unwrap();
    assert!(started(&mut lanes, now).is_empty());
    lanes.writing(1);
    assert_eq!((records(&started(&mut lanes, now)), lanes.handlers()), (vec![2], 1));
    lanes.writing(0);
    done(&mut lanes, waiting);
    assert!(started(&mut lanes, now).is_empty(), "b still runs");
}

#[test]
fn a_busy_partition_does_not_keep_another_waiting() {
    let mut lanes = lanes(Limits { max_concurrency: 2, ..LIMITS });
    for offset in 0..8 {
        take(&mut lanes, 0, offset, &format!("k{offset}"));
    }
    take(&mut lanes, 1, 100, "x");
    assert_eq!(records(&started(&mut lanes, Instant::now())), [0, 100]);
}

#[test]
fn i5_a_run_that_returns_after_its_partition_was_revoked_moves_no_position_and_counts_until_then() {
    let mut lanes = lanes(LIMITS);
    take(&mut lanes, 0, 0, "a");
    take(&mut lanes, 0, 1, "a");
    let now = Instant::now();
    let run = lanes.start(now).unwrap();
    assert_eq!(lanes.revoke(&partition(0)), 1);
    assert!(!take(&mut lanes, 0, 1, "a"), "it is not assigned");
    assert_eq!((lanes.handlers(), lanes.bytes()), (1, 10), "what was only buffered is gone");
    assert_eq!(lanes.oldest_running(), Some((&partition(0), now)));
    lanes.assign(partition(0));
    assert!(!lanes.is_current(&run.ticket));
    lanes.end_late(&run.ticket, &run.jobs);
    lanes.end_late(&run.ticket, &run.jobs);
    assert_eq!((position(&lanes, 0), lanes.handlers(), lanes.bytes()), (None, 0, 0));
}

#[test]
fn i5_a_key_whose_handler_outlived_its_assignment_waits_for_it_and_other_keys_do_not() {
    let mut lanes = lanes(LIMITS);
    take(&mut lanes, 0, 0, "a");
    let now = Instant::now();
    let first = lanes.start(now).unwrap();
    let again = |lanes: &mut Lanes<i64>| {
        lanes.assign(partition(0));
        take(lanes, 0, 0, "a");
        take(lanes, 0, 1, "b");
        records(&started(lanes, now))
    };
    assert_eq!(again(&mut lanes), [1]);
    // It is revoked and assigned once more: `a` still runs, and so does `b`.
    assert_eq!(again(&mut lanes), [0_i64; 0]);
    lanes.end_late(&first.ticket, &first.jobs);
    assert_eq!(records(&started(&mut lanes, now)), [0]);
}

#[test]
fn i5_handlers_of_revoked_partitions_leave_no_room_for_more_than_the_limit() {
    let mut lanes = lanes(Limits { max_concurrency: 2, ..LIMITS });
    let now = Instant::now();
    let mut late = Vec::new();
    for offset in 0..20 {
        for key in ["a", "b", "c"] {
            take(&mut lanes, 0, offset, &format!("{key}{offset}"));
        }
        late.extend(started(&mut lanes, now));
        assert_eq!((late.len(), lanes.handlers()), (2, 2));
        lanes.assign(partition(0));
    }
    take(&mut lanes, 0, 100, "z");
    let first = late.remove(0);
    lanes.end_late(&first.ticket, &first.jobs);
    assert_eq!(records(&started(&mut lanes, now)), [100]);
}

#[test]
fn a_run_holds_consecutive_records_of_one_key_and_what_was_not_started_keeps_its_place() {
    let mut lanes = lanes(Limits { max_run: 3, ..LIMITS });
    let now = Instant::now();
    for (offset, key) in ["a", "b", "a", "a", "a"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let mut run = lanes.start(now).unwrap();
    assert_eq!(run.jobs.iter().map(|job| job.record).collect::<Vec<_>>(), [0, 2, 3]);
    // The first record is done, the second one has failed, and the third one was not started.
    let first = run.jobs.remove(0);
    lanes.done(&run.ticket, &first);
    assert_eq!(position(&lanes, 0), Some(1));
    let later = now + Duration::from_secs(1);
    retry(&mut lanes, run, later);
    assert_eq!(records(&started(&mut lanes, now)), [1], "the other key");
    let again = lanes.start(later).unwrap();
    assert_eq!(again.jobs.iter().map(|job| (job.record, job.attempts)).collect::<Vec<_>>(), [(2, 1)], "alone");
    done(&mut lanes, again);
    let last = lanes.start(later).unwrap();
    assert_eq!(last.jobs.iter().map(|job| (job.record, job.attempts)).collect::<Vec<_>>(), [(3, 0), (4, 0)]);
}

#[test]
fn a_position_is_given_once_and_again_if_its_commit_did_not_land() {
    let mut lanes = lanes(LIMITS);
    take(&mut lanes, 0, 7, "a");
    let run = lanes.start(Instant::now()).unwrap();
    done(&mut lanes, run);
    let moved = vec![(partition(0), 8.into())];
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
    done(&mut lanes, first);
    assert_eq!(lanes.oldest_running(), Some((&partition(1), later)));
    retry(&mut lanes, second, later);
    assert_eq!(lanes.oldest_running(), None);
}

#[test]
fn i15_where_a_partition_begins_is_committed_before_anything_is_done() {
    let mut lanes = lanes(LIMITS);
    lanes.begin(&partition(0), 100.into());
    assert_eq!(lanes.take_positions(), [(partition(0), 100.into())]);
    take(&mut lanes, 0, 103, "a");
    let run = lanes.start(Instant::now()).unwrap();
    assert_eq!(position(&lanes, 0), Some(100));
    done(&mut lanes, run);
    assert_eq!(lanes.take_positions(), [(partition(0), 104.into())]);
}

#[test]
fn what_was_polled_in_an_earlier_assignment_is_not_passed_in_the_next_one() {
    let mut lanes = lanes(LIMITS);
    let next = |lanes: &Lanes<i64>| lanes.next(&partition(0), Some(9.into())).map(|next| next.offset);
    lanes.begin(&partition(0), 3.into());
    lanes.polled_before(&partition(0), Some(9.into()));
    lanes.polled(&partition(0), Some(9.into()));
    assert_eq!((position(&lanes, 0), next(&lanes)), (Some(3), Some(3)), "librdkafka still reports the earlier one");
    lanes.polled(&partition(0), Some(5.into()));
    lanes.polled(&partition(0), Some(9.into()));
    assert_eq!((position(&lanes, 0), next(&lanes)), (Some(9), Some(9)), "it is another one since");

    lanes.begin(&partition(1), 3.into());
    lanes.polled_before(&partition(1), Some(9.into()));
    take(&mut lanes, 1, 3, "a");
    lanes.polled(&partition(1), Some(9.into()));
    let run = lanes.start(Instant::now()).unwrap();
    done(&mut lanes, run);
    assert_eq!(position(&lanes, 1), Some(9), "a record was received");

    lanes.assign(partition(1));
    lanes.begin(&partition(1), 3.into());
    lanes.polled_before(&partition(1), Some(9.into()));
    lanes.polled(&partition(1), None);
    lanes.polled(&partition(1), Some(9.into()));
    assert_eq!(position(&lanes, 1), Some(9), "nothing was polled at some time since");
}

#[test]
fn i3_a_closing_partition_ends_what_runs_and_starts_nothing() {
    let mut lanes = lanes(LIMITS);
    take(&mut lanes, 0, 0, "a");
    take(&mut lanes, 0, 1, "a");
    let run = lanes.start(Instant::now()).unwrap();
    take(&mut lanes, 0, 2, "b");
    lanes.close(&partition(0));
    take(&mut lanes, 0, 3, "c");
    done(&mut lanes, run);
    assert!(started(&mut lanes, Instant::now()).is_empty());
    assert_eq!((lanes.running_of(&partition(0)), position(&lanes, 0)), (0, Some(1)));
}

#[test]
fn i3_a_closing_partition_handles_what_comes_before_a_record_that_is_done() {
    let mut lanes = lanes(Limits { max_run: 2, ..LIMITS });
    let now = Instant::now();
    for (offset, key) in ["a", "b", "c", "a", "b", "c"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let a = lanes.start(now).unwrap();
    let b = lanes.start(now).unwrap();
    lanes.close_up(&partition(0));
    assert!(started(&mut lanes, now).is_empty(), "nothing is done");
    done(&mut lanes, a);
    assert!(lanes.is_finishing(&partition(0)));
    let c = started(&mut lanes, now);
    assert_eq!(records(&c), [2], "before offset 3, and not the one after it");
    c.into_iter().for_each(|run| done(&mut lanes, run));
    // Only the first record of the other run was handled.
    lanes.done(&b.ticket, &b.jobs[0]);
    lanes.put_back(&b.ticket, b.jobs.into_iter().skip(1));
    lanes.end(&b.ticket);
    assert!(started(&mut lanes, now).is_empty());
    assert_eq!((lanes.is_finishing(&partition(0)), position(&lanes, 0)), (false, Some(4)));
}

#[test]
fn i3_a_closed_partition_starts_nothing_whatever_is_done() {
    let mut lanes = lanes(LIMITS);
    let now = Instant::now();
    for (offset, key) in ["a", "b", "a"].into_iter().enumerate() {
        take(&mut lanes, 0, offset as i64, key);
    }
    let mut runs = started(&mut lanes, now);
    let (b, a) = (runs.remove(1), runs.remove(0));
    lanes.close_up(&partition(0));
    done(&mut lanes, b);
    retry(&mut lanes, a, now);
    lanes.close(&partition(0));
    assert!(started(&mut lanes, now).is_empty());
    assert!(!lanes.is_finishing(&partition(0)));
}

#[test]
fn lanes_are_saturated_when_as_many_are_ready_as_can_run() {
    let mut lanes = lanes(Limits { max_concurrency: 2, ..LIMITS });
    for offset in 0..3 {
        take(&mut lanes, 0, offset, &format!("k{offset}"));
    }
    assert!(!lanes.is_saturated(), "nothing runs");
    let mut runs = started(&mut lanes, Instant::now());
    assert!(!lanes.is_saturated(), "one is ready, and two can run");
    take(&mut lanes, 1, 0, "x");
    assert!(lanes.is_saturated());
    done(&mut lanes, runs.remove(0));
    assert!(!lanes.is_saturated());
}
