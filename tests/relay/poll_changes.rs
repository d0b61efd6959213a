//! Changes of the table while it is polled: each is noticed, with an error that names it.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::poll::UNPUBLISHED;
use super::poll::await_text;
use super::poll::prepared;
use crate::support::kafka::Kafka;
use crate::support::reader;

#[test]
fn c10_a_renamed_column_or_a_replaced_table_stops_polling_with_65() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    for (topic, change, parts) in [
        (
            "poll-column",
            "ALTER TABLE outbox_events RENAME COLUMN payload TO body",
            ["has no column \\\"payload\\\"", "columns.payload = [\\\"payload\\\", \\\"body\\\"]"],
        ),
        ("poll-own", "ALTER TABLE outbox_events RENAME COLUMN sequence TO number", ["has no column", "sequence"]),
        (
            "poll-table",
            "ALTER TABLE outbox_events RENAME TO events",
            ["public.outbox_events does not exist", "WR-6504"],
        ),
        (
            "poll-replaced",
            "ALTER TABLE outbox_events RENAME TO events; CREATE TABLE outbox_events (LIKE events INCLUDING ALL)",
            ["was replaced by another table", "WR-6526"],
        ),
        // A column that the table need not have, and a connection that begins after the replacement.
        (
            "poll-optional",
            "ALTER TABLE outbox_events RENAME COLUMN headers TO metadata",
            ["column \\\"headers\\\" of table public.outbox_events was renamed or dropped", "WR-6527"],
        ),
        (
            "poll-reconnected",
            "ALTER TABLE outbox_events RENAME TO events; CREATE TABLE outbox_events (LIKE events INCLUDING ALL);
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walrelay'",
            ["was replaced by another table", "WR-6526"],
        ),
    ] {
        kafka.create_topic(topic, 1);
        let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), topic, "");
        program.start_streaming();
        sql.run("SELECT emit('k1')");
        await_text(&sql, UNPUBLISHED, "0", &program);
        sql.run(change);
        assert_eq!(program.wait(), Some(65), "{change}: {}", program.log());
        for part in parts {
            assert!(program.log().contains(part), "{part}: {}", program.log());
        }
        sql.run("DROP TABLE IF EXISTS outbox_events, events CASCADE; DROP TABLE IF EXISTS truth CASCADE");
    }
}

#[test]
fn c10_a_renamed_table_whose_new_name_is_configured_is_polled_on() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-renamed", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-renamed", "");
    program.edit(
        "table = \"public.outbox_events\"",
        "table = \"public.events\"\nrenamed_from = [\"public.outbox_events\"]",
    );
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    await_text(&sql, UNPUBLISHED, "0", &program);
    sql.run(
        "ALTER TABLE outbox_events RENAME TO events;
         INSERT INTO events (aggregate_type, aggregate_id, event_type, payload) VALUES ('Order', 'k1', 'E', '2')",
    );
    await_text(&sql, &UNPUBLISHED.replace("outbox_events", "events"), "0", &program);
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poll-renamed").len(), 2);
}

#[test]
fn e12_a_mark_without_the_right_to_write_stops_with_67() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-denied", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-denied", "");
    sql.run(
        "CREATE FUNCTION deny() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'permission denied for table audit' USING ERRCODE = '42501'; END $$;
         CREATE TRIGGER deny BEFORE UPDATE ON outbox_events FOR EACH ROW EXECUTE FUNCTION deny();
         SELECT emit('k1')",
    );
    program.start();
    assert_eq!(program.wait(), Some(67), "{}", program.log());
    assert!(program.log().contains("cannot mark rows as published"), "{}", program.log());
}

#[test]
fn a_missing_index_is_logged_once() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-index", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-index", "");
    sql.run("DROP INDEX outbox_events_unpublished");
    program.start_streaming();
    for _ in 0..3 {
        let polled = program.log().matches("polling started").count();
        sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walrelay'");
        program.await_that("another connection", |program| program.log().matches("polling started").count() > polled);
    }
    assert_eq!(program.log().matches("no index on unpublished rows").count(), 1, "{}", program.log());
}
