//! Events that may have been missed are a gap, in whatever way they were missed. Accepting a gap skips nothing that can
//! be delivered.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::catalog_check::accept;
use super::catalog_check::ends;
use super::catalog_check::sql_of;
use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const LIMIT: Duration = Duration::from_secs(30);
pub(super) const CREATE: &str =
    "CREATE PUBLICATION walrelay FOR TABLE outbox_events WITH (publish = 'insert', publish_via_partition_root = true)";

pub(super) fn version(sql: &Sql) -> u32 {
    sql.text("SELECT current_setting('server_version_num')").parse().unwrap()
}

/// Emits an event, and gives its id.
fn emit(sql: &Sql, key: &str) -> String {
    sql.run(&format!("SELECT emit('{key}')"));
    sql.text(&format!("SELECT event_id::text FROM truth WHERE key = '{key}' ORDER BY version DESC LIMIT 1"))
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
    sql.await_all_confirmed(LIMIT);
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
    sql.await_all_confirmed(LIMIT);
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
    assert!(!program.log().contains("--accept-gap"), "which could not help: {}", program.log());
    assert!(sql.confirmed() <= before, "{} is confirmed, hidden from {before}", sql.confirmed());
    // Starting it again accepts what it said.
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
    sql.await_all_confirmed(LIMIT);
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
    sql.await_all_confirmed(LIMIT);
    assert_eq!(delivered(kafka, "created-again"), [first, third, last], "{}", program.log());
}

#[test]
fn a_gap_is_not_accepted_by_half_where_the_server_has_no_slot_for_the_search() {
    let options = Options::default().with_settings(vec!["max_replication_slots = 1".into()]);
    let (postgres, kafka) = (Postgres::start(options).unwrap(), Kafka::shared());
    kafka.create_topic("no-slot", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "no-slot", "");
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run("DROP PUBLICATION walrelay");
    emit(&sql, "k1");
    let row = "SELECT to_jsonb(p)::text FROM walrelay.position p";
    let refused = |program: &Program, sql: &Sql| {
        let before = sql.text(row);
        let ended = program.verb(&["setup", "--apply", "--accept-gap"]);
        assert!(ended.code == Some(69) && ended.notes.contains("WR-6908"), "{}", ended.notes);
        assert_eq!(sql.text(row), before);
        assert_eq!(sql.text("SELECT count(*)::text FROM pg_publication"), "0");
        sql_of(&ended.notes)
    };
    // PostgreSQL 14 sends the transactions without rows first, and 18 leaves the change out: no search is needed.
    if (150_000..180_000).contains(&version(&sql)) {
        refused(&program, &sql);
    }
    sql.run("SELECT pg_drop_replication_slot('walrelay'); SELECT pg_create_physical_replication_slot('other')");
    sql.run(&refused(&program, &sql));
    drop(sql);
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();
    let accepted = accept(&program);
    assert_eq!(accepted.code, Some(0), "{}", accepted.notes);
    program.start_streaming();
}

#[test]
fn a_partition_that_was_unlogged_for_a_moment_is_a_gap_whether_the_relay_runs_or_is_away() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("unlogged", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "unlogged", "");
    // A table that is in a publication by its own name cannot be unlogged; its partitions can.
    sql.run(
        "ALTER TABLE outbox_events RENAME TO aside;
         CREATE TABLE outbox_events (LIKE aside INCLUDING DEFAULTS) PARTITION BY LIST (aggregate_type);
         CREATE TABLE outbox_here PARTITION OF outbox_events DEFAULT; CREATE INDEX here ON outbox_here (id);
         DROP TABLE aside; ALTER PUBLICATION walrelay ADD TABLE outbox_events",
    );
    assert_eq!(accept(&program).code, Some(0));
    let hide = "ALTER TABLE outbox_here SET UNLOGGED; SELECT emit('k2'); ALTER TABLE outbox_here SET LOGGED";
    for is_away in [false, true] {
        program.start_streaming();
        emit(&sql, "k1");
        sql.await_all_confirmed(LIMIT);
        if is_away {
            assert_eq!(program.terminate(), Some(0), "{}", program.log());
        }
        sql.run(hide);
        if !is_away {
            assert_eq!(program.wait(), Some(66), "{}", program.log());
        }
        let (code, log) = ends(&mut program);
        assert!(code == Some(66) && log.contains("SET UNLOGGED"), "{code:?} {log}");
        assert_eq!(accept(&program).code, Some(0));
    }
    // What rewrites the rows in another way is none.
    for statement in [
        "VACUUM FULL outbox_here",
        "CLUSTER outbox_here USING here",
        "TRUNCATE outbox_events",
        "ALTER TABLE outbox_events ALTER COLUMN event_type TYPE varchar(99)",
        "ALTER TABLE outbox_events ALTER COLUMN event_type TYPE varchar(50)",
    ] {
        sql.run(statement);
        program.start_streaming();
        assert_eq!(program.terminate(), Some(0), "{statement}: {}", program.log());
    }
}

#[test]
fn with_several_hosts_setup_changes_one_server_and_no_other() {
    // The first one takes ordinary connections only.
    let options = Options::default().with_settings(vec!["max_wal_senders = 0".into()]);
    let (first, second) = (Postgres::start(options).unwrap(), Postgres::start(Options::default()).unwrap());
    let both = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", first.port(), second.port());
    let program = Program::new(&both, "127.0.0.1:1", "");
    let ended = program.verb(&["setup", "--apply", "--with-outbox"]);
    assert!(ended.code != Some(0) && ended.notes.contains("SQLSTATE 53300"), "{}", ended.notes);
    for postgres in [&first, &second] {
        let sql = Sql::connect(&postgres.url());
        let made =
            "SELECT concat_ws(' ', (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication))";
        assert_eq!(sql.text(made), "0 0");
    }
}

#[test]
fn c3_another_publication_in_the_configuration_is_a_gap_by_its_own_name_and_skips_nothing() {
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
    sql.await_all_confirmed(LIMIT);
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
    sql.await_all_confirmed(LIMIT);
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
    sql.await_all_confirmed(LIMIT);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
