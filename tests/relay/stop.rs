//! The exit code of a stop: 0 if a restart repeats nothing, 75 if it may, with the number of records and the reason.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::delivery::prepared;
use super::poll;
use super::shutdown::await_a_record_on_the_way;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

/// Checks the exit code, and gives the last log record.
fn stopped(program: &mut Program, code: i32) -> String {
    assert_eq!(program.terminate(), Some(code), "{}", program.log());
    program.log().lines().last().unwrap().to_owned()
}

/// Waits until this process has published so many events, and has nothing in flight.
fn await_published(program: &mut Program, count: f64) {
    program.await_that(&format!("{count} events"), |program| {
        program.metric("walrelay_events_published_total").is_some_and(|published| published >= count)
            && program.metric("walrelay_in_flight_records") == Some(0.0)
    });
}

#[test]
fn g2_a_stop_while_kafka_is_down_is_0_with_nothing_in_flight_and_75_with_the_number_of_records_otherwise() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("stop-number", 3);
    let more = "[source]\ndisconnect_on_stall_after = \"2s\"\n[shutdown]\ndrain = \"1s\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-number", more);
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    await_published(&mut program, 1.0);
    kafka.kill(0);
    let last = stopped(&mut program, 0);
    assert!(last.contains("all records acknowledged"), "{last}");
    kafka.resume(0);

    // The shutdown times out.
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    await_published(&mut program, 1.0);
    kafka.kill(0);
    sql.run("SELECT emit('k1'), emit('k2')");
    await_a_record_on_the_way(&mut program);
    let last = stopped(&mut program, 75);
    assert!(last.contains("WR-7501") && last.contains("2 records"), "{last}");
    kafka.resume(0);

    // Disconnected on a stall: the other events are in the WAL.
    program.start_streaming();
    await_published(&mut program, 2.0);
    kafka.kill(0);
    sql.run("SELECT emit('k1'), emit('k2'), emit('k3')");
    program.await_that("the slot to be free", |_| sql.text("SELECT active::text FROM pg_replication_slots") == "false");
    sql.run("SELECT emit('k4')");
    let last = stopped(&mut program, 75);
    assert!(last.contains("WR-7502") && last.contains("3 records") && !last.contains("0 s"), "{last}");
    kafka.resume(0);
    program.start_streaming();
    await_published(&mut program, 4.0);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    reader::check(&reader::read_all(&kafka.bootstrap(), "stop-number"), &sql.truth(), 3);
}

#[test]
fn g2_a_stop_after_a_purge_is_75_with_the_number_of_records_and_0_once_they_are_acknowledged() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("stop-purged", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-purged", "");
    let purge = |program: &mut Program, kafka: &mut Kafka, sql: Sql, published: f64| {
        program.start_streaming();
        sql.run("SELECT emit('k1')");
        await_published(program, published);
        kafka.kill(0);
        sql.run("SELECT emit('k1'), emit('k2')");
        await_a_record_on_the_way(program);
        drop(sql);
        let before = program.log().len();
        postgres.stop(StopMode::Fast).unwrap();
        program
            .await_that("the purge", |program| program.log()[before..].contains("published again after reconnecting"));
    };
    purge(&mut program, &mut kafka, sql, 1.0);
    let last = stopped(&mut program, 75);
    assert!(last.contains("WR-7502") && last.contains("2 records"), "{last}");

    postgres.resume().unwrap();
    kafka.resume(0);
    purge(&mut program, &mut kafka, Sql::connect(&postgres.url()), 3.0);
    postgres.resume().unwrap();
    kafka.resume(0);
    let sql = Sql::connect(&postgres.url());
    program.await_state("streaming");
    sql.run("SELECT emit('k3')");
    await_published(&mut program, 6.0);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    reader::check(&reader::read_all(&kafka.bootstrap(), "stop-purged"), &sql.truth(), 3);
}

#[test]
fn g2_a_stop_of_polling_after_a_purge_is_75_with_the_number_of_rows() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("poll-purged", 3);
    let (mut program, sql) = poll::prepared(&postgres, &kafka.bootstrap(), "poll-purged", "batch_timeout = \"2s\"");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    poll::await_text(&sql, poll::UNPUBLISHED, "0", &program);
    kafka.kill(0);
    sql.run("SELECT emit('k1'), emit('k1')");
    program.await_state("sink_blocked");
    let last = stopped(&mut program, 75);
    assert!(last.contains("WR-7502") && last.contains("2 records"), "{last}");
    kafka.resume(0);
    program.start_streaming();
    poll::await_text(&sql, poll::UNPUBLISHED, "0", &program);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    reader::check(&reader::read_all(&kafka.bootstrap(), "poll-purged"), &sql.truth(), 3);
}

#[test]
fn g2_a_stop_whose_position_cannot_be_stored_is_75_with_the_reason() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("stop-locked", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-locked", "[shutdown]\ndrain = \"2s\"\n");
    program.start_streaming();
    let other = Sql::connect(&postgres.url());
    other.run("BEGIN; SELECT * FROM walrelay.position FOR UPDATE");
    sql.run("SELECT emit('k1')");
    await_published(&mut program, 1.0);
    let last = stopped(&mut program, 75);
    assert!(last.contains("WR-7503") && last.contains("position") && !last.contains("0 records"), "{last}");
    other.run("ROLLBACK");
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
