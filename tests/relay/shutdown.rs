//! A shutdown of PostgreSQL does not wait for the relay, whatever Kafka does; and a stop of the relay drains.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::delivery::prepared;
use super::poll;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Verdict;
use crate::support::source;
use crate::support::source::Sql;

/// The limit of `pg_ctl stop -m fast`.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Stops PostgreSQL, and checks that nothing delayed it.
pub(super) fn stop_fast(postgres: &Postgres, program: &Program) {
    let took = postgres.stop(StopMode::Fast).unwrap();
    assert!(took < STOP_LIMIT, "{took:?}: {}", program.log());
}

/// Waits until everything is confirmed after a restart of PostgreSQL, and checks every event.
fn arrived(postgres: &Postgres, kafka: &Kafka, topic: &str) -> Verdict {
    let sql = Sql::connect(&postgres.url());
    sql.await_all_confirmed(Duration::from_secs(60));
    reader::check(&reader::read_all(&kafka.bootstrap(), topic), &sql.truth(), 3)
}

#[test]
fn e5_a_fast_shutdown_returns_at_once_while_other_tables_are_written() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("stop-idle", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-idle", "");
    program.start_streaming();
    sql.run("INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 5000)");
    stop_fast(&postgres, &program);
    postgres.resume().unwrap();
    program.await_state("streaming");
}

#[test]
fn e3_after_a_fast_shutdown_under_load_nothing_is_missing_or_repeated() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("stop-load", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-load", "");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 2, 200_000, 100);
    std::thread::sleep(Duration::from_millis(1_500));
    drop(sql);
    stop_fast(&postgres, &program);
    // The writers' connections were terminated; their commits count.
    writers.into_iter().for_each(|writer| drop(writer.join()));
    postgres.resume().unwrap();
    program.await_state("streaming");
    Sql::connect(&postgres.url()).run("SELECT emit('k1')");
    let verdict = arrived(&postgres, kafka, "stop-load");
    assert!(verdict.events > 100, "{verdict:?}");
    assert!(verdict.repeated <= 51, "{verdict:?}");
}

#[test]
fn e4_a_fast_shutdown_returns_while_kafka_is_down_and_nothing_is_missing_afterwards() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("stop-down", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-down", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    kafka.kill(0);
    source::writers(&postgres.url(), 2, 2_000, 100).into_iter().for_each(|writer| writer.join().unwrap());
    drop(sql);
    stop_fast(&postgres, &program);
    postgres.resume().unwrap();
    kafka.resume(0);
    program.await_state("streaming");
    arrived(&postgres, &kafka, "stop-down");
}

#[test]
fn e4_a_fast_shutdown_returns_while_kafka_is_down_under_load_and_the_relay_is_stopping() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("stop-both", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-both", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    kafka.kill(0);
    let writers = source::writers(&postgres.url(), 2, 100_000, 100);
    std::thread::sleep(Duration::from_millis(500));
    program.signal("TERM");
    program.await_log("\"message\":\"draining\"");
    stop_fast(&postgres, &program);
    writers.into_iter().for_each(|writer| drop(writer.join()));
    assert_eq!(program.wait(), Some(75), "{}", program.log());
    postgres.resume().unwrap();
    kafka.resume(0);
    program.start_streaming();
    arrived(&postgres, &kafka, "stop-both");
}

#[test]
fn a_stop_within_a_large_transaction_completes_it_and_repeats_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("stop-large", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-large", "");
    program.start_streaming();
    // Positions advance until the stop, so one is due to be stored while draining.
    for _ in 0..50 {
        sql.run("SELECT emit('k1')");
    }
    sql.run("DO $$ BEGIN FOR i IN 1..60000 LOOP PERFORM emit('k' || i % 100); END LOOP; END $$");
    program.await_that("some of it", |program| program.metric("walrelay_events_received_total") > Some(200.0));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    program.start_streaming();
    let verdict = arrived(&postgres, kafka, "stop-large");
    assert_eq!((verdict.events, verdict.repeated), (60_050, 0));
}

#[test]
fn f1_while_kafka_is_down_it_disconnects_from_postgres_and_delivers_everything_afterwards() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("parked", 3);
    let more = "[source]\ndisconnect_on_stall_after = \"2s\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "parked", more);
    program.start_streaming();
    kafka.kill(0);
    source::writers(&postgres.url(), 1, 500, 100).into_iter().for_each(|writer| writer.join().unwrap());
    program.await_state("sink_blocked");
    assert_eq!(program.get("/livez").unwrap().0, 200);
    assert_eq!(program.get("/readyz").unwrap().0, 503);
    program.await_that("the slot to be free", |_| sql.text("SELECT active::text FROM pg_replication_slots") == "false");
    // The retained WAL grows and is monitored.
    let retained = |program: &Program| program.metric("walrelay_slot_retained_wal_bytes").unwrap_or_default();
    let before = retained(&program);
    sql.run("INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 5000)");
    program.await_that("the log that is kept to be seen", |program| retained(program) > before + 5e6);
    kafka.resume(0);
    program.await_state("streaming");
    let verdict = arrived(&postgres, &kafka, "parked");
    assert_eq!(verdict.repeated, 0, "what was handed over once stays with its producer: {}", program.log());
    program.await_that("librdkafka's own numbers", |program| {
        program.metric("walrelay_kafka_broker_requests_total") > Some(0.0)
            && program.metric("walrelay_kafka_queue_records") == Some(0.0)
    });
}

#[test]
fn f5_a_stalled_broker_is_logged_although_the_stream_stays_open() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("frozen", 3);
    let more = "[source]\ndisconnect_on_stall_after = \"1h\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "frozen", more);
    program.start_streaming();
    kafka.freeze(0);
    source::writers(&postgres.url(), 1, 500, 100).into_iter().for_each(|writer| writer.join().unwrap());
    program.await_state("sink_blocked");
    let (status, body) = program.get("/readyz?verbose").unwrap();
    assert!(status == 503 && body.contains("[-] kafka: no record is acknowledged"), "{body}");
    assert_eq!(sql.text("SELECT active::text FROM pg_replication_slots"), "true");
    kafka.thaw(0);
    program.await_state("streaming");
    sql.await_all_confirmed(Duration::from_secs(60));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "frozen"), &sql.truth(), 3);
    let has_restarted = program.log().contains("it has no broker left");
    assert!(verdict.repeated == 0 || has_restarted, "{}", program.log());
}

#[test]
fn f22_metadata_without_brokers_for_a_while_is_recovered_from() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("nameless", 3);
    let more = "[source]\ndisconnect_on_stall_after = \"1h\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "nameless", more);
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    kafka.waver_until("the loss of every broker", || {
        sql.run("SELECT emit('k1')");
        program.log().contains("it has no broker left")
    });
    kafka.steady();
    sql.run("SELECT emit('k2')");
    program.await_state("streaming");
    sql.await_all_confirmed(Duration::from_secs(60));
    reader::check(&reader::read_all(&kafka.bootstrap(), "nameless"), &sql.truth(), 3);
    program.await_that("readiness", |program| program.get("/readyz").is_some_and(|(status, _)| status == 200));
}

#[test]
fn g2_a_stop_that_times_out_ends_with_75_and_loses_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("undrained", 3);
    let (program, sql) = prepared(&postgres, &kafka.bootstrap(), "undrained", "[shutdown]\ndrain = \"1s\"\n");
    stop_without_kafka(kafka, "undrained", program, &sql, |_| {
        sql.await_all_confirmed(Duration::from_secs(60));
    });
}

#[test]
fn g2_a_stop_that_times_out_leaves_polled_rows_unpublished() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("poll-undrained", 3);
    let more = "\n[shutdown]\ndrain = \"1s\"";
    let (program, sql) = poll::prepared(&postgres, &kafka.bootstrap(), "poll-undrained", more);
    stop_without_kafka(kafka, "poll-undrained", program, &sql, |program| {
        poll::await_text(&sql, poll::UNPUBLISHED, "0", program);
    });
}

/// A stop with a record in flight that Kafka does not acknowledge; then everything is delivered at the next start.
fn stop_without_kafka(mut kafka: Kafka, topic: &str, mut program: Program, sql: &Sql, await_all: impl Fn(&Program)) {
    program.start_streaming();
    kafka.kill(0);
    sql.run("SELECT emit('k1')");
    await_a_record_on_the_way(&mut program);
    assert_eq!(program.terminate(), Some(75), "{}", program.log());
    kafka.resume(0);
    program.start_streaming();
    await_all(&program);
    reader::check(&reader::read_all(&kafka.bootstrap(), topic), &sql.truth(), 3);
}

pub(super) fn await_a_record_on_the_way(program: &mut Program) {
    program.await_that("a record on the way", |program| {
        program.metric("walrelay_in_flight_records").is_some_and(|count| count > 0.0)
    });
}

#[test]
fn g3_a_second_signal_ends_the_program_at_once() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("impatient", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "impatient", "[shutdown]\ndrain = \"80s\"\n");
    program.start_streaming();
    kafka.kill(0);
    sql.run("SELECT emit('k1')");
    await_a_record_on_the_way(&mut program);
    program.signal("TERM");
    program.await_state("draining");
    assert_eq!(program.get("/readyz").unwrap().0, 503);
    assert_eq!(program.terminate(), Some(75), "{}", program.log());
}
