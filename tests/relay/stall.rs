//! A Kafka that acknowledges nothing: the cause is named, nothing is repeated for it, and delivery follows the broker's
//! return.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::catalog_check::accept;
use super::delivery::prepared;
use super::gaps::CREATE;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::raw;
use crate::support::reader;
use crate::support::source;

fn is_ready(program: &Program) -> bool {
    program.get("/readyz").is_some_and(|(status, _)| status == 200)
}

#[test]
fn f8_a_missing_topic_is_logged_within_seconds_and_delivery_resumes_once_it_is_created() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "forgotten", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    program.await_that("the missing topic", |program| {
        program.get("/status").is_some_and(|(_, body)| body.contains("topic forgotten does not exist"))
    });
    assert!(!is_ready(&program));
    let log = program.log();
    assert!(log.contains("WR-6932") && log.contains("--create --topic forgotten"), "{log}");
    assert!(
        program.metric("walrelay_errors_total{relay=\"walrelay\",component=\"publish\",code=\"WR-6932\"") >= Some(1.0)
    );
    kafka.create_topic("forgotten", 1);
    sql.await_all_confirmed(Duration::from_secs(30));
    program.await_that("readiness", |program| is_ready(program));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "forgotten").len(), 1);
}

#[test]
fn f8_a_topic_that_stays_missing_ends_with_69_at_the_defaults() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "never-made", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    assert_eq!(program.wait(), Some(69), "{}", program.log());
    assert!(program.log().contains("WR-6932"), "{}", program.log());
}

#[test]
fn f24_a_partition_whose_broker_is_down_is_logged_and_repeats_only_the_open_transaction() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(3));
    kafka.create_topic_without_replicas("one-away", 6);
    let more = "[source]\ndisconnect_on_stall_after = \"2s\"\n[delivery]\nmax_in_flight_bytes = \"1MiB\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "one-away", more);
    program.start_streaming();
    source::writers(&postgres.url(), 1, 500, 200).into_iter().for_each(|writer| writer.join().unwrap());
    sql.await_all_confirmed(Duration::from_secs(30));
    kafka.kill(2);
    source::writers(&postgres.url(), 2, 10_000, 200).into_iter().for_each(|writer| writer.join().unwrap());
    program.await_state("sink_blocked");
    program.await_that("the partition's name", |program| {
        let log = program.log();
        log.contains("of topic one-away has no leader") || log.contains("the leader of partition 0 of topic one-away")
    });
    std::thread::sleep(Duration::from_secs(8));
    assert!(!is_ready(&program), "nothing was delivered since: {}", program.log());
    kafka.resume(2);
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(60));
    program.await_that("readiness", |program| is_ready(program));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "one-away"), &sql.truth(), 6);
    // Only an incomplete transaction is repeated, at most 51 rows of it.
    assert!(verdict.repeated <= 51, "{verdict:?}: {}", program.log());
}

#[test]
fn what_becomes_wrong_with_postgres_while_kafka_is_down_for_long_is_said() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("outage", 1);
    let again = format!("DROP PUBLICATION walrelay; {CREATE}");
    for (store_position, after, wrong, exit, code, right) in [
        // Later than the first look.
        (true, 4, "DROP PUBLICATION walrelay", 65, "WR-6502", CREATE),
        // Right again: only this process knows.
        (false, 0, &again, 66, "WR-6603", ""),
        (true, 0, "SELECT pg_drop_replication_slot('walrelay')", 66, "WR-6601", ""),
    ] {
        let more = format!("[source]\ndisconnect_on_stall_after = \"2s\"\nstore_position = {store_position}\n");
        let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "outage", &more);
        program.start_streaming();
        sql.run("SELECT emit('k1')");
        sql.await_all_confirmed(Duration::from_secs(30));
        kafka.freeze(0);
        sql.run("SELECT emit('k1')");
        program.await_log("WR-6933");
        let active = "SELECT count(*)::text FROM pg_replication_slots WHERE active";
        program.await_that("the slot to be left", |_| sql.text(active) == "0");
        std::thread::sleep(Duration::from_secs(after));
        sql.run(wrong);
        assert_eq!(program.wait(), Some(exit), "{wrong}: {}", program.log());
        assert!(program.log().contains(code), "{wrong}: {}", program.log());
        kafka.thaw(0);
        sql.run(right);
        let accepted = accept(&program);
        assert_eq!(accepted.code, Some(0), "{wrong}: {}", accepted.notes);
        program.start_streaming();
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    }
}

#[test]
fn a_full_relay_leaves_the_slot_before_the_server_may_give_it_to_another() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("full", 1);
    let more = "[source]\ndisconnect_on_stall_after = \"10m\"\n[delivery]\nmax_in_flight_bytes = \"64KiB\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "full", more);
    program.edit("[postgres]\n", "[postgres]\nwal_sender_timeout = \"3s\"\n");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(30));
    kafka.freeze(0);
    sql.run("SELECT emit('k1') FROM generate_series(1, 1000)");
    let active = "SELECT count(*)::text FROM pg_replication_slots WHERE active";
    program.await_that("the slot to be left", |_| sql.text(active) == "0");
    kafka.thaw(0);
    sql.await_all_confirmed(Duration::from_secs(60));
    assert_eq!(reader::check(&reader::read_all(&kafka.bootstrap(), "full"), &sql.truth(), 1).events, 1_001);
}

#[test]
fn f12_a_principal_without_any_write_authorization_ends_with_67_and_the_missing_acl() {
    let (postgres, (kafka, address)) = (Postgres::start(Options::default()).unwrap(), Kafka::guarded_by_scram());
    kafka.create_topic("guarded", 1);
    raw::grant(&kafka.bootstrap(), raw::Resource::Topic, "guarded", raw::Operation::Describe);
    let file = postgres.folder().join("kafka-password");
    std::fs::write(&file, "secret").unwrap();
    let sasl = format!(
        "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"app\"\npassword = {{ file = \"{}\" }}\n",
        file.display()
    );
    let (mut program, sql) = prepared(&postgres, &address, "guarded", &sasl);
    program.start();
    sql.run("SELECT emit('k1')");
    assert_eq!(program.wait(), Some(67), "{}", program.log());
    assert!(program.log().contains("IdempotentWrite"), "{}", program.log());
}

#[test]
fn f10_added_partitions_give_a_warning_with_topic_and_counts() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("widened", 2);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "widened", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    // So that the number is known before it changes.
    std::thread::sleep(Duration::from_secs(6));
    kafka.add_partitions("widened", 5);
    program.await_log("number of partitions changed");
    let log = program.log();
    assert!(log.contains("widened") && log.contains("\"before\":2") && log.contains("\"now\":5"), "{log}");
}
