//! The harness for applications' tests says what the runtime does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use uuid::Uuid;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Policy;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::Record;
use walrelay_events::consumer::Router;
use walrelay_events::consumer::typed;
use walrelay_events::testing::Harness;
use walrelay_events::testing::Step;

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

/// Records with each fate there is: key, type and value. Those of a key stand in each other's way.
const RECORDS: [(&str, Option<&str>, Option<&str>); 11] = [
    ("k1", CHANGED, Some(r#"{"key": "k1", "version": 1}"#)),
    ("k1", CHANGED, Some(r#"{"key": "away", "version": 2}"#)),
    ("k1", CHANGED, Some(r#"{"key": "k1", "version": 3}"#)),
    ("k2", CHANGED, Some(r#"{"key": "never", "version": 1}"#)),
    ("k2", CHANGED, Some(r#"{"key": "panics", "version": 2}"#)),
    ("k2", CHANGED, Some(r#"{"key": "again", "version": 3}"#)),
    ("k3", CHANGED, Some("not json")),
    ("k3", CHANGED, None),
    ("k3", Some("Odd"), Some("{}")),
    ("k3", None, Some(r#"{"event_type": "Changed", "key": "k3", "version": 1}"#)),
    ("k3", None, Some("{}")),
];

/// A handler whose calls are noted, those of each key in their order.
fn handler(calls: Log) -> impl Handler {
    let has_begun_again = Arc::new(AtomicBool::new(false));
    let handle = move |received: Received<Event>| {
        let (calls, has_begun_again) = (calls.clone(), Arc::clone(&has_begun_again));
        async move {
            calls.note(format!("{} {}", received.aggregate_id.unwrap(), received.tries));
            tokio::task::yield_now().await;
            match received.event {
                Payload::Event(Event::Changed { key, .. }) => match (key.as_str(), received.tries) {
                    ("away", 0 | 1) => Outcome::retry("away"),
                    ("never", _) => Outcome::retry("it cannot be"),
                    ("panics", 0) => panic!("a bug in the handler"),
                    ("again", _) if !has_begun_again.swap(true, Relaxed) => {
                        Outcome::Again { reason: "40001".to_owned() }
                    }
                    (_, _) => Outcome::Done,
                },
                Payload::Unknown(_) => Outcome::reject("unknown"),
                Payload::Tombstone => Outcome::reject("a tombstone"),
            }
        }
    };
    Router::new().on("Changed", typed(handle))
}

fn of_key(calls: &Log, key: &str) -> Vec<String> {
    calls.lines().into_iter().filter(|line| line.starts_with(key)).collect()
}

#[test]
fn a_harness_says_of_each_record_what_the_runtime_does_with_it() {
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
    let mut config = topic.config("g");
    config.retry.tries_max = 3;
    let member = Member::start_observed(config, handler(calls.clone()), log.clone());
    wait_until("all of them", || topic.committed("g") == [11]);
    member.stop().unwrap();

    let dry = Log::default();
    let harness = Harness::new(handler(dry.clone())).retry(Policy { tries_max: 3, ..Policy::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let became = runtime.block_on(harness.run(records));

    for key in ["k1", "k2", "k3"] {
        assert_eq!(of_key(&calls, key), of_key(&dry, key));
    }
    for (offset, became) in became.iter().enumerate() {
        let place = format!("harness[0]@{offset}");
        let told =
            |line: &String| line.split_once(&place).map(|(word, rest)| (word.trim().to_owned(), rest.to_owned()));
        let told: Vec<(String, String)> =
            log.lines().iter().filter_map(told).filter(|(_, rest)| !rest.starts_with(char::is_numeric)).collect();
        let mut expected = Vec::new();
        for step in &became.steps {
            let word = match step {
                Step::Done => "Done",
                Step::Retried { .. } | Step::Panicked { .. } => "Retried",
                Step::Rejected { .. } => "Rejected",
            };
            expected.push((word.to_owned(), String::new()));
        }
        expected.extend(became.rejected().map(|reason| ("letter".to_owned(), format!(" {reason}"))));
        assert_eq!(told, expected, "{place}");
    }
    let told: Vec<String> = became.iter().map(ToString::to_string).collect();
    let expected = [
        "done",
        "retried: away; retried: away; done",
        "done",
        "retried: it cannot be; retried: it cannot be; rejected: after 3 tries: it cannot be",
        "panicked; done",
        "retried: 40001; done",
    ];
    assert_eq!(told[..6], expected);
    assert_eq!(told[8], "rejected: no handler for events of type \"Odd\"");
}

#[test]
fn what_is_never_done_holds_back_its_key_and_no_other() {
    let again = |_: walrelay_events::consumer::Delivery| async { Outcome::Again { reason: "40001".to_owned() } };
    let router = Router::new().on("Stuck", again).otherwise(|_: walrelay_events::consumer::Delivery| async {});
    let record = |key: &str, event_type: &str| {
        Record::new("t", 0, 0, Some(key.as_bytes()), None, &[("event_type", Some(event_type.as_bytes()))])
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let harness = Harness::new(router);
    let became = runtime.block_on(harness.run([record("a", "Stuck"), record("a", "Other"), record("b", "Other")]));
    assert!(!became[0].is_done() && became[0].steps.len() > 10);
    assert_eq!((became[1].steps.len(), became[2].is_done()), (0, true));
}
