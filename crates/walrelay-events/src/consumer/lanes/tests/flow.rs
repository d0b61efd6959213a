//! Which partitions are polled: held, paused, resumed.

use std::time::Duration;

use super::super::limits::Balance;
use super::*;

const HOLD: Duration = Duration::from_millis(50);
const HOLD_ALL: Duration = Duration::from_millis(500);

fn pausing(numbers: &[i32]) -> Option<Balance> {
    Some(Balance { pause: numbers.iter().copied().map(partition).collect(), resume: vec![] })
}

fn resuming(number: i32) -> Option<Balance> {
    Some(Balance { pause: vec![], resume: vec![partition(number)] })
}

/// Lets everything finish that can start now, once.
fn finish_some(lanes: &mut Lanes<i64>, now: Instant) {
    started(lanes, now).into_iter().for_each(|run| done(lanes, run));
}

#[test]
fn a_partition_is_full_by_count_and_all_are_by_bytes() {
    let (mut lanes, now) = (lanes(LIMITS), Instant::now());
    assert_eq!(lanes.balance(now), None);
    for offset in 0..10 {
        take(&mut lanes, 0, offset, "a");
    }
    assert_eq!(lanes.balance(now), None, "it is held first");
    assert!(lanes.holds_polls());
    let now = now + HOLD;
    assert_eq!(lanes.balance(now), pausing(&[0]));
    assert!(!lanes.holds_polls());
    assert_eq!(lanes.balance(now), None, "it is returned once");
    lanes.take(&partition(1), 0, None, 900, 0);
    assert_eq!(lanes.balance(now), None);
    let now = now + HOLD_ALL;
    assert_eq!(lanes.balance(now), pausing(&[1]));
    for _ in 0..2 {
        finish_some(&mut lanes, now);
    }
    assert_eq!(lanes.balance(now), resuming(1));
    for _ in 0..2 {
        finish_some(&mut lanes, now);
    }
    assert_eq!(lanes.balance(now), None, "more than half is there");
    finish_some(&mut lanes, now);
    assert_eq!(lanes.balance(now), resuming(0));
    assert!(!lanes.is_paused(&partition(0)));
}

#[test]
fn a_full_partition_whose_handlers_are_quick_is_held_until_it_is_half_empty_and_never_paused() {
    let (mut lanes, mut now) = (lanes(LIMITS), Instant::now());
    let mut offset = 0;
    for _ in 0..100 {
        while !lanes.holds_polls() {
            take(&mut lanes, 0, offset, "a");
            offset += 1;
            assert_eq!(lanes.balance(now), None);
        }
        let held = now;
        while lanes.holds_polls() {
            now += HOLD / 10;
            finish_some(&mut lanes, now);
            assert_eq!(lanes.balance(now), None);
        }
        assert!(now - held > HOLD / 10, "it is held until half of it is done");
    }
    assert!(offset > 500, "{offset}");
}

#[test]
fn a_partition_that_was_held_in_vain_delays_the_others_no_more_for_a_while() {
    let (mut lanes, mut now) = (lanes(LIMITS), Instant::now());
    let fill = |lanes: &mut Lanes<i64>, first: i64, now| {
        for offset in first..first + 10 {
            take(lanes, 0, offset, "a");
        }
        lanes.balance(now)
    };
    assert_eq!(fill(&mut lanes, 0, now), None);
    now += HOLD;
    assert_eq!(lanes.balance(now), pausing(&[0]));
    while lanes.is_paused(&partition(0)) {
        finish_some(&mut lanes, now);
        lanes.balance(now);
    }
    now += Duration::from_secs(9);
    assert_eq!(fill(&mut lanes, 10, now), pausing(&[0]), "at once");
    while lanes.is_paused(&partition(0)) {
        finish_some(&mut lanes, now);
        lanes.balance(now);
    }
    now += Duration::from_secs(1);
    assert_eq!(fill(&mut lanes, 20, now), None);
    assert!(lanes.holds_polls(), "it may be quicker by now");
}

#[test]
fn polls_are_held_for_longer_only_while_every_partition_is_full() {
    let (mut lanes, now) = (lanes(LIMITS), Instant::now());
    let partitions: Vec<i32> = lanes.partitions().map(|partition| partition.partition).collect();
    for number in &partitions {
        for offset in 0..10 {
            take(&mut lanes, *number, offset, "a");
        }
    }
    assert_eq!(lanes.balance(now), None);
    let later = now + HOLD_ALL - Duration::from_millis(1);
    assert_eq!(lanes.balance(later), None);
    assert!(lanes.holds_polls());
    let paused = lanes.balance(now + HOLD_ALL).unwrap();
    assert_eq!(paused.pause.len(), partitions.len());
    assert!(!lanes.holds_polls());
}

#[test]
fn a_stuck_key_that_holds_much_memory_pauses_no_other_partition() {
    let mut lanes = lanes(LIMITS);
    let partitions = u64::try_from(lanes.partitions().count()).unwrap();
    // One key of partition 0, whose first record never returns.
    for offset in 0..7 {
        lanes.take(&partition(0), offset, Some(b"stuck"), 100, 0);
    }
    let mut now = Instant::now();
    let stuck = started(&mut lanes, now);
    assert_eq!(stuck.len(), 1);
    assert_eq!(lanes.balance(now), None);
    now += HOLD;
    assert_eq!(lanes.balance(now), pausing(&[0]), "more than its share");
    // The others still get through, far more than there is room for at once.
    let mut most = 0;
    for offset in 0..1_000 {
        assert!(!lanes.is_paused(&partition(1)), "at {offset}");
        lanes.take(&partition(1), offset, None, 60, 0);
        most = most.max(lanes.bytes());
        finish_some(&mut lanes, now);
        lanes.balance(now);
        assert!(!lanes.holds_polls(), "at {offset}");
    }
    assert!(most <= LIMITS.max_buffered_bytes && partitions > 1, "{most}");
    assert!(lanes.is_paused(&partition(0)));
}

#[test]
fn a_paused_partition_that_was_revoked_comes_back_unpaused() {
    let (mut lanes, now) = (lanes(LIMITS), Instant::now());
    for offset in 0..10 {
        take(&mut lanes, 0, offset, "a");
    }
    lanes.balance(now);
    lanes.balance(now + HOLD);
    assert!(lanes.is_paused(&partition(0)));
    lanes.assign(partition(0));
    assert!(!lanes.is_paused(&partition(0)));
    assert_eq!(lanes.balance(now + HOLD), None);
    assert!(!lanes.holds_polls());
}
