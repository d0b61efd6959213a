//! The primary is lost and its standby is promoted: the relay continues there, or reports the gap.
//!
//! Failover slots came with PostgreSQL 17. On an older server the same tests insist that it refuses one by name and
//! that a promoted standby without the slot is a gap; `make test-versions` runs them on both kinds.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use walrelay::lsn::Lsn;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::reader::Truth;
use crate::support::source;
use crate::support::source::Sql;

const PARTITIONS: i32 = 3;
/// Long enough for a slot to be synchronized, which waits for the primary's next snapshot.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// A primary, its standby, and a relay with both as hosts.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    program: Program,
}

/// Sets the source up on a server with these settings, and creates a standby of it. `failover` is `source.failover`.
fn pair(primary: Postgres, kafka: &Kafka, topic: &str, failover: &str, settings: &[&str]) -> Pair {
    kafka.create_topic(topic, PARTITIONS);
    let more = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n[source]\nfailover = \"{failover}\"\n"
    );
    Program::new(&primary.url(), &kafka.bootstrap(), &more).setup();
    let sql = Sql::connect(&primary.url());
    sql.prepare();
    sql.run("SELECT pg_create_physical_replication_slot('standby', true)");
    settings.iter().for_each(|setting| sql.run(&format!("ALTER SYSTEM SET {setting}")));
    let mut lines = vec!["primary_slot_name = 'standby'".to_owned(), "hot_standby_feedback = on".to_owned()];
    if has_failover_slots(&primary) {
        lines.extend(["sync_replication_slots = on".to_owned(), "synchronized_standby_slots = ''".to_owned()]);
    }
    drop(sql);
    let standby = primary.start_standby(&lines).unwrap();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let program = Program::new(&url, &kafka.bootstrap(), &more);
    Pair { primary, standby, program }
}

fn has_failover_slots(postgres: &Postgres) -> bool {
    let sql = Sql::connect(&postgres.url());
    sql.text("SELECT current_setting('server_version_num')").parse::<u32>().unwrap() >= 170_000
}

/// On a server without failover slots: `setup` fails with the next step.
fn expect_failover_error(postgres: &Postgres) {
    let more = "[[outbox]]\ntable = \"public.outbox_events\"\n\n[source]\nfailover = \"on\"\n";
    let program = Program::new(&postgres.url(), "127.0.0.1:9", more);
    let refused = program.verb(&["setup", "--apply", "--with-outbox"]);
    assert_eq!(refused.code, Some(64), "{}", refused.notes);
    assert!(refused.notes.contains("needs PostgreSQL 17"), "{}", refused.notes);
    assert!(refused.notes.contains("set source.failover = \"auto\""), "{}", refused.notes);
    let advised = program.verb(&["setup", "--apply", "--with-outbox", "--set", "source.failover=auto"]);
    assert_eq!(advised.code, Some(0), "{}", advised.notes);
}

/// Waits until the slot is persistent on the standby, so that it survives the promotion.
fn await_synchronized(pair: &Pair) {
    let (primary, standby) = (Sql::connect(&pair.primary.url()), Sql::connect(&pair.standby.url()));
    assert_eq!(
        primary.text("SELECT failover::text FROM pg_replication_slots WHERE slot_name = 'walrelay'"),
        "true",
        "setup makes a failover slot by itself"
    );
    let synchronized = "SELECT count(*)::text FROM pg_replication_slots
                        WHERE slot_name = 'walrelay' AND synced AND NOT temporary AND invalidation_reason IS NULL";
    let began = std::time::Instant::now();
    while standby.text(synchronized) != "1" {
        let log = || std::fs::read_to_string(pair.standby.folder().join("log")).unwrap_or_default();
        assert!(began.elapsed() < SYNC_LIMIT, "{}", log());
        // The standby's slot waits for a record that otherwise comes only every 15 s.
        primary.run("SELECT pg_log_standby_snapshot()");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn e15_a_synchronized_slot_goes_on_at_the_promoted_standby_without_loss() {
    let (primary, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    if !has_failover_slots(&primary) {
        return expect_failover_error(&primary);
    }
    let mut pair = pair(primary, kafka, "promoted", "auto", &["synchronized_standby_slots = 'standby'"]);
    pair.program.start_streaming();
    let writers = source::writers(&pair.primary.url(), 2, 400_000, 100);
    await_synchronized(&pair);
    // Under load, with a synchronous standby.
    pair.primary.stop(StopMode::Fast).unwrap();
    writers.into_iter().for_each(|writer| drop(writer.join()));
    // A standby is read-only: until it is promoted no host is suitable.
    pair.program.await_state("source_reconnecting");
    pair.standby.promote().unwrap();
    pair.program.await_state("streaming");
    let sql = Sql::connect(&pair.standby.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(60));
    // Every commit is on the promoted server, because the primary waited for it.
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "promoted"), &sql.truth(), PARTITIONS);
    assert!(verdict.events > 100, "{verdict:?}");
    assert!(pair.program.log().contains("server was promoted"), "{}", pair.program.log());
    assert_eq!(pair.program.terminate(), Some(0), "{}", pair.program.log());
    // From now on the position that was stored after the promotion counts.
    pair.program.start_streaming();
    sql.run("SELECT emit('k2')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let again = reader::check(&reader::read_all(&kafka.bootstrap(), "promoted"), &sql.truth(), PARTITIONS);
    assert_eq!((again.events, again.repeated), (verdict.events + 1, verdict.repeated), "{}", pair.program.log());
}

#[test]
fn e15_events_that_the_promoted_standby_lacks_give_a_warning_and_all_others_arrive() {
    let (primary, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    if !has_failover_slots(&primary) {
        return expect_failover_error(&primary);
    }
    // Nothing waits for the standby.
    let mut pair = pair(primary, kafka, "phantoms", "auto", &[]);
    pair.program.start_streaming();
    source::writers(&pair.primary.url(), 1, 500, 50).into_iter().for_each(|writer| writer.join().unwrap());
    await_synchronized(&pair);
    pair.standby.stop(StopMode::Fast).unwrap();
    let sql = Sql::connect(&pair.primary.url());
    sql.run("SELECT emit('k' || i % 50) FROM generate_series(1, 200) i");
    sql.await_all_confirmed(Duration::from_secs(15));
    let (delivered, confirmed) = (sql.truth(), sql.confirmed());
    drop(sql);
    pair.primary.stop(StopMode::Immediate).unwrap();
    pair.standby.resume().unwrap();
    pair.standby.promote().unwrap();
    pair.program.await_state("streaming");
    let sql = Sql::connect(&pair.standby.url());
    sql.run("SELECT emit('k' || i % 50) FROM generate_series(1, 100) i");
    sql.await_all_confirmed(Duration::from_secs(60));
    let (records, truth) = (reader::read_all(&kafka.bootstrap(), "phantoms"), sql.truth());
    let (had, phantoms) = sort(records, &truth);
    reader::check(&had, &truth, PARTITIONS);
    let phantoms: HashSet<String> = phantoms.iter().map(Record::event_id).collect();
    let lost = delivered.values().flatten().filter(|id| !truth.values().flatten().any(|kept| kept == *id)).count();
    assert_eq!(phantoms.len(), lost, "what is in Kafka and not in the database is what the standby never had");
    assert_eq!(lost, 200);
    let log = pair.program.log();
    assert!(log.contains("events in Kafka may be missing in the database"), "{log}");
    // The range: from the slot to the last delivery at the old primary, which the standby's row does not have.
    let warned = log.lines().find(|line| line.contains("server was promoted")).unwrap();
    let warned: serde_json::Value = serde_json::from_str(warned).unwrap();
    let lsn = |field: &str| warned[field].as_str().unwrap().parse::<Lsn>().unwrap();
    assert!(lsn("slot") < confirmed && lsn("delivered") >= confirmed, "{warned}: {confirmed}");
}

#[test]
fn e15_a_position_lost_in_the_failover_is_no_gap_if_the_slot_was_synchronized() {
    let (primary, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    if !has_failover_slots(&primary) {
        return expect_failover_error(&primary);
    }
    let mut pair = pair(primary, kafka, "row-lost", "auto", &[]);
    pair.program.start_streaming();
    let sql = Sql::connect(&pair.primary.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let row = sql.lsn("SELECT position FROM walrelay.position");
    sql.run("SELECT emit('k2')");
    sql.await_confirmed(sql.lsn(&format!("SELECT '{row}'::pg_lsn + 1")), Duration::from_secs(15));
    await_synchronized(&pair);
    let standby = Sql::connect(&pair.standby.url());
    let began = std::time::Instant::now();
    while standby.confirmed() <= row {
        assert!(began.elapsed() < SYNC_LIMIT, "{} is copied, not more than {row}", standby.confirmed());
        thread::sleep(Duration::from_millis(100));
    }
    drop((sql, standby));
    pair.program.kill();
    pair.primary.stop(StopMode::Immediate).unwrap();
    pair.standby.promote().unwrap();
    // As if the standby had not received the last WAL with the row: slots are synchronized separately.
    let sql = Sql::connect(&pair.standby.url());
    sql.run(&format!("UPDATE walrelay.position SET position = '{row}'"));
    pair.program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(60));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "row-lost"), &sql.truth(), PARTITIONS);
    assert_eq!(verdict.events, 3, "{}", pair.program.log());
    assert!(pair.program.log().contains("server was promoted"), "{}", pair.program.log());
    // A slot that was moved since is a gap.
    pair.program.kill();
    sql.run(&format!("UPDATE walrelay.position SET position = '{row}', timeline = 1; SELECT emit('k2')"));
    sql.run("SELECT pg_replication_slot_advance('walrelay', pg_current_wal_lsn())");
    pair.program.start();
    assert_eq!(pair.program.wait(), Some(66), "{}", pair.program.log());
    assert!(pair.program.log().contains("WR-6611"), "{}", pair.program.log());
}

#[test]
fn e14_a_promoted_standby_without_the_slot_is_a_gap_and_ends_with_66() {
    let (primary, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let mut pair = pair(primary, kafka, "unsynchronized", "off", &[]);
    pair.program.start_streaming();
    let sql = Sql::connect(&pair.primary.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    drop(sql);
    pair.primary.stop(StopMode::Fast).unwrap();
    pair.standby.promote().unwrap();
    assert_eq!(pair.program.wait(), Some(66), "{}", pair.program.log());
    let log = pair.program.log();
    assert!(log.contains("does not exist") && log.contains("setup --apply --accept-gap"), "{log}");
    let accepted = pair.program.verb(&["setup", "--apply", "--accept-gap"]);
    assert_eq!(accepted.code, Some(0), "{}", accepted.notes);
    pair.program.start_streaming();
    let sql = Sql::connect(&pair.standby.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    reader::check(&reader::read_all(&kafka.bootstrap(), "unsynchronized"), &sql.truth(), PARTITIONS);
}

/// Splits the records into those of events that the database has, and the others.
fn sort(records: Vec<Record>, truth: &Truth) -> (Vec<Record>, Vec<Record>) {
    let ids: HashSet<&String> = truth.values().flatten().collect();
    records.into_iter().partition(|record| ids.contains(&record.event_id()))
}
