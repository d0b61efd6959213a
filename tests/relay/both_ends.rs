//! A start looks at PostgreSQL and at Kafka: what is wrong for good on one of them ends it, also while the other is
//! down.

use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery;
use super::poll;
use super::shutdown::stop_fast;
use crate::support::kafka::Kafka;
use crate::support::kafka::free_port;
use crate::support::program::Program;
use crate::support::source::Sql;

/// An address without a listener.
const DOWN: &str = "127.0.0.1:1";
/// Three attempts with their backoff, and not the minutes of an outage.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs it to its end, and checks the exit code, the error's code and that it takes only seconds.
fn ends(program: &mut Program, what: &str, exit: i32, code: &str) {
    let (before, began) = (program.log().len(), Instant::now());
    program.start();
    let ended = program.wait();
    let log = program.log()[before..].to_owned();
    assert_eq!(ended, Some(exit), "{what}: {log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains(code) && last.contains("\"next\":"), "{what}: {last}");
    assert!(began.elapsed() < LIMIT, "{what}: {:?}", began.elapsed());
}

fn with_a_role() -> Postgres {
    let hba = vec!["host all relay 127.0.0.1/32 scram-sha-256".into()];
    let postgres = Postgres::start(Options::default().with_hba(hba)).unwrap();
    Sql::connect(&postgres.url()).run("CREATE ROLE relay LOGIN PASSWORD 'right'");
    postgres
}

fn as_role(postgres: &Postgres, password: &str) -> String {
    format!("postgres://relay:{password}@127.0.0.1:{}/postgres", postgres.port())
}

#[test]
fn a_fatal_error_of_postgres_ends_the_relay_while_kafka_is_down() {
    let postgres = with_a_role();
    let (mut program, sql) = delivery::prepared(&postgres, DOWN, "never", "");
    let publication = "CREATE PUBLICATION walrelay FOR TABLE outbox_events WITH (publish = 'insert', \
                       publish_via_partition_root = true)";
    for (wrong, exit, code, right) in [
        ("ALTER TABLE outbox_events RENAME TO aside", 65, "WR-6504", "ALTER TABLE aside RENAME TO outbox_events"),
        (
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            65,
            "WR-6512",
            "ALTER SYSTEM RESET synchronous_standby_names",
        ),
        ("DELETE FROM walrelay.position", 71, "WR-7102", ""),
    ] {
        let kept = "CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM walrelay.position";
        sql.run(kept);
        sql.run(wrong);
        sql.run("SELECT pg_reload_conf()");
        ends(&mut program, wrong, exit, code);
        sql.run(right);
        sql.run("SELECT pg_reload_conf()");
        sql.run("INSERT INTO walrelay.position SELECT * FROM kept ON CONFLICT DO NOTHING");
    }
    sql.run("SELECT emit('k1')");
    sql.run("SELECT pg_replication_slot_advance('walrelay', pg_current_wal_insert_lsn())");
    ends(&mut program, "a slot that was moved", 66, "WR-6611");
    sql.run("DROP PUBLICATION walrelay");
    ends(&mut program, "no publication", 65, "WR-6502");
    sql.run(publication);
    sql.run("SELECT pg_drop_replication_slot('walrelay')");
    ends(&mut program, "no slot", 66, "WR-6601");

    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"never\"\n";
    let mut denied = Program::new(&as_role(&postgres, "right"), DOWN, outbox);
    assert_eq!(program.verb(&["setup", "--apply", "--accept-gap"]).code, Some(0));
    ends(&mut denied, "a role without rights on the position", 71, "WR-7101");
    sql.run("GRANT USAGE ON SCHEMA walrelay TO relay; GRANT SELECT, INSERT, UPDATE ON walrelay.position TO relay");
    ends(&mut denied, "a role that may not replicate", 67, "WR-6704");
    let mut refused = Program::new(&as_role(&postgres, "wrong"), DOWN, outbox);
    ends(&mut refused, "a wrong password", 67, "WR-6704");
}

#[test]
fn a_fatal_error_of_a_polled_postgres_ends_the_relay_while_kafka_is_down() {
    let postgres = with_a_role();
    let (mut program, sql) = poll::prepared(&postgres, DOWN, "never", "");
    for (wrong, exit, code, right) in [
        ("ALTER TABLE outbox_events RENAME TO aside", 65, "WR-6504", "ALTER TABLE aside RENAME TO outbox_events"),
        (
            "ALTER SEQUENCE outbox_events_sequence_seq CACHE 9",
            65,
            "WR-6520",
            "ALTER SEQUENCE outbox_events_sequence_seq CACHE 1",
        ),
        (
            "ALTER TABLE outbox_events DROP COLUMN published_at",
            65,
            "WR-6520",
            "ALTER TABLE outbox_events ADD published_at timestamptz",
        ),
    ] {
        sql.run(wrong);
        ends(&mut program, wrong, exit, code);
        sql.run(right);
    }
    let role = |password: &str| poll::polling(&as_role(&postgres, password), DOWN, "never", "");
    ends(&mut role("right"), "a role without rights", 67, "WR-6720");
    ends(&mut role("wrong"), "a wrong password", 67, "WR-6704");
}

#[test]
fn f13_wrong_credentials_for_kafka_end_the_relay_while_postgres_is_down() {
    let (_kafka, address) = Kafka::with_login();
    let folder = std::env::temp_dir().join(format!("walrelay-both-ends-{}", std::process::id()));
    fs::write(&folder, "wrong").unwrap();
    let sasl = format!(
        "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"walrelay\"\npassword = {{ file = \"{}\" }}\n",
        folder.display()
    );
    for mode in ["wal", "poll"] {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
        let mut program = Program::new(&url, &address, &format!("{sasl}[source]\nmode = \"{mode}\"\n"));
        ends(&mut program, mode, 67, "WR-6731");
        // Both errors are logged.
        assert!(program.log().contains("WR-6901"), "{mode}: {}", program.log());
    }
    fs::remove_file(folder).unwrap();
}

#[test]
fn while_both_are_down_both_are_logged_and_a_checked_postgres_holds_no_slot() {
    let both = |mode: &str| {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
        let mut program = Program::new(&url, DOWN, &format!("[source]\nmode = \"{mode}\"\n"));
        program.start();
        program.await_that("both to be named", |program| {
            let log = program.log();
            log.contains("WR-6901") && log.contains("WR-6930")
        });
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    };
    both("wal");
    both("poll");

    let postgres = Postgres::start(Options::default()).unwrap();
    let (mut program, sql) = delivery::prepared(&postgres, DOWN, "never", "");
    let row = "SELECT position::text || coalesce(released_at::text, '') || coalesce(catalog_state, '') FROM \
               walrelay.position";
    sql.run("ALTER PUBLICATION walrelay ADD TABLE other; SELECT emit('k1')");
    let (stored, confirmed) = (sql.text(row), sql.confirmed());
    program.start();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(sql.text("SELECT active::text FROM pg_replication_slots"), "false");
        assert_eq!(sql.text("SELECT count(*)::text FROM pg_stat_replication WHERE state <> 'startup'"), "0");
        thread::sleep(Duration::from_millis(5));
    }
    // A check changes nothing.
    assert_eq!((sql.text(row), sql.confirmed()), (stored, confirmed));
    drop(sql);
    stop_fast(&postgres, &program);
    program.await_log("WR-6901");
    postgres.resume().unwrap();
    // A later error is noticed as well.
    Sql::connect(&postgres.url()).run("DROP PUBLICATION walrelay");
    assert_eq!(program.wait(), Some(65), "{}", program.log());
}

#[test]
fn the_probe_of_the_brokers_requests_no_topic_and_creates_none() {
    let (kafka, proxy) = Kafka::behind_proxy();
    // About 30 bytes of metadata for each partition.
    kafka.create_topic("wide", 1_000);
    kafka.create_topic("narrow", 1);
    let postgres = Postgres::start(Options::default()).unwrap();
    let (mut program, sql) = delivery::prepared(&postgres, &proxy.address(), "narrow", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    program.await_that("the event", |program| program.metric("walrelay_events_published_total") == Some(1.0));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let received = proxy.received();
    assert!((100..20_000).contains(&received), "{received} bytes");
    assert!(program.log().contains("\"cluster\":\""), "{}", program.log());
    assert_eq!(kafka.topics(), ["narrow", "wide"]);
}
