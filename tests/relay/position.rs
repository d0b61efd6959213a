//! The confirmed position is stored whatever happens to the connection that stores it, or somebody hears that it is
//! not.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::delivery::prepared;
use super::shutdown::stop_fast;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source;
use crate::support::source::Sql;

const LIMIT: Duration = Duration::from_secs(45);
/// The keeper waits for the row.
const WAITS: &str = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name LIKE '%keeper'
                     AND wait_event_type = 'Lock'";
const STORED: &str = "SELECT position::text FROM walrelay.position";

fn await_text(program: &mut Program, sql: &Sql, query: &str, wanted: &str) {
    program.await_that(&format!("{query} = {wanted}"), |_| sql.text(query) == wanted);
}

/// Another session that locks the row of the position.
fn locked(postgres: &Postgres) -> Sql {
    let other = Sql::connect(&postgres.url());
    other.run("BEGIN; SELECT * FROM walrelay.position FOR UPDATE");
    other
}

#[test]
fn the_position_is_stored_after_any_end_of_the_keepers_connection_and_a_long_wait_is_not_ready() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("position-frozen", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "position-frozen", "");
    program.start_streaming();
    for cut in 0..6 {
        let other = locked(&postgres);
        sql.run("SELECT emit('k1')");
        // The commit of the other session is no event, and too small to store a position.
        let written = sql.wal_end();
        await_text(&mut program, &sql, WAITS, "1");
        sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%keeper'");
        std::thread::sleep(Duration::from_millis(100 * cut));
        other.run("COMMIT");
        sql.await_confirmed(written, LIMIT);
    }
    program.await_state("streaming");

    // Without any other error the write times out, which is logged.
    let other = locked(&postgres);
    sql.run("SELECT emit('k1')");
    let written = sql.wal_end();
    program.await_that("an error", |program| program.metric("walrelay_position_store_errors_total") > Some(0.0));
    program.await_log("SQLSTATE 57014");
    program.await_that("not to be ready", |program| {
        program
            .get("/readyz?verbose")
            .is_some_and(|(status, body)| status == 503 && body.contains("[-] position: waiting"))
    });
    assert_eq!(program.get("/livez").unwrap().0, 200);
    other.run("COMMIT");
    sql.await_confirmed(written, LIMIT);
    program.await_that("readiness", |program| program.get("/readyz").is_some_and(|(status, _)| status == 200));
}

#[test]
fn e4_a_fast_shutdown_returns_at_the_in_flight_limit_while_a_query_waits_for_a_lock() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("stop-full", 3);
    let more = "[delivery]\nmax_in_flight_bytes = \"1MiB\"\n\n[source]\ndisconnect_on_stall_after = \"10m\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "stop-full", more);
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    let other = locked(&postgres);
    sql.run("SELECT emit('k2')");
    await_text(&mut program, &sql, WAITS, "1");
    kafka.freeze(0);
    source::writers(&postgres.url(), 1, 10_000, 100).into_iter().for_each(|writer| writer.join().unwrap());
    program.await_that("a full relay", |program| program.metric("walrelay_in_flight_bytes") > Some(900_000.0));
    await_text(&mut program, &sql, WAITS, "1");
    drop((sql, other));
    stop_fast(&postgres, &program);
    kafka.thaw(0);
    postgres.resume().unwrap();
    program.await_state("streaming");
    let sql = Sql::connect(&postgres.url());
    sql.await_all_confirmed(Duration::from_secs(60));
    reader::check(&reader::read_all(&kafka.bootstrap(), "stop-full"), &sql.truth(), 3);
}

#[test]
fn a_position_is_stored_in_spite_of_default_transaction_read_only_and_after_a_time_without() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("read-only", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "read-only", "[source]\nstore_position = true\n");
    sql.run("ALTER SYSTEM SET default_transaction_read_only = on");
    sql.run("SELECT pg_reload_conf()");
    await_text(&mut program, &sql, "SHOW default_transaction_read_only", "on");
    program.start_streaming();
    sql.run("SET default_transaction_read_only = off");
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    // What cannot be stored all the same is an alarm with its reason; what the slot keeps is seen to.
    sql.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING \
             ERRCODE = '53100'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON walrelay.position FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    sql.run("SELECT emit('k1')");
    program.await_log("SQLSTATE 53100");
    let retained = |program: &Program| program.metric("walrelay_slot_retained_wal_bytes").unwrap_or_default();
    let before = retained(&program);
    sql.run("INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 5000)");
    program.await_that("the log that is kept to be seen", |program| retained(program) > before + 5e6);
    sql.run("DROP TRIGGER refuse ON walrelay.position");
    sql.await_all_confirmed(LIMIT);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());

    // For a while nothing is stored, and the slot advances.
    let stored = sql.text(STORED);
    program.edit("store_position = true", "store_position = false");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    program.edit("store_position = false", "store_position = true");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    assert_ne!(sql.text(STORED), stored);
    let records = reader::read_all(&kafka.bootstrap(), "read-only");
    assert_eq!(reader::check(&records, &sql.truth(), 1).repeated, 0);
    // From here on a moved slot is noticed again.
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run("SELECT emit('k1')");
    sql.run("SELECT pg_replication_slot_advance('walrelay', pg_current_wal_lsn())");
    program.start();
    assert_eq!(program.wait(), Some(66), "{}", program.log());
}

#[test]
fn a15_without_a_stored_position_a_slot_advanced_by_another_relay_is_no_loss() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("handed-on", 1);
    let more = "[source]\nstore_position = false\n";
    let (mut frozen, sql) = prepared(&postgres, &kafka.bootstrap(), "handed-on", more);
    frozen.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    frozen.signal("STOP");
    sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'walrelay%'");
    let (mut other, _) = prepared(&postgres, &kafka.bootstrap(), "handed-on", more);
    other.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    assert_eq!(other.terminate(), Some(0), "{}", other.log());
    frozen.signal("CONT");
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    assert_eq!(frozen.ended(), None, "{}", frozen.log());
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "handed-on"), &sql.truth(), 1);
    assert_eq!(verdict.events, 3, "{}", frozen.log());
}

#[test]
fn a_relay_in_synchronous_standby_names_stops_with_the_next_step() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("synchronous", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "synchronous", "");
    let names = |names: &str| {
        sql.run("SET synchronous_commit = local");
        sql.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        sql.run("SELECT pg_reload_conf()");
    };
    // A list without this relay is no error, and the relay does not wait for its standbys.
    names("FIRST 1 (standby1, walrelay2)");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
    names("*");
    assert_eq!(program.wait(), Some(65), "noticed while running: {}", program.log());
    program.start();
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    assert!(program.log().contains("synchronous_standby_names"), "{}", program.log());
    let counted = "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state <> 'async'";
    assert_eq!(sql.text(counted), "0");
    // The next step, as printed.
    names("FIRST 1 (standby1)");
    program.start_streaming();
    sql.await_all_confirmed(LIMIT);
}

#[test]
fn a_catalog_query_that_times_out_is_logged_and_a_server_in_recovery_is_transient() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("not-now", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "not-now", "");
    sql.run("BEGIN; LOCK TABLE walrelay.position");
    program.start();
    program.await_log("query timed out after");
    assert_eq!(program.get("/readyz").unwrap().0, 503);
    sql.run("COMMIT");
    program.await_state("streaming");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());

    // As a standby: in recovery, without the slot.
    let standby = Postgres::start(Options::default()).unwrap();
    standby.stop(StopMode::Fast).unwrap();
    std::fs::write(standby.folder().join("data/standby.signal"), "").unwrap();
    standby.resume().unwrap();
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"not-now\"";
    let mut lost = Program::new(&standby.url(), &kafka.bootstrap(), outbox);
    lost.start();
    lost.await_log("in recovery");
    assert_eq!(lost.ended(), None);
    lost.kill();
    let both = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", standby.port(), postgres.port());
    let mut either = Program::new(&both, &kafka.bootstrap(), outbox);
    either.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(LIMIT);
}
