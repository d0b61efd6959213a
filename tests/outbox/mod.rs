//! The application's writer: a real PostgreSQL, the real relay, a real Kafka.

mod append;
mod sqlx;
mod trace;
mod tree;
mod trips;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use walrelay_events::event;
use walrelay_events::event::Decoded;
use walrelay_events::event::Envelope;
use walrelay_events::testing;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::source::Sql;

/// What the tests write.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event_type")]
enum OrderEvent {
    OrderCreated { customer: String, total_cents: i64 },
    OrderShipped { parcels: Vec<String> },
}

fn created(number: i64) -> OrderEvent {
    OrderEvent::OrderCreated { customer: "Zoë \"\\ 家".to_owned(), total_cents: number }
}

/// An application beside a running relay; the topic is the test's own.
pub struct Application {
    program: Program,
    sql: Sql,
    topic: String,
    pub runtime: Runtime,
    pub client: Client,
    postgres: Postgres,
}

impl Application {
    pub fn start(topic: &str) -> Self {
        Self::start_with(topic, "table = \"public.outbox_events\"", "")
    }

    /// With a table of its own, which `sql` makes and `outbox` names.
    fn start_with(topic: &str, outbox: &str, sql: &str) -> Self {
        let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
        kafka.create_topic(topic, 3);
        let (runtime, client) = connect(&postgres.url());
        let own = Sql::connect(&postgres.url());
        own.run(sql);
        let config = format!("[[outbox]]\ntopic = \"{topic}\"\n{outbox}");
        let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &config);
        if sql.is_empty() {
            program.setup();
        } else {
            let ended = program.verb(&["setup", "--apply"]);
            assert_eq!(ended.code, Some(0), "{}", ended.notes);
        }
        program.start_streaming();
        Self { program, sql: own, topic: topic.to_owned(), runtime, client, postgres }
    }

    /// Waits until everything that was committed is delivered, and reads it.
    pub fn records(&self) -> Vec<Record> {
        self.sql.await_all_confirmed(Duration::from_secs(30));
        let mut records = reader::read_all(&Kafka::shared().bootstrap(), &self.topic);
        records.sort_by_key(|record| (record.partition, record.offset));
        assert_eq!(self.program.metric("walrelay_events_published_total"), Some(records.len() as f64));
        records
    }
}

/// Connects as an application does. The runtime drives the connection whenever it is used.
fn connect(url: &str) -> (Runtime, Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).unwrap();
    runtime.spawn(connection);
    (runtime, client)
}

/// Insists that a record is what an envelope says.
fn assert_is(record: &Record, envelope: &Envelope<OrderEvent>) {
    assert_eq!(record.event_id(), envelope.event_id.to_string());
    assert_eq!(record.key.as_deref(), Some(envelope.aggregate_id.as_bytes()));
    let decoded = event::decode(record.header(event::EVENT_TYPE), record.value.as_deref().unwrap());
    assert_eq!(decoded, Ok(Decoded::Known(envelope.event.clone())));
    assert_eq!(record.header(event::AGGREGATE_TYPE), Some(envelope.aggregate_type.as_str()));
    assert_eq!(record.header(event::OCCURRED_AT), event::format_rfc3339(envelope.occurred_at).as_deref());
    let produced = event::parse_rfc3339(record.header(event::PRODUCED_AT).unwrap()).unwrap();
    assert!(produced >= event::parse_rfc3339(record.header(event::OCCURRED_AT).unwrap()).unwrap());
    assert_eq!(event::TraceContext::from_headers(|name| record.header(name)), envelope.trace);
    assert_is_what_a_harness_is_given(record, envelope);
}

/// Insists that an application's own tests see the record that its consumers will.
fn assert_is_what_a_harness_is_given(record: &Record, envelope: &Envelope<OrderEvent>) {
    let made = testing::record(envelope).unwrap();
    assert_eq!(made.key(), record.key.as_deref());
    let mut names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    let mut made_names: Vec<&str> = made.headers().map(|(name, _)| name).collect();
    names.sort_unstable();
    made_names.sort_unstable();
    assert_eq!(made_names, names);
    for name in names.into_iter().filter(|name| *name != event::PRODUCED_AT) {
        assert_eq!(made.header(name), record.header(name), "{name}");
    }
}
