//! Several records of a key that are handed over at once: their order, their failures, and batches.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::Semaphore;
use walrelay_events::consumer::BatchOutcome;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Outcome;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

const RECORDS: i64 = 1_000;

/// Writes records of one key.
fn write(topic: &Topic, records: i64) {
    (0..records).for_each(|number| topic.write(Some("k"), Some(number.to_string().as_bytes()), &[]));
    topic.flush();
}

#[test]
fn one_key_keeps_its_order_when_records_within_a_run_fail_and_no_attempt_counts_for_others() {
    let topic = Topic::create("hotkey", 1);
    write(&topic, RECORDS);
    let (log, busy) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let notes = log.clone();
    let handle = move |delivery: Delivery| {
        assert!(!busy.swap(true, SeqCst), "one at a time");
        let (notes, busy) = (notes.clone(), Arc::clone(&busy));
        async move {
            let offset = delivery.record.offset();
            // Some return at once and some wait; every seventh fails at first, in a way of its own.
            if offset % 5 == 0 {
                tokio::task::yield_now().await;
            }
            busy.store(false, SeqCst);
            match (offset % 7, delivery.previous_attempts) {
                (0, 0) => Outcome::retry("at first"),
                (3, _) if offset == 3 => Outcome::dead_letter("for good"),
                (_, attempts) => {
                    notes.note(format!("{offset} {attempts}"));
                    Outcome::Ack
                }
            }
        }
    };
    let mut config = topic.config("hotkey");
    config.retry.initial_backoff = std::time::Duration::from_millis(1);
    let member = Member::start(config, handle);
    wait_until("every offset", || topic.committed("hotkey") == [RECORDS]);
    member.stop().unwrap();
    let expected = (0..RECORDS).filter(|offset| *offset != 3);
    let expected: Vec<String> = expected.map(|offset| format!("{offset} {}", i64::from(offset % 7 == 0))).collect();
    assert_eq!(log.lines(), expected);
}

#[test]
fn a_batch_holds_records_of_one_key_in_order_and_is_acked_to_the_last_good_one() {
    let topic = Topic::create("batches", 1);
    // A gate holds the first batch until everything is buffered.
    write(&topic, 100);
    topic.write(Some("other"), Some(b"x"), &[]);
    topic.flush();
    let (gate, log, observed) = (Arc::new(Semaphore::new(0)), Log::default(), Log::default());
    let (opens, notes) = (Arc::clone(&gate), log.clone());
    let handle = move |batch: Vec<Delivery>| {
        let (gate, notes) = (Arc::clone(&opens), notes.clone());
        async move {
            if batch[0].record.key() == Some(b"other") {
                notes.note("other");
                return BatchOutcome::all();
            }
            drop(gate.acquire().await);
            let offsets: Vec<i64> = batch.iter().map(|delivery| delivery.record.offset()).collect();
            notes.note(format!("{offsets:?} {}", batch[0].previous_attempts));
            // A batch with offset 50 fails there, at first; one with offset 60 panics, and so does the record alone.
            if let Some(at) = offsets.iter().position(|offset| *offset == 50)
                && batch[at].previous_attempts == 0
            {
                return BatchOutcome::first(at, Outcome::retry("at first"));
            }
            assert!(!offsets.contains(&60), "a bug in the handler");
            BatchOutcome::all()
        }
    };
    let mut config = topic.config("batches");
    config.retry.initial_backoff = std::time::Duration::from_millis(1);
    config.retry.max_attempts = 2;
    let consumer = Consumer::batches(config, 20, handle).with_observer(observed.clone());
    let member = Member::run(consumer);
    // It comes after all others: they are buffered.
    log.wait_for("other", 1);
    gate.close();
    wait_until("every offset", || topic.committed("batches") == [101]);
    member.stop().unwrap();
    let batches: Vec<String> = log.lines().into_iter().filter(|line| line != "other").collect();
    let sizes: Vec<usize> = batches.iter().map(|line| line.split(',').count()).collect();
    assert!(sizes.iter().all(|size| *size <= 20) && sizes.contains(&20), "{batches:?}");
    assert!(batches.contains(&"[50] 1".to_owned()), "alone after its failure: {batches:?}");
    // Each record before it was given its turn alone, until the one that panics was found.
    assert_eq!(observed.count("dead-lettered batches[0]@60 after 2 attempts: the handler panicked"), 1);
    assert_eq!((observed.count("dead-lettered"), observed.count("ack")), (1, 100), "{:?}", observed.lines());
    let acked: Vec<i64> = observed.lines().iter().filter_map(|line| offset_of_ack(line)).collect();
    assert!(acked.is_sorted(), "{acked:?}");
}

/// The offset of an acked record of the key with many.
fn offset_of_ack(line: &str) -> Option<i64> {
    line.strip_prefix("ack batches[0]@")?.parse().ok().filter(|offset| *offset < 100)
}
