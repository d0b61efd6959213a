//! Several records of a key that are handed over at once: their order, their failures, and batches.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use serde::Deserialize;
use tokio::sync::Semaphore;
use uuid::Uuid;
use walrelay_events::consumer::BatchOutcome;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::EventBatchHandler;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::typed_batch;

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

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    Changed { key: String, version: i64 },
}

/// Notes the versions of each batch of the key `k`. The first one waits.
struct Versions {
    gate: Arc<Semaphore>,
    log: Log,
}

impl EventBatchHandler<Event> for Versions {
    async fn handle(&self, batch: Vec<Received<Event>>) -> Result<BatchOutcome, Failure> {
        let mut versions = Vec::new();
        for received in &batch {
            let Payload::Event(Event::Changed { key, version }) = &received.event else {
                return Err(Failure::stop("not a change"));
            };
            if key != "k" {
                self.log.note(key);
                return Ok(BatchOutcome::all());
            }
            versions.push(*version);
        }
        drop(self.gate.acquire().await);
        let is_first = |at: usize| batch.get(at).is_some_and(|received| received.previous_attempts == 0);
        if let Some(at) = versions.iter().position(|version| *version == 7).filter(|at| is_first(*at)) {
            self.log.note(format!("{:?} until 7 fails", &versions[..at]));
            return Ok(BatchOutcome::first(at, Outcome::retry("at first")));
        }
        self.log.note(format!("{versions:?}"));
        Ok(BatchOutcome::all())
    }
}

#[test]
fn a_typed_batch_ends_before_what_its_handler_must_not_receive_and_nothing_is_lost_or_swapped() {
    let topic = Topic::create("typedbatches", 1);
    let changes = |versions: std::ops::RangeInclusive<i64>| {
        versions.for_each(|version| topic.change(Uuid::now_v7(), "k", version));
    };
    let other = |event_type: &str, value: &str| {
        let id = Uuid::now_v7().to_string();
        let headers: [(&str, Option<&[u8]>); 2] =
            [("event_id", Some(id.as_bytes())), ("event_type", Some(event_type.as_bytes()))];
        topic.write(Some("k"), Some(value.as_bytes()), &headers);
    };
    changes(1..=10);
    other("Renamed", r#"{"event_type":"Renamed","to":1}"#);
    changes(11..=12);
    other("Changed", "{");
    changes(13..=20);
    topic.change(Uuid::now_v7(), "other", 1);
    topic.flush();
    let (gate, log, observed) = (Arc::new(Semaphore::new(0)), Log::default(), Log::default());
    let handler = Arc::new(Versions { gate: Arc::clone(&gate), log: log.clone() });
    let mut config = topic.config("typedbatches");
    config.retry.initial_backoff = std::time::Duration::from_millis(1);
    let consumer = Consumer::batches(config, 100, typed_batch(handler)).with_observer(observed.clone());
    let member = Member::run(consumer);
    // It comes after all others: they are buffered.
    log.wait_for("other", 1);
    gate.close();
    wait_until("every offset", || topic.committed("typedbatches") == [23]);
    member.stop().unwrap();
    let batches = log.lines().join(" ").replace("other ", "");
    let versions: Vec<i64> =
        batches.split(|char: char| !char.is_ascii_digit()).filter_map(|it| it.parse().ok()).collect();
    let expected: Vec<i64> = (1..=6).chain([7]).chain(7..=20).collect();
    assert_eq!(versions, expected, "7 is named when it fails, too: {batches}");
    for whole in ["[7]", "[8, 9, 10]", "[11, 12]", "[13, 14, 15, 16, 17, 18, 19, 20]"] {
        assert!(batches.contains(whole), "{whole} in {batches}");
    }
    let dead_lettered = "dead-lettered typedbatches[0]@13 cannot decode event \"Changed\": the payload is not JSON";
    assert_eq!((observed.count("skip"), observed.count(dead_lettered)), (1, 1), "{:?}", observed.lines());
    assert_eq!((observed.count("ack"), observed.count("retry")), (21, 1), "{:?}", observed.lines());
}
