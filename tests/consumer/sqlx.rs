//! A handler on sqlx: the event, its effect and the next event are committed together.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use sqlx::PgPool;
use tokio::sync::OnceCell;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox::Inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::consumer::typed;
use walrelay_events::event::Envelope;
use walrelay_events::outbox::Columns;
use walrelay_events::outbox::Outbox;

use super::stage::Effects;
use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;

/// How many events there are, each of them published twice.
const EVENTS: i64 = 60;

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(tag = "event_type")]
enum Event {
    Changed { key: String, version: i64 },
}

/// An application with its tables in a schema of its own.
struct Application {
    url: String,
    pool: OnceCell<PgPool>,
    inbox: Inbox,
    outbox: Outbox,
    attempts: AtomicUsize,
}

impl Application {
    async fn handle(self: Arc<Self>, received: Received<Event>) -> Result<Outcome, Failure> {
        let Payload::Event(Event::Changed { key, version }) = received.event else {
            return Ok(Outcome::dead_letter("not a change"));
        };
        let mut tx = self.pool.get_or_try_init(|| PgPool::connect(&self.url)).await?.begin().await?;
        if self.inbox.once_sqlx(&mut tx, "shipping", &received.event_id).await? == Once::Duplicate {
            return Ok(Outcome::Ack);
        }
        let insert = sqlx::query("INSERT INTO effects (key, version, event_id) VALUES ($1, $2, $3)");
        insert.bind(&key).bind(version).bind(received.event_id.to_string()).execute(&mut *tx).await?;
        self.outbox
            .append_sqlx(&mut tx, &Envelope::new("Shipment", &key, Event::Changed { key: key.clone(), version }))
            .await?;
        if self.attempts.fetch_add(1, Relaxed).is_multiple_of(3) {
            return Ok(Outcome::retry("it fails after everything was written"));
        }
        tx.commit().await?;
        Ok(Outcome::Ack)
    }
}

#[test]
fn on_sqlx_an_event_with_any_id_takes_effect_and_causes_its_next_event_once() {
    let (topic, effects) = (Topic::create("sqlx-effects", 2), Effects::new());
    let (inbox, outbox) = (Inbox::new("Shop.inbox"), Outbox::new("Shop.events", &Columns::default()));
    let (inbox, outbox) = (inbox.unwrap(), outbox.unwrap());
    effects.sql.run(&inbox.script());
    effects.sql.run(
        "CREATE TABLE \"Shop\".events (id uuid PRIMARY KEY, aggregate_type text, aggregate_id text, event_type text,
             payload jsonb, headers jsonb, created_at timestamptz)",
    );
    for number in 0..EVENTS {
        // Numbers, ULIDs, UUIDs of either case: the relay publishes any of them.
        let id = match number % 3 {
            0 => number.to_string(),
            1 => format!("01ARZ3NDEKTSV4RRFFQ69G5F{number:02}"),
            _ => format!("0190a5c3-7b1e-7d3a-9f00-2c8e6a1b4d{number:02}"),
        };
        let (key, version) = (format!("k{}", number % 5), number / 5 + 1);
        let value = format!("{{\"event_type\":\"Changed\",\"key\":\"{key}\",\"version\":{version}}}");
        for id in [&id, &if number % 3 == 2 { id.to_uppercase() } else { id.clone() }] {
            let headers = [("event_id", Some(id.as_bytes())), ("event_type", Some(&b"Changed"[..]))];
            topic.write(Some(&key), Some(value.as_bytes()), &headers);
        }
    }
    topic.flush();
    let application = Arc::new(Application {
        url: effects.postgres.url(),
        pool: OnceCell::new(),
        inbox,
        outbox,
        attempts: AtomicUsize::new(0),
    });
    let log = Log::default();
    let handle = move |received| Arc::clone(&application).handle(received);
    let member = Member::start_observed(topic.config("sqlx-effects"), typed(handle), log.clone());
    log.wait_for("ack", usize::try_from(2 * EVENTS).unwrap());
    member.stop().unwrap();
    assert_eq!(log.count("dead-lettered"), 0, "{:?}", log.lines());
    assert!(log.count("retry") > 10, "{:?}", log.lines());
    effects.check(EVENTS);
    let next = "SELECT count(*) || ' ' || count(DISTINCT (aggregate_id, payload->>'version')) FROM \"Shop\".events";
    assert_eq!(effects.sql.text(next), format!("{EVENTS} {EVENTS}"));
}
