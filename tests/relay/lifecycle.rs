//! The relay waits for both servers, and reconnects to both without a loss.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::catalog_check::accept;
use super::catalog_check::ends;
use super::catalog_check::has_lists;
use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::program::paste;
use crate::support::program::printed;
use crate::support::reader;
use crate::support::source;
use crate::support::source::Sql;

#[test]
fn it_starts_while_postgres_is_down_and_streams_when_it_is_up() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("late-postgres", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "late-postgres", "");
    sql.run("SELECT emit('k1')");
    postgres.stop(StopMode::Fast).unwrap();
    program.start();
    program.await_state("source_reconnecting");
    assert_eq!(program.get("/livez").unwrap().0, 200, "alive without PostgreSQL");
    assert_eq!(program.get("/readyz").unwrap().0, 503, "but not ready");
    postgres.resume().unwrap();
    program.await_state("streaming");
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    let sql = Sql::connect(&postgres.url());
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "late-postgres").len(), 1);
}

#[test]
fn e1_a_walsender_that_is_terminated_costs_no_event_and_repeats_none() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("terminated", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "terminated", "");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 2, 6_000, 100);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(150));
        sql.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL");
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    // A relay that connects only now reads the stored row and may prune its page: that is WAL without a transaction,
    // and after it nothing is stored while the database is idle.
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(60));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "terminated"), &sql.truth(), 3);
    // Only an incomplete transaction is repeated, at most 51 rows per disconnect.
    assert!(verdict.repeated <= 5 * 51, "{verdict:?}");
}

#[test]
fn e2_a9_a_crash_of_postgres_loses_nothing_although_the_slot_goes_back() {
    let options = Options::default().durable();
    let (postgres, kafka) = (Postgres::start(options).unwrap(), Kafka::shared());
    kafka.create_topic("crashed", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "crashed", "");
    program.start_streaming();
    source::writers(&postgres.url(), 1, 500, 50).into_iter().for_each(|writer| writer.join().unwrap());
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(program.terminate(), Some(0));
    drop(sql);
    postgres.stop(StopMode::Immediate).unwrap();
    postgres.resume().unwrap();
    program.start_streaming();
    let sql = Sql::connect(&postgres.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "crashed"), &sql.truth(), 3);
    assert_eq!(verdict.repeated, 0, "the stored position survives what the slot forgets");
}

#[test]
fn b7_two_relays_that_take_the_slot_from_each_other_under_load_swap_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("contested", 3);
    let (mut first, sql) = prepared(&postgres, &kafka.bootstrap(), "contested", "");
    let (mut second, _) = prepared(&postgres, &kafka.bootstrap(), "contested", "");
    first.start_streaming();
    second.start();
    second.await_state("standby");
    let writers = source::writers(&postgres.url(), 2, 30_000, 100);
    let holder = "SELECT coalesce(active_pid, 0)::text FROM pg_replication_slots WHERE slot_name = 'walrelay'";
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(1_200));
        sql.run(&format!("SELECT pg_terminate_backend(nullif(({holder})::int, 0))"));
        for program in [&mut first, &mut second] {
            assert_eq!(program.ended(), None, "{}", program.log());
        }
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    sql.await_all_confirmed(Duration::from_secs(60));
    reader::check(&reader::read_all(&kafka.bootstrap(), "contested"), &sql.truth(), 3);
}

#[test]
fn b7_a_second_relay_is_standby_and_takes_over() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("standby", 1);
    let (mut first, sql) = prepared(&postgres, &kafka.bootstrap(), "standby", "");
    let (mut second, _) = prepared(&postgres, &kafka.bootstrap(), "standby", "");
    first.start_streaming();
    second.start();
    second.await_state("standby");
    first.kill();
    second.await_state("streaming");
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "standby").len(), 1);
}

#[test]
fn a_relay_that_becomes_standby_forgets_what_it_saw_of_the_slot() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("replaced", 1);
    let (mut first, sql) = prepared(&postgres, &kafka.bootstrap(), "replaced", "");
    let (mut second, _) = prepared(&postgres, &kafka.bootstrap(), "replaced", "");
    let retained = |program: &Program| program.metric("walrelay_slot_retained_wal_bytes");
    first.start_streaming();
    first.await_that("a look at the slot", |program| retained(program).is_some());
    second.start();
    second.await_state("standby");
    first.signal("STOP");
    sql.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'walrelay'");
    second.await_state("streaming");
    first.signal("CONT");
    first.await_state("standby");
    first.await_that("no state of the slot", |program| retained(program).is_none());
    second.await_that("a look at the slot", |program| retained(program).is_some());
}

#[test]
fn f1_f2_restarted_brokers_lose_and_repeat_nothing() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(3));
    kafka.create_topic("brokers", 6);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "brokers", "");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 2, 10_000, 200);
    for place in [0, 1, 2] {
        std::thread::sleep(Duration::from_millis(500));
        kafka.kill(place);
        std::thread::sleep(Duration::from_secs(1));
        kafka.resume(place);
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(90));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "brokers"), &sql.truth(), 6);
    assert_eq!(verdict.repeated, 0, "{}", program.log());
}

#[test]
fn an_idle_relay_logs_that_its_brokers_are_down_and_up_again() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("idle", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "idle", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let connected =
        |program: &Program| program.metric("walrelay_connected{relay=\"walrelay\",peer=\"kafka\"}").unwrap_or(-1.0);
    assert_eq!(connected(&program), 1.0);
    kafka.kill(0);
    program.await_that("news of the loss", |program| connected(program) == 0.0);
    program.await_log("all brokers are down");
    assert_eq!(program.get("/readyz").unwrap().0, 503, "nothing would flow");
    assert_eq!(program.get("/livez").unwrap().0, 200);
    kafka.resume(0);
    program.await_that("news of the return", |program| connected(program) == 1.0);
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    let again = "walrelay_reconnects_total{relay=\"walrelay\",peer=\"kafka\",reason=\"failed\"}";
    assert_eq!(program.metric(again), Some(1.0));
    assert!(program.metric("walrelay_slot_catalog_xmin_age_transactions").is_some());
}

#[test]
fn c1_a_slot_older_than_its_publication_is_an_error_and_the_next_step_works() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("older", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "older", "");
    sql.run("DROP PUBLICATION walrelay; SELECT emit('k1')");
    let refused = program.verb(&["setup", "--apply"]);
    assert_eq!(refused.code, Some(65), "{}", refused.notes);
    // The printed command is run as it is.
    let made = paste(&printed(&refused.notes, "walrelay "));
    assert_eq!(made.code, Some(0), "{}", made.notes);
    if !has_lists(&sql) {
        // PostgreSQL 14 sends transactions without rows as well, which are confirmed first.
        assert_eq!(ends(&mut program).0, Some(65), "{}", program.log());
        assert_eq!(accept(&program).code, Some(0));
    }
    program.start_streaming();
    sql.run("SELECT emit('k2')");
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "older").len(), 1);
}

#[test]
fn setup_adds_a_second_outbox_to_an_existing_publication() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("second", 1);
    let (_, sql) = prepared(&postgres, &kafka.bootstrap(), "second", "");
    sql.run("CREATE TABLE later_events (LIKE outbox_events INCLUDING ALL)");
    let table = |name: &str| format!("[[outbox]]\ntable = \"public.{name}\"\ntopic = \"second\"\n\n");
    let both = table("outbox_events") + &table("later_events");
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &both);
    let ended = program.verb(&["setup", "--apply"]);
    assert!(ended.code == Some(0) && ended.notes.contains("later_events added"), "{}{}", ended.out, ended.notes);
    program.start_streaming();
    sql.run("SELECT emit('k1'); INSERT INTO later_events SELECT * FROM outbox_events");
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "second").len(), 2);
}

#[test]
fn everything_works_through_a_unix_socket() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("socket", 1);
    let folder = postgres.folder().display().to_string();
    let url = format!("host={folder} port={} user=postgres dbname=postgres", postgres.port());
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"socket\"\n\n";
    let mut program = Program::new(&url, &kafka.bootstrap(), outbox);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let through = "SELECT string_agg(DISTINCT coalesce(host(client_addr), 'socket'), ' ') FROM pg_stat_activity
                   WHERE application_name LIKE 'walrelay%'";
    assert_eq!(sql.text(through), "socket");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "socket").len(), 1);
}

#[test]
fn f13_wrong_credentials_for_kafka_end_with_67_after_three_attempts_and_right_ones_stream() {
    let (postgres, (kafka, address)) = (Postgres::start(Options::default()).unwrap(), Kafka::with_login());
    kafka.create_topic("login", 1);
    let (_, sql) = prepared(&postgres, &address, "login", "");
    let start = |password: &str| {
        let file = postgres.folder().join("kafka-password");
        std::fs::write(&file, password).unwrap();
        let more = format!(
            "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"login\"\n\n[kafka.sasl]\nmechanism = \
             \"SCRAM-SHA-256\"\n\
             username = \"walrelay\"\npassword = {{ file = \"{}\" }}\n",
            file.display()
        );
        let mut program = Program::new(&postgres.url(), &address, &more);
        program.start();
        program
    };
    let mut refused = start("wrong");
    assert_eq!(refused.wait(), Some(67), "{}", refused.log());
    assert!(refused.log().contains("WR-6731") && !refused.log().contains("wrong"), "{}", refused.log());
    let mut program = start("right");
    program.await_state("streaming");
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "login").len(), 1);
}

#[test]
fn e7_a_server_that_sends_nothing_while_it_decodes_a_refreshed_view_is_waited_for() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("refreshed", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "refreshed", "");
    program.edit("[postgres]\n", "[postgres]\nwal_sender_timeout = \"1s\"\n");
    sql.run(
        "CREATE MATERIALIZED VIEW large AS SELECT i, repeat('x', 20) FROM generate_series(1, 1500000) i WITH NO DATA",
    );
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.run("REFRESH MATERIALIZED VIEW large");
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(60));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "refreshed").len(), 2, "{}", program.log());
    let log = program.log();
    assert!(!log.contains("another relay holds the slot") && !log.contains("takeover"), "{log}");
}

#[test]
fn a_server_that_is_replaced_in_the_order_of_the_manual_costs_no_event_and_repeats_none() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("upgraded", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "upgraded", "");
    program.start_streaming();
    sql.run("SELECT emit('k1'); SELECT emit('k2')");
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let pending = program.verb(&["peek"]);
    assert!(pending.code == Some(0) && pending.notes.contains("no event is pending"), "{}", pending.notes);
    let dropped = program.verb(&["teardown", "--yes", "--with-position"]);
    assert_eq!(dropped.code, Some(0), "{}", dropped.notes);
    // The rows come along, as they do with pg_upgrade or a dump, and are not published again.
    let upgraded = Postgres::start(Options::default()).unwrap();
    let rows = sql.text("SELECT jsonb_agg(to_jsonb(o))::text FROM outbox_events o");
    let later = Sql::connect(&upgraded.url());
    later.run(include_str!("../../sql/outbox.sql"));
    later.run(&format!(
        "INSERT INTO outbox_events SELECT * FROM jsonb_populate_recordset(NULL::outbox_events, '{rows}')"
    ));
    let (mut program, later) = prepared(&upgraded, &kafka.bootstrap(), "upgraded", "");
    program.start_streaming();
    later.run("SELECT emit('k1')");
    later.await_all_confirmed(Duration::from_secs(15));
    let records = reader::read_all(&kafka.bootstrap(), "upgraded");
    let keys: Vec<_> = records.iter().map(|record| record.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [b"k1", b"k2", b"k1"], "{}", program.log());
}
