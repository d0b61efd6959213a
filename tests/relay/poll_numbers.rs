//! The polling source reports numbers that are not an order, and rows that it cannot see, with the next step.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::poll::UNPUBLISHED;
use super::poll::await_text;
use super::poll::polling;
use super::poll::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

/// Starts, waits for this exit code, and gives the command after the last "run" of the log.
fn advised(program: &mut Program, code: i32, parts: &[&str]) -> String {
    program.start();
    assert_eq!(program.wait(), Some(code), "{}", program.log());
    // As a log record quotes it.
    let log = program.log().replace("\\\"", "\"");
    for part in parts {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    log.rsplit_once("run `")
        .and_then(|(_, text)| text.split_once('`'))
        .map(|(sql, _)| sql.to_owned())
        .unwrap_or_default()
}

#[test]
fn g8_rows_hidden_by_a_policy_are_an_error_at_the_start_and_while_running() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-policy", 1);
    let (owner, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-policy", "");
    sql.run("CREATE ROLE poller LOGIN");
    let ended = owner.verb(&["setup", "--apply", "--role", "poller"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    let url = postgres.url().replace("postgres@", "poller@");
    let mut program = polling(&url, &kafka.bootstrap(), "poll-policy", "");
    program.start_streaming();
    sql.run(
        "ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
         CREATE POLICY \"tenant one\" ON outbox_events USING (aggregate_id = 'k1'); SELECT emit('k2')",
    );
    assert_eq!(program.wait(), Some(67), "{}", program.log());
    let fix = advised(&mut program, 67, &["WR-6721", "policies: \"tenant one\"", "BYPASSRLS"]);
    sql.run(&fix);
    program.start_streaming();
    await_text(&sql, UNPUBLISHED, "0", &program);
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poll-policy").len(), 1);
}

#[test]
fn g3_a_reset_sequence_stops_before_any_of_its_rows_and_the_printed_sql_renumbers_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-restart", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-restart", "max_batch_rows = 2");
    sql.run("ALTER TABLE outbox_events ALTER COLUMN sequence RESTART WITH 1000");
    (0..5).for_each(|_| sql.run("SELECT emit('k1')"));
    sql.run("ALTER TABLE outbox_events ALTER COLUMN sequence RESTART WITH 1; SELECT emit('k1'); SELECT emit('k1')");
    let fix = advised(&mut program, 65, &["WR-6522", "its last value is 2, and an unpublished row has 1004"]);
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poll-restart").len(), 0, "nothing has gone in the wrong order");
    sql.run(&fix);
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    await_text(&sql, UNPUBLISHED, "0", &program);
    let records = reader::read_all(&kafka.bootstrap(), "poll-restart");
    assert_eq!(reader::check(&records, &sql.truth(), 1), reader::Verdict { events: 8, repeated: 0 });
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    // Two events of one key with one number, which for different keys is not an error.
    let tie = "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, sequence) VALUES";
    sql.run(&format!(
        "{tie} ('Order', 'a', 'E', '1', 5000), ('Order', 'b', 'E', '1', 5000), ('Order', 'a', 'E', '2', 5000)"
    ));
    sql.run("SELECT setval('outbox_events_sequence_seq', 6000)");
    advised(&mut program, 65, &["WR-6523", "has the same sequence (5000)"]);
}

#[test]
fn g8_an_unsuitable_or_unreadable_sequence_is_an_error_and_one_near_its_end_a_warning() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-end", 1);
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "CREATE ROLE poller LOGIN; CREATE SEQUENCE \"its own\" AS int CYCLE;
         CREATE TABLE outbox_events (id uuid DEFAULT gen_random_uuid(), aggregate_type text, aggregate_id text, \
         event_type text,
             payload jsonb, created_at timestamptz DEFAULT now(), sequence int NOT NULL DEFAULT nextval('\"its \
             own\"'))",
    );
    let owner = polling(&postgres.url(), &kafka.bootstrap(), "poll-end", "");
    let ended = owner.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(65), "{}", ended.notes);
    assert!(ended.notes.contains("starts again at its end"), "{}", ended.notes);
    let url = postgres.url().replace("postgres@", "poller@");
    let mut program = polling(&url, &kafka.bootstrap(), "poll-end", "");
    sql.run("GRANT SELECT, UPDATE (published_at) ON outbox_events TO poller");
    sql.run(&advised(&mut program, 65, &["WR-6520", "NO CYCLE"]));
    sql.run(&advised(&mut program, 67, &["WR-6720", "GRANT SELECT ON SEQUENCE public.\"its own\" TO \"poller\""]));
    sql.run("REVOKE SELECT ON SEQUENCE \"its own\" FROM poller");
    let ended = owner.verb(&["setup", "--apply", "--role", "poller"]);
    assert_eq!(ended.code, Some(0), "what setup grants is enough: {}", ended.notes);
    program.start_streaming();
    sql.run("SELECT setval('\"its own\"', 2000000000)");
    program.await_log("WR-6525");
    let log = program.log();
    let (_, fix) = log.rsplit_once("ALTER SEQUENCE").unwrap();
    let fix = fix.split_once("TYPE bigint").unwrap().0.replace('\\', "");
    sql.run(&format!("ALTER SEQUENCE{fix}TYPE bigint"));
}
