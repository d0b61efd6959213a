//! The polling source: committed events are delivered in order, with several instances and after every failure.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::shutdown::stop_fast;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::reader::Verdict;
use crate::support::source;
use crate::support::source::Sql;

const PARTITIONS: i32 = 6;
pub(super) const UNPUBLISHED: &str = "SELECT count(*)::text FROM outbox_events WHERE published_at IS NULL";

/// A configuration that polls and publishes to this topic.
pub(super) fn polling(url: &str, brokers: &str, topic: &str, more: &str) -> Program {
    let text = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n[source]\nmode = \
         \"poll\"\n[source.poll]\n{more}\n"
    );
    Program::new(url, brokers, &text)
}

/// A table that is set up for polling, and the configuration.
pub(super) fn prepared(postgres: &Postgres, brokers: &str, topic: &str, more: &str) -> (Program, Sql) {
    let program = polling(&postgres.url(), brokers, topic, more);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    (program, sql)
}

/// Waits until a query gives this.
pub(super) fn await_text(sql: &Sql, query: &str, expected: &str, program: &Program) {
    let began = std::time::Instant::now();
    while sql.text(query) != expected {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{query} gives {}, not {expected}: {}",
            sql.text(query),
            program.log()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Transactions that stay open for random times after their insert, so that numbers and commits come in different
/// orders.
fn slow_writers(url: &str, count: i32, transactions: i32) -> Vec<JoinHandle<()>> {
    let sql = Sql::connect(url);
    sql.run(
        "CREATE OR REPLACE PROCEDURE dawdle(seed int, transactions int) LANGUAGE plpgsql AS $$
         DECLARE i int;
         BEGIN
             PERFORM setseed(seed / 1000.0);
             FOR i IN 1..transactions LOOP
                 PERFORM emit('own' || seed);
                 PERFORM emit('k' || floor(random() * 40)::int);
                 PERFORM pg_sleep(random() * 0.05);
                 COMMIT;
             END LOOP;
         END $$",
    );
    let writer = |seed| {
        let url = url.to_owned();
        thread::spawn(move || Sql::connect(&url).run(&format!("CALL dawdle({seed}, {transactions})")))
    };
    (1..=count).map(writer).collect()
}

#[test]
fn g1_g2_g3_every_committed_event_arrives_once_in_order_and_a_stop_repeats_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-delivery", PARTITIONS);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-delivery", "");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 4, 12_000, 1_000);
    // A stop in the middle of the work.
    thread::sleep(Duration::from_millis(700));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    program.start_streaming();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    await_text(&sql, UNPUBLISHED, "0", &program);
    let truth = sql.truth();
    let total = truth.values().map(Vec::len).sum();
    let records = reader::read_all(&kafka.bootstrap(), "poll-delivery");
    assert_eq!(reader::check(&records, &truth, PARTITIONS), Verdict { events: total, repeated: 0 });
    assert!(total >= 12_000);
    let status = program.get("/status").unwrap().1.replace(' ', "");
    for part in ["\"mode\":\"poll\"", "\"slot\":null", "\"publication\":null", "\"slot_view\":null"] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    program.await_that("the backlog to be counted", |program| {
        program.metric("walrelay_unpublished_events").is_some_and(|count| count == 0.0)
    });
    assert_eq!(sql.text("SELECT count(*)::text FROM pg_replication_slots"), "0", "no slot was made");
}

#[test]
fn d8_transactions_that_commit_out_of_sequence_are_neither_missed_nor_swapped() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-late", PARTITIONS);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-late", "interval = \"5ms\"");
    program.start_streaming();
    let writers = slow_writers(&postgres.url(), 8, 100);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    await_text(&sql, UNPUBLISHED, "0", &program);
    let inversions = sql.text(
        "SELECT count(*)::text FROM (SELECT sequence, published_at,
             max(published_at) OVER (ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier
         FROM outbox_events) AS rows WHERE published_at < earlier",
    );
    assert_ne!(inversions, "0", "the writers have committed in the order of their numbers: nothing was tested");
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "poll-late"), &sql.truth(), PARTITIONS);
    assert_eq!(verdict, Verdict { events: 1_600, repeated: 0 });
}

#[test]
fn g4_g9_two_instances_share_the_work_although_one_is_killed_repeatedly() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-two", PARTITIONS);
    let more = "interval = \"5ms\"\nmax_batch_rows = 50";
    let (mut first, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-two", more);
    let mut second = polling(&postgres.url(), &kafka.bootstrap(), "poll-two", more);
    first.start_streaming();
    let writers = source::writers(&postgres.url(), 2, 8_000, 200);
    for kill in 0..5 {
        second.start();
        thread::sleep(Duration::from_millis(250 + kill * 97 % 300));
        second.kill();
    }
    second.start_streaming();
    let more_writers = slow_writers(&postgres.url(), 4, 40);
    writers.into_iter().chain(more_writers).for_each(|writer| writer.join().unwrap());
    await_text(&sql, UNPUBLISHED, "0", &first);
    for program in [&first, &second] {
        assert!(
            program.metric("walrelay_events_published_total").is_some_and(|count| count > 0.0),
            "{}",
            program.log()
        );
    }
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "poll-two"), &sql.truth(), PARTITIONS);
    assert!(verdict.events > 8_000 && verdict.repeated <= 5 * 50, "at most a batch for each kill: {verdict:?}");
}

#[test]
fn a_row_locked_by_another_session_holds_back_only_its_key() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-lock", 1);
    // So few rows that the blocked ones alone fill a batch.
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-lock", "max_batch_rows = 4");
    sql.run("SELECT emit('k1'); SELECT emit('k2'); SELECT emit('k1')");
    let operator = Sql::connect(&postgres.url());
    operator.run(
        "BEGIN; UPDATE outbox_events SET created_at = created_at WHERE id = (SELECT event_id FROM truth WHERE key = 'k1'
         AND version = 1)",
    );
    program.start_streaming();
    for _ in 0..10 {
        sql.run("SELECT emit('k1')");
    }
    for key in 2..20 {
        sql.run(&format!("SELECT emit('k{key}')"));
    }
    await_text(&sql, &format!("{UNPUBLISHED} AND aggregate_id <> 'k1'"), "0", &program);
    let keys =
        |records: &[Record]| -> Vec<Vec<u8>> { records.iter().filter_map(|record| record.key.clone()).collect() };
    let records = reader::read_all(&kafka.bootstrap(), "poll-lock");
    assert!(!keys(&records).contains(&b"k1".to_vec()), "nothing of k1 has overtaken its first row");
    operator.run("COMMIT");
    await_text(&sql, UNPUBLISHED, "0", &program);
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "poll-lock"), &sql.truth(), 1);
    assert_eq!(verdict, Verdict { events: 31, repeated: 0 });
}

#[test]
fn f1_while_kafka_is_down_no_transaction_stays_open_and_everything_arrives_afterwards() {
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("poll-down", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-down", "batch_timeout = \"2s\"");
    program.start_streaming();
    kafka.kill(0);
    source::writers(&postgres.url(), 1, 2_000, 100).into_iter().for_each(|writer| writer.join().unwrap());
    program.await_state("sink_blocked");
    let others = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'walrelay'";
    await_text(&sql, others, "0", &program);
    assert_eq!((program.get("/livez").unwrap().0, program.get("/readyz").unwrap().0), (200, 503));
    kafka.resume(0);
    program.await_state("streaming");
    await_text(&sql, UNPUBLISHED, "0", &program);
    reader::check(&reader::read_all(&kafka.bootstrap(), "poll-down"), &sql.truth(), 3);
}

#[test]
fn e1_e3_it_waits_for_postgres_and_reconnects() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-postgres", 3);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-postgres", "max_batch_rows = 100");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 2, 200_000, 100);
    let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walrelay'";
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(200));
        sql.run(ours);
    }
    drop(sql);
    stop_fast(&postgres, &program);
    writers.into_iter().for_each(|writer| drop(writer.join()));
    program.await_state("source_reconnecting");
    postgres.resume().unwrap();
    program.await_state("streaming");
    let sql = Sql::connect(&postgres.url());
    await_text(&sql, UNPUBLISHED, "0", &program);
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "poll-postgres"), &sql.truth(), 3);
    assert!(verdict.events > 100 && verdict.repeated <= 4 * 100, "at most a batch for each cut: {verdict:?}");
}

#[test]
fn e12_missing_privileges_stop_with_67_and_the_grant() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-rights", 1);
    let (owner, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-rights", "");
    sql.run("CREATE ROLE poller LOGIN; GRANT SELECT ON outbox_events TO poller; SELECT emit('k1')");
    let url = postgres.url().replace("postgres@", "poller@");
    let mut program = polling(&url, &kafka.bootstrap(), "poll-rights", "");
    program.start();
    assert_eq!(program.wait(), Some(67), "{}", program.log());
    let grant = "GRANT SELECT, UPDATE (\"published_at\") ON \"public\".\"outbox_events\" TO \"poller\"";
    // As a log record quotes it.
    assert!(program.log().replace("\\\"", "\"").contains(grant), "{}", program.log());
    // The grants of setup are enough, without REPLICATION or privileges on other columns.
    let ended = owner.verb(&["setup", "--apply", "--role", "nobody"]);
    assert_eq!(ended.code, Some(67), "before anything is created: {}", ended.notes);
    let ended = owner.verb(&["setup", "--apply", "--role", "poller"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program.start_streaming();
    await_text(&sql, UNPUBLISHED, "0", &program);
    let rights = "SELECT (rolreplication OR rolsuper)::text FROM pg_roles WHERE rolname = 'poller'";
    assert_eq!(sql.text(rights), "false");
}

#[test]
fn c10_a_table_that_does_not_fit_for_polling_stops_with_65_and_the_difference() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-unfit", "");
    for (sql_text, part) in [
        ("ALTER TABLE outbox_events ALTER COLUMN sequence SET CACHE 20", "CACHE 20"),
        ("ALTER TABLE outbox_events DROP COLUMN sequence", "that is a number and NOT NULL"),
    ] {
        sql.run(sql_text);
        program.start();
        assert_eq!(program.wait(), Some(65), "{}", program.log());
        assert!(program.log().contains(part), "{part}: {}", program.log());
    }
}

#[test]
fn x29_rows_with_the_same_ctid_in_two_partitions_are_distinguished() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-parts", 1);
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "CREATE SEQUENCE numbers;
         CREATE TABLE outbox_events (id uuid DEFAULT gen_random_uuid(), aggregate_type text, aggregate_id text, \
         event_type text,
             payload jsonb, created_at timestamptz DEFAULT now(), day date, sequence bigint NOT NULL DEFAULT \
             nextval('numbers'))
             PARTITION BY RANGE (day);
         CREATE TABLE outbox_1 PARTITION OF outbox_events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE TABLE outbox_2 PARTITION OF outbox_events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, day) VALUES
             ('Order', 'a', 'E', '1', '2026-01-05'), ('Order', 'b', 'E', '2', '2026-02-05')",
    );
    let mut program = polling(&postgres.url(), &kafka.bootstrap(), "poll-parts", "");
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    assert_eq!(sql.text("SELECT count(DISTINCT ctid)::text FROM outbox_events"), "1", "both have the same ctid");
    let operator = Sql::connect(&postgres.url());
    operator.run("BEGIN; SELECT FROM outbox_1 FOR UPDATE");
    program.start_streaming();
    let open = "SELECT string_agg(aggregate_id, ' ') FROM outbox_events WHERE published_at IS NULL";
    await_text(&sql, open, "a", &program);
    operator.run("COMMIT");
    await_text(&sql, open, "", &program);
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poll-parts").len(), 2);
}

#[test]
fn c11_polling_continues_after_an_alter_table() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-altered", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-altered", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    await_text(&sql, UNPUBLISHED, "0", &program);
    sql.run(
        "ALTER TABLE outbox_events ALTER COLUMN event_type TYPE varchar(50), ADD COLUMN more text; SELECT emit('k1')",
    );
    await_text(&sql, UNPUBLISHED, "0", &program);
    reader::check(&reader::read_all(&kafka.bootstrap(), "poll-altered"), &sql.truth(), 1);
    assert!(!program.log().contains("WARN"), "without a reconnect: {}", program.log());
}

#[test]
fn d18_a_row_with_a_time_in_the_future_is_delivered_with_the_current_time() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-ahead", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-ahead", "");
    program.start_streaming();
    for written in ["12345-01-01", "tomorrow"] {
        sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, created_at)
             VALUES ('Order', 'k1', 'E', '1', '{written}')"
        ));
    }
    await_text(&sql, UNPUBLISHED, "0", &program);
    let now = sql.text("SELECT (extract(epoch FROM now()) * 1000)::int8::text").parse::<i64>().unwrap();
    let records = reader::read_all(&kafka.bootstrap(), "poll-ahead");
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.timestamp_millis.unwrap() <= now), "{records:?}");
    assert!(program.log().contains("created_at is in the future"), "{}", program.log());
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn d15_d17_a_row_that_cannot_become_a_record_stops_with_68_after_the_earlier_events() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-poison", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-poison", "");
    let id = "00000000-0000-7000-8000-000000000001";
    sql.run(&format!(
        "SELECT emit('k1');
         INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers)
         VALUES ('{id}', 'Order', 'k1', 'E', '1', '{{\"event_id\": \"forged\"}}');
         SELECT emit('k1')"
    ));
    for _ in 0..2 {
        program.start();
        assert_eq!(program.wait(), Some(68), "{}", program.log());
    }
    let log = program.log();
    assert!(log.contains("WR-6801") && log.contains(id) && log.contains("reserved name"), "{log}");
    assert!(!log.contains("forged"), "nothing of the row is logged: {log}");
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poll-poison").len(), 1, "nothing after it, and nothing twice");
    assert_eq!(sql.text(UNPUBLISHED), "2");
}

#[test]
fn f20_a_record_that_the_broker_rejects_is_found_in_its_batch() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic_with("poll-refused", 1, &[("max.message.bytes", "20000")]);
    let more = "\n[kafka.properties]\n\"linger.ms\" = 200\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poll-refused", more);
    let id = "00000000-0000-7000-8000-000000000001";
    // Incompressible, so that it has the same size for the broker.
    let noise = "(SELECT to_jsonb(string_agg(md5(random()::text), '')) FROM generate_series(1, 2000))";
    sql.run(&format!(
        "SELECT emit('k1'); INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload)
         VALUES ('{id}', 'Order', 'k1', 'E', {noise}); SELECT emit('k1')"
    ));
    program.start();
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    let log = program.log();
    assert!(log.contains("WR-6810") && log.contains(id), "{log}");
    assert!(log.contains("one record at a time"), "{log}");
}

#[test]
fn records_are_the_same_as_those_from_the_wal() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let tables = ["jsonb", "json", "text", "bytea"];
    let outboxes = |source: &str, more: &str| -> String {
        let outbox = |kind: &&str| {
            format!(
                "[[outbox]]\ntable = \"public.out_{kind}\"\ntopic = \"same-{source}-{kind}\"\ntimestamp = \
                 \"created_at\"\n\
                 {more}\npartition = \"part\"\n\n"
            )
        };
        tables.iter().map(outbox).collect()
    };
    let sql = Sql::connect(&postgres.url());
    for kind in tables {
        kafka.create_topic(&format!("same-log-{kind}"), 4);
        kafka.create_topic(&format!("same-poll-{kind}"), 4);
        sql.run(&format!(
            "CREATE TABLE out_{kind} (id bigint, aggregate_type varchar(20), aggregate_id uuid, event_type text,
                 payload {kind}, headers json, created_at timestamptz, part smallint)"
        ));
    }
    let mut log =
        Program::new(&postgres.url(), &kafka.bootstrap(), &outboxes("log", "headers = [\"event_id\", \"event_type\"]"));
    let poll_text = format!("{}[source]\nmode = \"poll\"\n", outboxes("poll", ""));
    let mut poll = Program::new(&postgres.url(), &kafka.bootstrap(), &poll_text);
    for program in [&log, &poll] {
        let ended = program.verb(&["setup", "--apply"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
    }
    log.start_streaming();
    poll.start_streaming();
    let payloads: [&[&str]; 4] = [
        &["'{\"b\":  1, \"a\": [1,2.50, \"\\u00fc\"]}'", "NULL", "'null'", "'1e400'"],
        &["'{\"b\":  1, \"a\": [1,2]}'", "NULL"],
        &["'grüße'", "''", "NULL", "repeat('y', 300000)"],
        &["'\\x00ff10'", "'\\x'", "NULL"],
    ];
    for (kind, values) in tables.iter().zip(payloads) {
        for (number, value) in values.iter().enumerate() {
            sql.run(&format!(
                "INSERT INTO out_{kind} VALUES ({number} - 2, 'Ä', gen_random_uuid(), 't{number}', {value},
                 '{{\"traceparent\": \"00-ab\", \"n\": 1.50}}', '2026-01-05 10:00:00.123456+02', NULLIF({number} % 2, \
                 0))"
            ));
        }
    }
    sql.await_all_confirmed(Duration::from_secs(15));
    assert!(log.metric("walrelay_outbox_age_seconds_sum") > Some(1e6), "they were made in January");
    for (kind, values) in tables.iter().zip(payloads) {
        await_text(&sql, &format!("SELECT count(*)::text FROM out_{kind} WHERE published_at IS NULL"), "0", &poll);
        let read = |source: &str| {
            let mut records = reader::read_all(&kafka.bootstrap(), &format!("same-{source}-{kind}"));
            records.sort_by_key(|record| (record.partition, record.offset));
            records
        };
        let mut polled = read("poll");
        for record in &mut polled {
            let produced_at = record.header("produced_at").map(str::to_owned);
            assert_eq!(produced_at.as_deref(), Some("2026-01-05T08:00:00.123456Z"), "when the row was written");
            record.headers.retain(|(name, _)| name != "produced_at");
        }
        assert_eq!(polled.len(), values.len());
        let mut logged = read("log");
        // Rows of different keys may have another order within a partition.
        for records in [&mut polled, &mut logged] {
            records.sort_by_key(Record::event_id);
            records.iter_mut().for_each(|record| record.offset = 0);
        }
        assert_eq!(polled, logged, "{kind}");
    }
}
