//! Events that may have been omitted are a gap; accepting a gap skips nothing that can be delivered.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::catalog_check::accept;
use super::catalog_check::ends;
use super::catalog_check::sql_of;
use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const LIMIT: Duration = Duration::from_secs(30);
const CREATE: &str =
    "CREATE PUBLICATION walrelay FOR TABLE outbox_events WITH (publish = 'insert', publish_via_partition_root = true)";

pub(super) fn version(sql: &Sql) -> u32 {
    sql.text("SELECT current_setting('server_version_num')").parse().unwrap()
}

/// Emits an event, and gives its id.
fn emit(sql: &Sql, key: &str) -> String {
    sql.run(&format!("SELECT emit('{key}')"));
    sql.text(&format!("SELECT event_id::text FROM truth WHERE key = '{key}' ORDER BY version DESC LIMIT 1"))
}

/// Waits until everything so far is confirmed. A later write of the relay itself is confirmed only after writes of
/// others.
pub(super) fn await_all(sql: &Sql) {
    let end = sql.wal_end();
    sql.run("SELECT txid_current()");
    sql.await_confirmed(end, LIMIT);
}

fn delivered(kafka: &Kafka, topic: &str) -> Vec<String> {
    reader::read_all(&kafka.bootstrap(), topic).iter().map(reader::Record::event_id).collect()
}

#[test]
fn c3_without_a_stored_position_the_running_process_notices_a_change_while_disconnected() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("unstored-hole", 1);
    let more = "[source]\nstore_position = false\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "unstored-hole", more);
    program.start_streaming();
    emit(&sql, "k1");
    await_all(&sql);
    let connected = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE 'walrelay%'";
    let disconnect = || {
        program.signal("STOP");
        sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'walrelay%'");
        while sql.text(connected) != "0" {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // Without a change there is no error.
    disconnect();
    emit(&sql, "k1");
    program.signal("CONT");
    await_all(&sql);
    disconnect();
    let before = sql.wal_end();
    for statement in [
        "ALTER PUBLICATION walrelay DROP TABLE outbox_events",
        "SELECT emit('k2')",
        "ALTER PUBLICATION walrelay ADD TABLE outbox_events",
    ] {
        sql.run(statement);
    }
    program.signal("CONT");
    assert_eq!(program.wait(), Some(66), "{}", program.log());
    assert!(program.log().contains("WR-6603"), "{}", program.log());
    assert!(sql.confirmed() <= before, "{} is confirmed, hidden from {before}", sql.confirmed());
    // A new process does not know it: its operator has read the error.
    program.start_streaming();
}

#[test]
fn a_partition_that_is_a_foreign_table_is_an_error_at_setup_at_start_and_while_running() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("foreign", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "foreign", "");
    sql.run(
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
         ALTER TABLE outbox_events RENAME TO aside;
         CREATE TABLE outbox_events (LIKE aside INCLUDING DEFAULTS) PARTITION BY LIST (aggregate_type);
         CREATE TABLE outbox_here PARTITION OF outbox_events DEFAULT;
         DROP TABLE aside; ALTER PUBLICATION walrelay ADD TABLE outbox_events",
    );
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
    let attach = "CREATE FOREIGN TABLE outbox_there PARTITION OF outbox_events FOR VALUES IN ('far') SERVER nowhere";
    sql.run(attach);
    assert_eq!(program.wait(), Some(65), "noticed while running: {}", program.log());
    let refused = program.verb(&["setup", "--apply"]);
    assert!(refused.code == Some(65) && refused.notes.contains("outbox_there"), "{refused:?}");
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("outbox_there, which is a foreign table"), "{code:?} {log}");
    sql.run(&sql_of(&log));
    assert_eq!(ends(&mut program).0, Some(66), "{}", program.log());
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
    emit(&sql, "k1");
    await_all(&sql);
    assert_eq!(delivered(kafka, "foreign").len(), 1);
}

#[test]
fn c3_accepting_the_gap_of_a_recreated_publication_skips_nothing_that_can_be_decoded() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("created-again", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "created-again", "");
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let first = emit(&sql, "k1");
    sql.run("DROP PUBLICATION walrelay");
    for _ in 0..20 {
        emit(&sql, "k2");
    }
    sql.run(CREATE);
    let created = sql.wal_end();
    let third = emit(&sql, "k3");
    sql.run("INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 2000)");
    let last = emit(&sql, "k3");
    let (code, log) = ends(&mut program);
    assert!(code == Some(66) && log.contains("dropped and created again"), "{code:?} {log}");
    let accepted = accept(&program);
    assert_eq!(accepted.code, Some(0), "{}", accepted.notes);
    if version(&sql) < 180_000 {
        // Events before the gap are delivered, and then it is reported.
        let (code, log) = ends(&mut program);
        assert!(code == Some(65) && log.contains("SQLSTATE 42704") && log.contains("--accept-gap"), "{code:?} {log}");
        assert_eq!(delivered(kafka, "created-again"), std::slice::from_ref(&first), "{log}");
        let accepted = accept(&program);
        assert_eq!(accepted.code, Some(0), "{}", accepted.notes);
        assert!(accepted.notes.contains("skipped, since publication"), "skipped WAL is reported: {}", accepted.notes);
        assert!(sql.confirmed() <= created, "{} is confirmed, created at {created}", sql.confirmed());
    }
    program.start_streaming();
    await_all(&sql);
    assert_eq!(delivered(kafka, "created-again"), [first, third, last], "{}", program.log());
}

#[test]
fn c3_another_publication_in_the_configuration_is_a_gap_and_skips_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("other-name", 1);
    let more = "[source]\npublication = \"walrelay\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "other-name", more);
    sql.run(&CREATE.replace("walrelay", "second"));
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let event = emit(&sql, "k1");
    program.edit("publication = \"walrelay\"", "publication = \"second\"");
    let (code, log) = ends(&mut program);
    assert!(
        code == Some(66) && log.contains("source.publication was changed from \"walrelay\" to \"second\""),
        "{code:?} {log}"
    );
    let accepted = accept(&program);
    assert_eq!(accepted.code, Some(0), "{}", accepted.notes);
    program.start_streaming();
    await_all(&sql);
    assert_eq!(delivered(kafka, "other-name"), [event], "{}", program.log());
}

#[test]
fn a10_on_another_server_the_error_names_the_server_and_not_its_catalog() {
    let (first, second) = (Postgres::start(Options::default()).unwrap(), Postgres::start(Options::default()).unwrap());
    let kafka = Kafka::shared();
    kafka.create_topic("restored", 1);
    let (program, sql) = prepared(&first, &kafka.bootstrap(), "restored", "");
    let row = sql.text("SELECT to_jsonb(p)::text FROM walrelay.position p");
    let (mut restored, sql) = prepared(&second, &kafka.bootstrap(), "restored", "");
    drop(program);
    // As restored from a dump.
    let restore = format!(
        "DELETE FROM walrelay.position;
         INSERT INTO walrelay.position SELECT * FROM jsonb_populate_record(NULL::walrelay.position, '{row}')"
    );
    sql.run("DROP TABLE outbox_events; CREATE TABLE elsewhere (id int)");
    let with_outbox = restored.verb(&["setup", "--apply", "--with-outbox"]);
    assert_eq!(with_outbox.code, Some(66), "the table was created again: {}", with_outbox.notes);
    sql.run(&restore);
    let (code, log) = ends(&mut restored);
    assert!(code == Some(66) && log.contains("WR-6610"), "{code:?} {log}");
    // The error is not the slot that was not restored either.
    sql.run("SELECT pg_drop_replication_slot('walrelay')");
    let (code, log) = ends(&mut restored);
    assert!(code == Some(66) && log.contains("WR-6610"), "{code:?} {log}");
    assert_eq!(accept(&restored).code, Some(0));
    restored.start_streaming();
}

#[test]
fn a_standby_relay_writes_nothing_beside_the_position_of_the_active_one() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("row-of-another", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "row-of-another", "");
    program.start_streaming();
    emit(&sql, "k1");
    await_all(&sql);
    let row = "SELECT concat_ws(' ', position <> '0/0', released_at, catalog_state) FROM walrelay.position";
    let before = sql.text(row);
    assert!(before.starts_with("t ") && before.contains("outbox_events"), "{before}");
    // One without stored positions, and one with another table.
    sql.run("CREATE TABLE more (LIKE outbox_events INCLUDING ALL); ALTER PUBLICATION walrelay ADD TABLE more");
    let outbox = |table: &str| format!("[[outbox]]\ntable = \"public.{table}\"\ntopic = \"row-of-another\"\n\n");
    let unstored = format!("{}[source]\nstore_position = false\n", outbox("outbox_events"));
    for text in [unstored, outbox("outbox_events") + &outbox("more")] {
        let mut other = Program::new(&postgres.url(), &kafka.bootstrap(), &text);
        other.start();
        other.await_state("standby");
        assert_eq!(sql.text(row), before, "{}", other.log());
        assert_eq!(other.terminate(), Some(0), "{}", other.log());
        assert_eq!(sql.text(row), before, "{}", other.log());
    }
    emit(&sql, "k1");
    await_all(&sql);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
