//! Handlers of every kind, and events of types that they do not know.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use uuid::Uuid;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::EventHandler;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::Json;
use walrelay_events::consumer::OnUnknown;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Prometheus;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::Record;
use walrelay_events::consumer::Router;
use walrelay_events::consumer::typed;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::prometheus::Registry;
use walrelay_events::testing::Harness;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    Changed { version: i64 },
}

/// Adds up the versions of all events.
#[derive(Default)]
struct Sum(AtomicI64);

impl EventHandler<Event> for Sum {
    async fn handle(&self, received: Received<Event>) -> Result<Outcome, Failure> {
        let Payload::Event(Event::Changed { version }) = received.event else {
            return Err(Failure::dead_letter("not a change"));
        };
        self.0.fetch_add(version, Relaxed);
        Ok(Outcome::Ack)
    }
}

/// Counts calls, with the records as they are.
#[derive(Default)]
struct Calls(AtomicI64);

impl Handler for Calls {
    async fn handle(&self, _: Delivery) -> Outcome {
        self.0.fetch_add(1, Relaxed);
        Outcome::Ack
    }
}

/// A topic with an event of a type that only its producer knows, between two others.
fn extended(name: &str) -> Topic {
    let topic = Topic::create(name, 1);
    let id = Uuid::now_v7().to_string();
    topic.change(Uuid::now_v7(), "k", 1);
    topic.write(
        Some("k"),
        Some(br#"{"event_type": "Renamed", "to": 1}"#),
        &[("event_id", Some(id.as_bytes())), ("event_type", Some(b"Renamed"))],
    );
    topic.change(Uuid::now_v7(), "k", 2);
    topic.flush();
    topic
}

fn skips(name: &str, handler: impl Handler) {
    let topic = extended(name);
    let registry = Registry::new();
    let metrics = Prometheus::register(&registry, "g").unwrap();
    let member = Member::run(Consumer::new(topic.config(&topic.name), handler).with_observer(metrics));
    wait_until("every offset", || topic.committed(&topic.name) == [3]);
    member.stop().unwrap();
    let skipped = registry.gather().into_iter().find(|it| it.name() == "walrelay_consumer_skipped_total").unwrap();
    assert_eq!(skipped.get_metric()[0].get_counter().get_value(), 1.0);
}

#[test]
fn an_event_of_a_new_type_is_skipped_and_counted_by_typed() {
    let sum = Arc::new(Sum::default());
    skips("newtyped", typed(Arc::clone(&sum)));
    assert_eq!(sum.0.load(Relaxed), 3);
}

#[test]
fn an_event_of_a_new_type_is_skipped_and_counted_by_a_router() {
    let calls = Arc::new(Calls::default());
    skips("newrouted", Router::new().on("Changed", Arc::clone(&calls)));
    assert_eq!(calls.0.load(Relaxed), 2);
}

#[test]
fn a_consumer_that_stops_at_unknown_types_commits_nothing_past_them() {
    let topic = extended("stops");
    let handler = typed(Sum::default()).on_unknown(OnUnknown::Stop);
    let error = Member::start(topic.config(&topic.name), handler).join().unwrap_err();
    assert_eq!(error.code().to_string(), "WR-6872");
    let Error::HandlerStopped { record, reason } = error else { panic!("{error}") };
    assert_eq!((record.as_str(), reason.as_str()), ("stops[0]@1", "no handler for event type \"Renamed\""));
    assert_eq!(topic.committed(&topic.name), [1]);
    // An application that knows the type continues there.
    let log = Log::default();
    let member = Member::start_observed(topic.config(&topic.name), |_: Delivery| async {}, log.clone());
    wait_until("the rest", || topic.committed(&topic.name) == [3]);
    member.stop().unwrap();
    assert_eq!(log.count("ack"), 2);
}

#[tokio::test]
async fn a_router_selects_by_topic_then_by_type_and_formats_differ_by_topic() {
    let (sum, calls) = (Arc::new(Sum::default()), Arc::new(Calls::default()));
    let debezium = typed(Arc::clone(&sum)).with_codec(Json::with_headers("id", "eventType"));
    let router = Router::new()
        .on_topic("outbox.event.order", debezium)
        .on_topic("audit", Arc::clone(&calls))
        .on("Changed", typed(Arc::clone(&sum)))
        .on_unknown(OnUnknown::DeadLetter);
    let value = br#"{"version": 5}"#;
    let record = |topic: &str, id: &str, type_header: &str, event_type: &str| {
        let headers = [(id, Some(b"42".as_slice())), (type_header, Some(event_type.as_bytes()))];
        Record::new(topic, 0, 0, Some(topic.as_bytes()), Some(value), &headers)
    };
    let records = [
        record("outbox.event.order", "id", "eventType", "Changed"),
        record("audit", "id", "eventType", "Any"),
        record("order-events", "event_id", "event_type", "Changed"),
        record("other-events", "event_id", "event_type", "Renamed"),
        record("outbox.event.order", "event_id", "eventType", "Changed"),
    ];
    let reports = Harness::new(router).run(records).await;
    let texts: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let unknown = "dead-letter: no handler for event type \"Renamed\"";
    assert_eq!(texts, ["ack", "ack", "ack", unknown, "dead-letter: the record has no id header"]);
    assert_eq!((sum.0.load(Relaxed), calls.0.load(Relaxed)), (10, 1));
}
