//! Order per key, although brokers do not order the requests of two producers.
//!
//! The proxy holds back what a producer has sent, as a broker does that has not read it yet, and lets a new connection
//! pass.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::kafka::proxy::Proxy;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const TOPIC: &str = "order";

struct Stage {
    postgres: Postgres,
    kafka: Kafka,
    proxy: Proxy,
    program: Program,
    sql: Sql,
}

fn emit(sql: &Sql, count: u32) {
    (0..count).for_each(|_| sql.run("SELECT emit('k1')"));
}

/// A relay with requests that the proxy delays.
fn held_back(more: &str) -> Stage {
    let (postgres, (kafka, proxy)) = (Postgres::start(Options::default()).unwrap(), Kafka::behind_proxy());
    kafka.create_topic(TOPIC, 1);
    let (mut program, sql) = prepared(&postgres, &proxy.address(), TOPIC, more);
    program.start_streaming();
    emit(&sql, 1);
    sql.await_all_confirmed(Duration::from_secs(15));
    proxy.hold();
    emit(&sql, 4);
    program.await_that("records on the way", |program| program.metric("walrelay_in_flight_records") == Some(4.0));
    Stage { postgres, kafka, proxy, program, sql }
}

/// Forwards the delayed requests after others had time to write; then every event must have arrived in order.
fn release(stage: &Stage) {
    std::thread::sleep(Duration::from_secs(3));
    stage.proxy.release();
    std::thread::sleep(Duration::from_millis(500));
    emit(&stage.sql, 4);
    stage.sql.await_all_confirmed(Duration::from_secs(60));
    reader::check(&reader::read_all(&stage.kafka.bootstrap(), TOPIC), &stage.sql.truth(), 1);
}

#[test]
fn g3_records_of_a_stalled_producer_are_written_before_their_successors_and_once() {
    let mut stage = held_back("[source]\ndisconnect_on_stall_after = \"2s\"\n");
    stage.program.await_state("sink_blocked");
    emit(&stage.sql, 4);
    release(&stage);
    let records = reader::read_all(&stage.kafka.bootstrap(), TOPIC);
    assert_eq!(records.len(), 13, "none twice: {}", stage.program.log());
    drop(stage.postgres);
}

#[test]
fn g3_records_of_a_dropped_producer_are_written_before_those_of_the_next() {
    let stage = held_back("");
    stage.sql.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL");
    emit(&stage.sql, 4);
    release(&stage);
}

#[test]
fn g3_records_of_a_relay_that_was_killed_are_written_before_those_of_the_next() {
    let mut stage = held_back("");
    stage.program.kill();
    emit(&stage.sql, 4);
    stage.program.start();
    release(&stage);
}
