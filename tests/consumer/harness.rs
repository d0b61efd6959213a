//! The harness for applications' tests says what the runtime does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use uuid::Uuid;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::Record;
use walrelay_events::consumer::RetryPolicy;
use walrelay_events::consumer::Router;
use walrelay_events::consumer::typed;
use walrelay_events::testing::Attempt;
use walrelay_events::testing::Harness;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    Changed { key: String },
}

const CHANGED: Option<&str> = Some("Changed");

/// Records with each outcome: key, type and value. Those of a key wait for each other.
const RECORDS: [(&str, Option<&str>, Option<&str>); 11] = [
    ("k1", CHANGED, Some(r#"{"key": "k1", "version": 1}"#)),
    ("k1", CHANGED, Some(r#"{"key": "down", "version": 2}"#)),
    ("k1", CHANGED, Some(r#"{"key": "k1", "version": 3}"#)),
    ("k2", CHANGED, Some(r#"{"key": "never", "version": 1}"#)),
    ("k2", CHANGED, Some(r#"{"key": "panics", "version": 2}"#)),
    ("k2", CHANGED, Some(r#"{"key": "transient", "version": 3}"#)),
    ("k3", CHANGED, Some("not json")),
    ("k3", CHANGED, None),
    ("k3", Some("Odd"), Some("{}")),
    ("k3", None, Some(r#"{"event_type": "Changed", "key": "k3", "version": 1}"#)),
    ("k3", None, Some("{}")),
];

/// A handler that notes its calls.
fn handler(calls: Log) -> impl Handler {
    let has_failed = Arc::new(AtomicBool::new(false));
    let handle = move |received: Received<Event>| {
        let (calls, has_failed) = (calls.clone(), Arc::clone(&has_failed));
        async move {
            calls.note(format!("{} {}", received.aggregate_id.unwrap(), received.previous_attempts));
            tokio::task::yield_now().await;
            match received.event {
                Payload::Event(Event::Changed { key, .. }) => match (key.as_str(), received.previous_attempts) {
                    ("down", 0 | 1) => Outcome::retry("down"),
                    ("never", _) => Outcome::retry("it cannot be"),
                    ("panics", 0) => panic!("a bug in the handler"),
                    ("transient", _) if !has_failed.swap(true, Relaxed) => Outcome::transient("40001"),
                    (_, _) => Outcome::Ack,
                },
                Payload::Unknown(_) => Outcome::dead_letter("unknown"),
                Payload::Tombstone | _ => Outcome::dead_letter("a tombstone"),
            }
        }
    };
    Router::new().on("Changed", typed(handle))
}

fn of_key(calls: &Log, key: &str) -> Vec<String> {
    calls.lines().into_iter().filter(|line| line.starts_with(key)).collect()
}

#[test]
fn a_harness_reports_for_each_record_what_the_runtime_does_with_it() {
    let topic = Topic::create("harness", 1);
    let id = Uuid::now_v7().to_string();
    let mut records = Vec::new();
    for (offset, (key, event_type, value)) in (0..).zip(RECORDS) {
        let mut headers: Vec<(&str, Option<&[u8]>)> = vec![("event_id", Some(id.as_bytes()))];
        headers.extend(event_type.map(|event_type| ("event_type", Some(event_type.as_bytes()))));
        let value = value.map(str::as_bytes);
        topic.write(Some(key), value, &headers);
        records.push(Record::new(&topic.name, 0, offset, Some(key.as_bytes()), value, &headers));
    }
    topic.flush();
    let (log, calls) = (Log::default(), Log::default());
    let mut config = topic.config("harness");
    config.retry.max_attempts = 3;
    let member = Member::start_observed(config, handler(calls.clone()), log.clone());
    wait_until("all of them", || topic.committed("harness") == [11]);
    member.stop().unwrap();

    let dry = Log::default();
    let mut policy = RetryPolicy::default();
    policy.max_attempts = 3;
    let harness = Harness::new(handler(dry.clone())).retry(policy);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reports = runtime.block_on(harness.run(records));

    for key in ["k1", "k2", "k3"] {
        assert_eq!(of_key(&calls, key), of_key(&dry, key));
    }
    for (offset, report) in reports.iter().enumerate() {
        let place = format!("harness[0]@{offset}");
        // A harness reports both kinds of retries alike.
        let word = |word: &str| word.trim().replace("transient", "retry");
        let parse = |line: &String| line.split_once(&place).map(|(left, rest)| (word(left), rest.to_owned()));
        let noted: Vec<(String, String)> =
            log.lines().iter().filter_map(parse).filter(|(_, rest)| !rest.starts_with(char::is_numeric)).collect();
        let mut expected = Vec::new();
        for attempt in &report.attempts {
            let word = match attempt {
                Attempt::Ack => "ack",
                Attempt::Retry { .. } | Attempt::Panic { .. } => "retry",
                Attempt::Skip { .. } => "skip",
                Attempt::DeadLetter { .. } => "dead_letter",
                Attempt::Stop { .. } | _ => panic!("an unknown {attempt:?}"),
            };
            expected.push((word.to_owned(), String::new()));
        }
        expected.extend(report.dead_letter_reason().map(|reason| ("dead-lettered".to_owned(), format!(" {reason}"))));
        assert_eq!(noted, expected, "{place}");
    }
    let texts: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let expected = [
        "ack",
        "retry: down; retry: down; ack",
        "ack",
        "retry: it cannot be; retry: it cannot be; dead-letter: after 3 attempts: it cannot be",
        "panic; ack",
        "retry: 40001; ack",
    ];
    assert_eq!(texts[..6], expected);
    assert_eq!(texts[8], "skip: no handler for event type \"Odd\"");
}

#[test]
fn a_record_that_is_never_done_delays_its_key_and_no_other() {
    let transient = |_: walrelay_events::consumer::Delivery| async { Outcome::transient("40001") };
    let router = Router::new().on("Stuck", transient).otherwise(|_: walrelay_events::consumer::Delivery| async {});
    let record = |key: &str, event_type: &str| {
        Record::new("t", 0, 0, Some(key.as_bytes()), None, &[("event_type", Some(event_type.as_bytes()))])
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let harness = Harness::new(router);
    let reports = runtime.block_on(harness.run([record("a", "Stuck"), record("a", "Other"), record("b", "Other")]));
    assert!(!reports[0].is_acked() && reports[0].attempts.len() > 10);
    assert_eq!((reports[1].attempts.len(), reports[2].is_acked()), (0, true));
}
