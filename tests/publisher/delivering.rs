//! What is published arrives, looks as if it was relayed, and is in order.

use std::time::Duration;
use std::time::SystemTime;

use walrelay_events::event;
use walrelay_events::event::Envelope;
use walrelay_events::event::TraceContext;
use walrelay_events::outbox;
use walrelay_events::publisher::Error;
use walrelay_events::publisher::Publisher;

use super::all;
use super::block_on;
use super::config;
use super::enqueue;
use super::padded;
use super::publisher;
use super::read;
use crate::outbox::Application;
use crate::support::kafka::Kafka;
use crate::support::reader;
use crate::support::reader::Truth;

#[test]
fn an_event_is_in_the_topic_when_publish_returns() {
    let kafka = Kafka::shared();
    kafka.create_topic("published", 3);
    let (published, keyless) = block_on(async {
        let publisher = publisher(kafka);
        let published = publisher.publish("published", "m-1", &read(7)).await.unwrap();
        let keyless = publisher.publish("published", "", &read(8)).await.unwrap();
        publisher.close().await.unwrap();
        (published, keyless)
    });
    let records = reader::read_all(&kafka.bootstrap(), "published");
    let record = |published: &walrelay_events::publisher::Published| {
        let is_it =
            |record: &&reader::Record| (record.partition, record.offset) == (published.partition, published.offset);
        records.iter().find(is_it).unwrap()
    };
    let record_of_key = record(&published);
    assert_eq!(record_of_key.event_id(), published.event_id.to_string());
    assert_eq!(record_of_key.key.as_deref(), Some(b"m-1".as_slice()));
    assert_eq!(super::number(record_of_key), 7);
    assert_eq!(record(&keyless).key, None);
    assert_eq!(records.len(), 2);
}

#[test]
fn a_published_event_has_the_headers_of_a_relayed_one() {
    let mut app = Application::start("relayed");
    Kafka::shared().create_topic("not-relayed", 3);
    let trace = TraceContext::new(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        Some("congo=t61rcWkgMzE"),
        Some("user=7"),
    );
    let traced = Envelope::new("Meter", "m-1", read(1)).with_trace(trace.ok());
    let untraced = Envelope::new("Meter", "m-2", read(2)).with_trace(None);
    let envelopes = [traced, untraced];
    let before = SystemTime::now() - Duration::from_millis(1);
    app.runtime.block_on(async {
        let tx = app.client.transaction().await.unwrap();
        outbox::append_many(&tx, &envelopes).await.unwrap();
        tx.commit().await.unwrap();
        let publisher = publisher(Kafka::shared());
        for envelope in &envelopes {
            publisher.publish_envelope("not-relayed", envelope).await.unwrap();
        }
        publisher.close().await.unwrap();
    });
    let relayed = app.records();
    let published = reader::read_all(&Kafka::shared().bootstrap(), "not-relayed");
    assert_eq!((relayed.len(), published.len()), (2, 2));
    for published in &published {
        let relayed = relayed.iter().find(|relayed| relayed.key == published.key).unwrap();
        assert_eq!(relayed.partition, published.partition);
        let names = |record: &reader::Record| record.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(relayed), names(published), "the same headers in the same order");
        for (name, text) in published.headers.iter().filter(|(name, _)| name != event::PRODUCED_AT) {
            assert_eq!(relayed.header(name), Some(text.as_str()), "{name}");
        }
        for record in [relayed, published] {
            let produced_at = record.header(event::PRODUCED_AT).unwrap();
            assert_eq!(produced_at.len(), "2026-01-01T00:00:00.000001Z".len());
            let time = event::parse_rfc3339(produced_at).unwrap();
            assert!(time > before && time < SystemTime::now());
            let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
            assert_eq!(record.timestamp_millis, i64::try_from(millis).ok());
        }
        let json = |record: &reader::Record| -> serde_json::Value {
            serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
        };
        assert_eq!(json(relayed), json(published));
    }
}

#[test]
fn events_of_a_key_are_in_the_order_in_which_they_were_enqueued() {
    const KEYS: usize = 20;
    let kafka = Kafka::shared();
    kafka.create_topic("batched", 4);
    let truth: Truth = block_on(async {
        let publisher = publisher(kafka);
        let published = all(enqueue(&publisher, "batched", 0..5_000, KEYS).await).await;
        publisher.flush().await.unwrap();
        publisher.close().await.unwrap();
        let mut truth = Truth::new();
        for (number, published) in published.iter().enumerate() {
            truth.entry(format!("m{}", number % KEYS)).or_default().push(published.event_id.to_string());
        }
        truth
    });
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "batched"), &truth, 4);
    assert_eq!((verdict.events, verdict.repeated), (5_000, 0));
}

#[test]
fn a_call_waits_for_room_and_is_certain_that_what_had_none_is_not_in_kafka() {
    let mut kafka = Kafka::start(1);
    kafka.create_topic("full", 1);
    kafka.kill(0);
    let mut config = config(&kafka);
    config.max_in_flight_bytes = 4_000;
    let publisher = Publisher::new(config.clone()).unwrap();
    let error = block_on(async {
        // Each counts more than half of it.
        let first = publisher.enqueue("full", "k", &padded(1, 2_000)).await.unwrap();
        let event = padded(2, 2_000);
        let mut second = Box::pin(publisher.enqueue("full", "k", &event));
        let waited = tokio::time::timeout(Duration::from_millis(500), &mut second).await;
        assert!(waited.is_err(), "there is no room");
        kafka.resume(0);
        let second = second.await.unwrap();
        assert_eq!((first.await.unwrap().offset, second.await.unwrap().offset), (0, 1));
        publisher.publish("full", "k", &padded(3, 8_000)).await.unwrap();
        publisher.close().await.unwrap();

        kafka.kill(0);
        config.delivery_timeout = Duration::from_secs(1);
        let publisher = Publisher::new(config).unwrap();
        let late = publisher.enqueue("full", "k", &padded(4, 2_000)).await.unwrap();
        let error = publisher.publish("full", "k", &padded(5, 2_000)).await.unwrap_err();
        let late = late.await.unwrap_err();
        assert!(matches!(&late, Error::NotAcknowledged { .. }) && late.may_be_delivered(), "{late}");
        error
    });
    assert!(matches!(error, Error::NotSent { .. }) && !error.may_be_delivered(), "{error}");
    kafka.resume(0);
    assert_eq!(super::numbers(&kafka.bootstrap(), "full"), [1, 2, 3]);
}
