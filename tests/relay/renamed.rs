//! A renamed column or table: older WAL has the old name, the catalog has the new one.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::catalog_check::accept;
use super::catalog_check::ends;
use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

fn outbox(table: &str, payload: &str, topic: &str) -> String {
    format!("[[outbox]]\ntable = {table}\ntopic = \"{topic}\"\n[outbox.columns]\npayload = {payload}\n")
}

fn insert(sql: &Sql, table: &str, payload: &str, number: u32) {
    sql.run(&format!(
        "INSERT INTO {table} (aggregate_type, aggregate_id, event_type, {payload}) VALUES ('Order', 'k1', 'E', \
         '{number}')"
    ));
}

fn values(kafka: &Kafka, topic: &str) -> Vec<String> {
    let records = reader::read_all(&kafka.bootstrap(), topic);
    records.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect()
}

fn delivers(program: &mut Program, sql: &Sql) {
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn c10_a_column_renamed_while_the_relay_is_stopped_needs_both_names_and_the_error_names_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("renamed", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "renamed", "");
    let with = |columns: &str| {
        let outbox = outbox("\"public.outbox_events\"", columns, "renamed");
        Program::new(&postgres.url(), &kafka.bootstrap(), &outbox)
    };
    insert(&sql, "outbox_events", "payload", 1);
    sql.run("ALTER TABLE outbox_events RENAME COLUMN payload TO body");
    insert(&sql, "outbox_events", "body", 2);
    let both = "columns.payload = [\"payload\", \"body\"]";
    let (code, log) = ends(&mut program);
    assert!(
        code == Some(65) && log.contains("in the catalog, which is mapped") && log.contains(both),
        "{code:?} {log}"
    );
    let (code, log) = ends(&mut with("\"body\""));
    assert!(code == Some(65) && log.contains("in the WAL of the transaction that commits at"), "{code:?} {log}");
    assert!(log.contains("columns.payload = [\"body\", \"payload\"]"), "{log}");
    let mut program = with("[\"body\", \"payload\"]");
    delivers(&mut program, &sql);
    assert_eq!(values(kafka, "renamed"), ["1", "2"], "{}", program.log());
    // The old name can be removed now; a table with both columns is an error.
    let mut program = with("\"body\"");
    insert(&sql, "outbox_events", "body", 3);
    delivers(&mut program, &sql);
    sql.run("ALTER TABLE outbox_events ADD COLUMN payload jsonb");
    let (code, log) = ends(&mut with("[\"payload\", \"body\"]"));
    assert!(code == Some(65) && log.contains("only one can be the payload"), "{code:?} {log}");
    insert(&sql, "outbox_events", "body", 4);
    delivers(&mut program, &sql);
    assert_eq!(values(kafka, "renamed"), ["1", "2", "3", "4"], "{}", program.log());
}

#[test]
fn c10_a_table_renamed_while_the_relay_is_stopped_needs_both_names_and_the_error_names_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("moved", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "moved", "");
    let with = |table: &str| Program::new(&postgres.url(), &kafka.bootstrap(), &outbox(table, "\"payload\"", "moved"));
    insert(&sql, "outbox_events", "payload", 1);
    sql.run("ALTER TABLE outbox_events RENAME TO events");
    insert(&sql, "events", "payload", 2);
    let old = "renamed_from = [\"public.outbox_events\"]";
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("public.events") && log.contains(old), "{code:?} {log}");
    let (code, log) = ends(&mut with("\"public.events\""));
    assert!(
        code == Some(65) && log.contains("of the transaction that commits at") && log.contains(old),
        "{code:?} {log}"
    );
    let mut program = with("\"public.events\"\nrenamed_from = [\"public.outbox_events\"]");
    let set_up = program.verb(&["setup", "--apply"]);
    assert_eq!(set_up.code, Some(0), "{}", set_up.notes);
    delivers(&mut program, &sql);
    assert_eq!(values(kafka, "moved"), ["1", "2"], "{}", program.log());
    insert(&sql, "events", "payload", 3);
    delivers(&mut with("\"public.events\""), &sql);
    assert_eq!(values(kafka, "moved"), ["1", "2", "3"]);
    sql.run("CREATE TABLE outbox_events (LIKE events)");
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("only one of them can be the outbox"), "{code:?} {log}");
}

#[test]
fn c10_with_both_names_listed_a_rename_needs_no_restart() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("renaming", 1);
    let (_, sql) = prepared(&postgres, &kafka.bootstrap(), "renaming", "");
    let table = "\"public.events\"\nrenamed_from = [\"public.outbox_events\"]";
    let both = outbox(table, "[\"payload\", \"body\"]", "renaming");
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &both);
    let set_up = program.verb(&["setup", "--apply", "--with-outbox"]);
    assert_eq!(set_up.code, Some(0), "{}", set_up.notes);
    program.start_streaming();
    insert(&sql, "outbox_events", "payload", 1);
    sql.run("ALTER TABLE outbox_events RENAME COLUMN payload TO body");
    insert(&sql, "outbox_events", "body", 2);
    sql.run("ALTER TABLE outbox_events RENAME TO events");
    insert(&sql, "events", "body", 3);
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(program.ended(), None, "{}", program.log());
    assert_eq!(values(kafka, "renaming"), ["1", "2", "3"]);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn c10_a_column_that_need_not_be_there_is_missed_when_it_is_renamed_while_the_relay_runs_or_is_away() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("headers-renamed", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "headers-renamed", "");
    let emit = |headers: &str, number: u32| {
        sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, {headers})
             VALUES ('Order', 'k1', 'E', '{number}', '{{\"n\": \"{number}\"}}')"
        ));
    };
    program.start_streaming();
    emit("headers", 1);
    sql.await_all_confirmed(Duration::from_secs(30));
    sql.run("ALTER TABLE outbox_events RENAME COLUMN headers TO more");
    emit("more", 2);
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    // And at every start that follows.
    let (code, log) = ends(&mut program);
    let both = "columns.headers = [\"more\", \"headers\"]";
    assert!(code == Some(65) && log.contains("WR-6509") && log.contains(both), "{code:?} {log}");
    let refused = program.verb(&["setup", "--apply"]);
    assert!(refused.code == Some(65) && refused.notes.contains("WR-6509"), "{}", refused.notes);
    // What it advises does help, and nothing has gone without its headers.
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"headers-renamed\"\n";
    let columns = format!("[outbox.columns]\n{}\n", both.trim_start_matches("columns."));
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &format!("{outbox}{columns}"));
    delivers(&mut program, &sql);
    let headers = || -> Vec<String> {
        let records = reader::read_all(&kafka.bootstrap(), "headers-renamed");
        records.iter().map(|record| record.header("n").unwrap_or("none").to_owned()).collect()
    };
    assert_eq!(headers(), ["1", "2"], "{}", program.log());
    // One that is dropped is missed once.
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    sql.run("ALTER TABLE outbox_events RENAME COLUMN more TO headers");
    emit("headers", 3);
    delivers(&mut program, &sql);
    program.start_streaming();
    emit("headers", 4);
    sql.await_all_confirmed(Duration::from_secs(30));
    sql.run("ALTER TABLE outbox_events DROP COLUMN headers");
    insert(&sql, "outbox_events", "payload", 5);
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    delivers(&mut program, &sql);
    assert_eq!(headers(), ["1", "2", "3", "4", "none"], "{}", program.log());
    assert!(accept(&program).code == Some(0));
}

#[test]
fn c10_the_polling_source_takes_whichever_of_the_names_the_catalog_has() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("polled-names", 1);
    let sql = Sql::connect(&postgres.url());
    let names = "[\"payload\", \"body\"]\nsequence = [\"sequence\", \"number\"]\npublished_at = [\"published_at\", \
                 \"sent_at\"]";
    let both = outbox("\"public.events\"\nrenamed_from = [\"public.outbox_events\"]", names, "polled-names");
    let mut program =
        Program::new(&postgres.url(), &kafka.bootstrap(), &format!("[source]\nmode = \"poll\"\n\n{both}"));
    sql.run(include_str!("../../sql/outbox.sql"));
    let set_up = program.verb(&["setup", "--apply"]);
    assert_eq!(set_up.code, Some(0), "{}", set_up.notes);
    insert(&sql, "outbox_events", "payload", 1);
    let unpublished = |table: &str, published: &str| {
        sql.text(&format!("SELECT count(*)::text FROM {table} WHERE {published} IS NULL"))
    };
    program.start_streaming();
    program.await_that("the first", |_| unpublished("outbox_events", "published_at") == "0");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run(
        "ALTER TABLE outbox_events RENAME COLUMN payload TO body; ALTER TABLE outbox_events RENAME COLUMN sequence TO \
         number;
         ALTER TABLE outbox_events RENAME COLUMN published_at TO sent_at; ALTER TABLE outbox_events RENAME TO events",
    );
    insert(&sql, "events", "body", 2);
    program.start_streaming();
    program.await_that("the second", |_| unpublished("events", "sent_at") == "0");
    assert_eq!(values(kafka, "polled-names"), ["1", "2"], "{}", program.log());
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
