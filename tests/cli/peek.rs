//! What is pending is shown as the records that it will be, and nothing is consumed.

use std::time::Duration;

use serde_json::Value;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::source::Sql;

const SLOT: &str = "SELECT concat_ws(' ', restart_lsn, confirmed_flush_lsn, active) FROM pg_replication_slots";
const UNPUBLISHED: &str = "SELECT count(*)::text FROM outbox_events WHERE published_at IS NULL";

/// A program that is set up, and its server.
struct Stage {
    _postgres: Postgres,
    program: Program,
    sql: Sql,
}

impl Stage {
    fn new(brokers: &str, more: &str) -> Self {
        let postgres = Postgres::start(Options::default()).unwrap();
        let program = Program::new(&postgres.url(), brokers, more);
        program.setup();
        let sql = Sql::connect(&postgres.url());
        Self { _postgres: postgres, program, sql }
    }

    /// Without Kafka: `peek` does not need it.
    fn alone() -> Self {
        Self::new("127.0.0.1:1", "")
    }

    fn insert(&self, aggregate: &str, count: u32) {
        self.sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, headers)
             SELECT '{aggregate}', 'k-' || i, 'Changed', jsonb_build_object('i', i, 'text', E'\\u00fc\\n'),
                    '{{\"traceparent\": \"00-ab\", \"more\": [1]}}' FROM generate_series(1, {count}) i"
        ));
    }

    fn peek(&self, more: &[&str]) -> Ended {
        self.program.verb(&[&["peek"], more].concat())
    }

    fn peek_json(&self, more: &[&str]) -> Vec<Value> {
        let ended = self.peek(&[&["-o", "json"], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A value of the JSON as bytes.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(text) = value.as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let hex = value.get("hex")?.as_str().unwrap();
    Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
}

/// Compares what `peek` has shown with what Kafka has.
fn assert_same(peeked: &[Value], published: &[Record], topic: &str) {
    assert_eq!(peeked.len(), published.len(), "{peeked:?} {published:?}");
    for (peeked, published) in peeked.iter().zip(published) {
        assert_eq!(peeked["topic"], topic);
        assert_eq!(bytes(&peeked["key"]), published.key, "{peeked}");
        assert_eq!(bytes(&peeked["value"]), published.value, "{peeked}");
        assert_eq!(peeked["timestamp_millis"].as_i64(), published.timestamp_millis, "{peeked}");
        assert_eq!(peeked["event_id"], published.event_id());
        let headers: Vec<(String, String)> = serde_json::from_value(peeked["headers"].clone()).unwrap();
        assert_eq!(headers, published.headers, "{peeked}");
    }
}

#[test]
fn peek_shows_byte_for_byte_what_run_publishes_and_consumes_nothing() {
    let kafka = Kafka::shared();
    kafka.create_topic("peeked-events", 1);
    let mut stage = Stage::new(&kafka.bootstrap(), "");
    assert_eq!(stage.peek(&[]).notes, "no event is pending behind slot walrelay\n");
    stage.insert("Peeked", 3);
    stage.insert("Peeked", 1);
    stage.sql.run(
        "BEGIN; INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
                VALUES ('Peeked', 'undone', 'Changed', '{}'); ROLLBACK",
    );
    let before = stage.sql.text(SLOT);
    let peeked = stage.peek_json(&[]);
    assert_eq!(stage.peek_json(&[]), peeked, "the second time too");
    assert_eq!(stage.sql.text(SLOT), before);
    assert_eq!(kafka.end_of("peeked-events"), 0);
    stage.program.start_streaming();
    stage.sql.await_all_confirmed(Duration::from_secs(15));
    assert_same(&peeked, &reader::read_all(&kafka.bootstrap(), "peeked-events"), "peeked-events");
    assert_eq!(stage.program.terminate(), Some(0), "{}", stage.program.log());
    assert_eq!(stage.peek(&[]).out, "");
}

#[test]
fn peek_shows_bytes_that_are_no_text() {
    let kafka = Kafka::shared();
    kafka.create_topic("peeked-bytes", 1);
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "CREATE TABLE outbox_events (id uuid DEFAULT gen_random_uuid(), aggregate_type text, aggregate_id text,
                                     event_type text, payload bytea)",
    );
    let more = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"peeked-bytes\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    assert_eq!(program.verb(&["setup", "--apply"]).code, Some(0));
    sql.run(
        r"INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
          VALUES ('A', 'k', 'E', '\x00ff1b'), ('A', '', 'E', NULL)",
    );
    let ended = program.verb(&["peek", "-o", "json"]);
    let peeked: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&peeked[0]["value"]["hex"], &peeked[1]["value"]), (&"00ff1b".into(), &Value::Null), "{ended:?}");
    let human = program.verb(&["peek"]).out;
    assert!(human.contains("(tombstone)") && human.contains("(no key)") && !human.contains('\x1b'), "{human}");
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_same(&peeked, &reader::read_all(&kafka.bootstrap(), "peeked-bytes"), "peeked-bytes");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn peek_shows_the_first_events_of_a_large_transaction_and_says_that_more_follow() {
    let stage = Stage::alone();
    // Transactions without an event come first, and they are messages before PostgreSQL 15.
    stage.sql.run("CREATE TABLE other (a int)");
    for _ in 0..300 {
        stage.sql.run("INSERT INTO other VALUES (1)");
    }
    stage.insert("Order", 20_000);
    let ended = stage.peek(&["--limit", "3"]);
    assert_eq!(ended.out.lines().filter(|line| line.starts_with("order-events  key k-")).count(), 3, "{ended:?}");
    assert_eq!(ended.notes, "the first 3 events pending behind slot walrelay; more follow (--limit)\n");
    assert_eq!(stage.peek_json(&["--limit", "3"]).len(), 3);
    assert_eq!(stage.peek_json(&["--limit", "100000"]).len(), 20_000);
    assert_eq!(stage.peek(&["--limit", "0"]).code, Some(2));
}

#[test]
fn peek_shows_nothing_that_the_stored_position_has_as_delivered() {
    let stage = Stage::alone();
    stage.insert("Order", 2);
    // As after a crash of the server, which forgets where its slot was.
    stage.sql.run("UPDATE walrelay.position SET position = pg_current_wal_insert_lsn()");
    stage.insert("Order", 1);
    assert_eq!(stage.peek_json(&[]).len(), 1);
}

#[test]
fn peek_shows_an_event_that_cannot_be_published_and_those_after_it() {
    let stage = Stage::alone();
    stage.insert("Order", 1);
    stage.insert("no topic\u{1b}", 1);
    stage.insert("Order", 1);
    let peeked = stage.peek_json(&[]);
    let codes: Vec<&Value> = peeked.iter().map(|event| &event["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &"WR-6801".into(), &Value::Null]);
    let human = stage.peek(&[]).out;
    assert!(human.contains("cannot be published  commit ") && human.contains("WR-6801: "), "{human}");
    assert!(!human.contains('\x1b'), "{human}");
}

#[test]
fn while_a_relay_runs_peek_names_it_and_the_relay_goes_on() {
    let broker = Broker::start(1).unwrap();
    broker.create_topic("order-events", 1).unwrap();
    let mut stage = Stage::new(&broker.bootstrap(), "");
    stage.program.start_streaming();
    let ended = stage.peek(&[]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(69), ""), "{ended:?}");
    for expected in ["error[WR-6904]", "in use by \"walrelay\" (PID ", "127.0.0.1)", " tail` shows what it publishes"] {
        assert!(ended.notes.contains(expected), "{expected} in {}", ended.notes);
    }
    stage.insert("Order", 1);
    stage.sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(stage.program.terminate(), Some(0), "{}", stage.program.log());
    assert_eq!(stage.peek(&[]).code, Some(0));
}

#[test]
fn what_stops_run_stops_peek_with_the_same_code() {
    let stage = Stage::alone();
    stage.sql.run("ALTER PUBLICATION walrelay SET (publish = 'update')");
    let ended = stage.peek(&[]);
    assert!(ended.code == Some(65) && ended.notes.contains("WR-6503"), "{ended:?}");
    stage.sql.run("SELECT pg_drop_replication_slot('walrelay')");
    stage.sql.run("ALTER PUBLICATION walrelay SET (publish = 'insert')");
    let ended = stage.peek(&[]);
    assert!(ended.code == Some(66) && ended.notes.contains("WR-6601"), "{ended:?}");
}

#[test]
fn in_mode_poll_peek_shows_the_unpublished_rows_without_waiting_for_locks() {
    let kafka = Kafka::shared();
    kafka.create_topic("peeked-rows", 1);
    let more = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"peeked-rows\"\n\n[source]\nmode = \"poll\"\n";
    let mut stage = Stage::new(&kafka.bootstrap(), more);
    assert_eq!(stage.peek(&[]).notes, "no event is pending in the outbox\n");
    stage.insert("Order", 4);
    stage.sql.run("BEGIN; SELECT * FROM outbox_events FOR UPDATE");
    let peeked = stage.peek_json(&[]);
    assert_eq!(peeked.iter().map(|row| row["key"].as_str().unwrap()).collect::<Vec<_>>(), ["k-1", "k-2", "k-3", "k-4"]);
    assert!(peeked.iter().all(|row| row["sequence"].is_i64()), "{peeked:?}");
    stage.sql.run("COMMIT");
    let ended = stage.peek(&["--limit", "2"]);
    assert_eq!(ended.notes, "the first 2 events pending in the outbox; more follow (--limit)\n");
    assert_eq!(stage.sql.text(UNPUBLISHED), "4");
    stage.program.start_streaming();
    stage.program.await_that("an empty outbox", |_| stage.sql.text(UNPUBLISHED) == "0");
    let mut published = reader::read_all(&kafka.bootstrap(), "peeked-rows");
    published.sort_by_key(|record| record.key.clone());
    assert_same(&peeked, &published, "peeked-rows");
    assert_eq!(stage.program.terminate(), Some(0), "{}", stage.program.log());
    assert_eq!(stage.peek(&[]).notes, "no event is pending in the outbox\n");
}
