//! An operator hears of a slot that is about to be invalidated while there is time to act.

use std::thread;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program::Program;
use crate::support::program::printed;
use crate::support::source::Sql;

const LIMIT: &str = "walrelay_slot_wal_limit_used_ratio";
const SAFE: &str = "walrelay_slot_safe_wal_bytes";
const GROWTH: &str = "walrelay_slot_retained_wal_growth_bytes_per_second";
const LEFT: &str = "walrelay_slot_time_to_invalidation_seconds";
const WARNED: &str = "replication slot may be invalidated soon";
const RECOVERED: &str = "replication slot is no longer close to invalidation";

/// Writes a quarter of a MiB of WAL.
fn write(sql: &Sql) {
    sql.run("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1 << 18))");
    thread::sleep(Duration::from_millis(100));
}

fn count(program: &Program, line: &str) -> usize {
    program.log().matches(line).count()
}

fn set_limit(sql: &Sql, limit: &str) {
    sql.run(&format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{limit}'"));
    sql.run("SELECT pg_reload_conf()");
}

#[test]
fn a_slot_that_runs_out_of_wal_is_warned_about_once_with_a_statement_that_helps_and_again_after_recovery() {
    let limit = Options::default().with_settings(vec!["max_slot_wal_keep_size = '1GB'".into()]);
    let postgres = Postgres::start(limit).unwrap();
    // Without Kafka there is no stream, and nobody advances the slot.
    let mut program = Program::new(&postgres.url(), "127.0.0.1:1", "[source]\nwarn_before_invalidation = \"12h\"\n");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    program.start();
    program.await_that("the slot's state", |program| program.metric(SAFE).is_some());
    assert_eq!(program.metric(LEFT), None, "one sample is no growth");
    program.await_that("a warning", |program| {
        write(&sql);
        count(program, WARNED) > 0
    });
    let (growth, left, safe) = (program.metric(GROWTH), program.metric(LEFT), program.metric(SAFE));
    let (growth, left, safe) = (growth.unwrap(), left.unwrap(), safe.unwrap());
    assert!(growth > 0.0 && (left * growth / safe - 1.0).abs() < 0.5, "{left} s for {safe} at {growth}");
    let log = program.log();
    assert!(log.contains("WR-6604") && log.contains("\"slot\":\"walrelay\""), "{log}");
    // Each later sample is as bad.
    let polled = program.metric("walrelay_slot_polled_timestamp_seconds");
    program.await_that("another sample", |program| program.metric("walrelay_slot_polled_timestamp_seconds") > polled);
    assert_eq!(count(&program, WARNED), 1, "{}", program.log());

    // The statement of the next step raises the limit.
    let raised = printed(&program.log(), "ALTER SYSTEM");
    sql.run(&raised);
    sql.run("SELECT pg_reload_conf()");
    program.await_that("a higher limit", |program| program.metric(SAFE).is_some_and(|raised| raised > safe * 1.5));

    set_limit(&sql, "-1");
    program.await_log(RECOVERED);
    assert_eq!((program.metric(LEFT), program.metric(LIMIT)), (None, None), "there is no limit");
    set_limit(&sql, "1GB");
    program.await_that("a second warning", |program| {
        write(&sql);
        count(program, WARNED) == 2
    });
}
