//! An event that cannot be published stops the relay with its id, and no later position is confirmed.

use std::collections::HashSet;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery::prepared;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const INSERT: &str =
    "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers) VALUES";
const ID: &str = "00000000-0000-7000-8000-000000000001";

#[test]
fn d15_d17_a_row_that_cannot_become_a_record_stops_with_68_and_its_id() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poison-row", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poison-row", "");
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let before = sql.confirmed();
    sql.run(&format!("{INSERT} ('{ID}', 'Order', 'k1', 'E', '1', '{{\"event_id\": \"forged\"}}')"));
    sql.run("SELECT emit('k1')");
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    let log = program.log();
    assert!(log.contains("WR-6801") && log.contains(ID) && log.contains("reserved name"), "{log}");
    assert!(!log.contains("forged"), "nothing of the row is logged: {log}");
    assert!(sql.confirmed() >= before);
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poison-row").len(), 1, "nothing after it is published");
    // The next start stops at it again: it is not skipped.
    program.start();
    assert_eq!(program.wait(), Some(68));
}

#[test]
fn d15_d17_events_before_such_a_row_are_delivered_and_confirmed_even_in_a_short_run() {
    // A broker of its own: the relay waits two seconds for acknowledgements before it ends.
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic("poison-behind", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poison-behind", "");
    // Everything is committed before the relay starts, so it reads the row before any acknowledgement.
    for _ in 0..299 {
        sql.run("SELECT emit('k1')");
    }
    // One more behind it: the server may write WAL of its own after an event, which only a later commit confirms.
    let before = sql.wal_end();
    sql.run("SELECT emit('k1')");
    sql.run(&format!(
        "BEGIN; SELECT emit('k1'); {INSERT} ('{ID}', 'Order', 'k1', 'E', '1', '{{\"event_id\": \"forged\"}}'); COMMIT"
    ));
    for _ in 0..2 {
        program.start();
        assert_eq!(program.wait(), Some(68), "{}", program.log());
        assert!(sql.confirmed() >= before, "confirmed up to {} of {before}: {}", sql.confirmed(), program.log());
    }
    // The transaction of the row is incomplete, so its first event is repeated, and no earlier one.
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poison-behind").len(), 302);
}

#[test]
fn d15_a_row_that_cannot_become_a_record_stops_in_the_middle_of_a_transaction_of_any_size() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poison-large", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poison-large", "");
    sql.run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, headers)
         SELECT 'Order', 'k' || n, 'E', '1', CASE WHEN n = 10 THEN '{\"event_id\": \"forged\"}'::jsonb END
         FROM generate_series(1, 600000) AS n",
    );
    program.start();
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    assert!(program.log().contains("WR-6801"), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "poison-large").len(), 9, "each row before it once");
}

#[test]
fn a_record_within_the_brokers_default_is_sent_and_one_above_the_topics_limit_names_both_limits() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("large-by-default", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "large-by-default", "");
    sql.run("ALTER TABLE outbox_events ALTER COLUMN payload TYPE text");
    program.start_streaming();
    // Incompressible, so that it has the same size for the broker.
    let noise = |bytes: u32| {
        format!(
            "(SELECT left(string_agg(translate(encode(sha512((random()::text || n)::bytea), 'base64'), E'\\n', \
                 ''), ''), {bytes})
                  FROM generate_series(1, {bytes} / 80) AS n)"
        )
    };
    sql.run(&format!("{INSERT} (gen_random_uuid(), 'Order', 'k1', 'E', {}, NULL)", noise(1_030_000)));
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "large-by-default").len(), 1, "{}", program.log());
    kafka.create_topic_with("large-for-topic", 1, &[("max.message.bytes", "500000")]);
    let (mut program, sql) =
        prepared(&postgres, &kafka.bootstrap(), "large-for-topic", "[source]\nslot = \"second\"\n");
    program.start_streaming();
    sql.run(&format!("{INSERT} ('{ID}', 'Order', 'k1', 'E', {}, NULL)", noise(600_000)));
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    for part in ["WR-6810", ID, "max.message.bytes of large-for-topic", "message.max.bytes under [kafka.properties]"] {
        assert!(program.log().contains(part), "{part}: {}", program.log());
    }
}

#[test]
fn a_backlog_older_than_its_topic_allows_is_sent_with_the_current_time_from_either_source() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    for topic in ["old-log", "old-poll"] {
        kafka.create_topic_with(topic, 1, &[("message.timestamp.before.max.ms", "3600000")]);
    }
    let outbox = |topic| {
        format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\ntimestamp = \"created_at\"\n\n")
    };
    let mut log = Program::new(&postgres.url(), &kafka.bootstrap(), &outbox("old-log"));
    let poll_text = format!("{}[source]\nmode = \"poll\"\n", outbox("old-poll"));
    let mut poll = Program::new(&postgres.url(), &kafka.bootstrap(), &poll_text);
    log.setup();
    poll.setup();
    let sql = Sql::connect(&postgres.url());
    for age in ["2 hours", "1 second", "3 hours"] {
        sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, created_at)
             VALUES ('Order', 'k1', 'E', '1', now() - interval '{age}')"
        ));
    }
    log.start_streaming();
    poll.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(30));
    super::poll::await_text(&sql, super::poll::UNPUBLISHED, "0", &poll);
    for (topic, program) in [("old-log", &mut log), ("old-poll", &mut poll)] {
        let mut records = reader::read_all(&kafka.bootstrap(), topic);
        records.sort_by_key(|record| record.offset);
        let hour = 3_600_000;
        let now = sql.text("SELECT (extract(epoch FROM now()) * 1000)::int8::text").parse::<i64>().unwrap();
        assert!(
            records.iter().all(|record| record.timestamp_millis.is_some_and(|millis| millis > now - hour)),
            "{records:?}"
        );
        assert_eq!(records.len(), 3, "{records:?}");
        assert_eq!(program.log().matches("record timestamp rejected").count(), 1, "{}", program.log());
        assert_eq!(program.metric("walrelay_timestamps_replaced_total"), Some(2.0), "{}", program.log());
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    }
}

#[test]
fn d11_a_record_above_the_producers_limit_stops_with_68() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poison-size", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poison-size", "");
    program.start_streaming();
    sql.run(&format!("{INSERT} ('{ID}', 'Order', 'k1', 'E', to_jsonb(repeat('x', 2000000)), NULL)"));
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    assert!(program.log().contains(ID) && program.log().contains("message.max.bytes"), "{}", program.log());
}

#[test]
fn a_record_above_the_in_flight_limit_is_sent_alone() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic_with("larger-than-budget", 1, &[("max.message.bytes", "20000000")]);
    let more = "[delivery]\nmax_in_flight_bytes = \"1MiB\"\n[kafka.properties]\n\"message.max.bytes\" = 12000000\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "larger-than-budget", more);
    program.start_streaming();
    sql.run("SELECT emit('k1')");
    sql.run(&format!("{INSERT} ('{ID}', 'Order', 'k1', 'E', to_jsonb(repeat('x', 10000000)), NULL)"));
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "larger-than-budget").len(), 3);
}

#[test]
fn f20_batches_become_smaller_for_a_topic_with_a_lower_limit() {
    const ROWS: usize = 200;
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic_with("small-batches", 1, &[("max.message.bytes", "100000")]);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "small-batches", "");
    program.start_streaming();
    for _ in 0..6 {
        // 8 kB each, incompressible.
        sql.run(&format!(
            "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload)
             SELECT gen_random_uuid(), 'Order', 'k1', 'E', to_jsonb(pad)
             FROM generate_series(1, {ROWS}) AS n, LATERAL (
                 SELECT string_agg(md5(random()::text || n || m), '') AS pad FROM generate_series(1, 250) AS m) AS p"
        ));
        sql.await_all_confirmed(Duration::from_secs(60));
    }
    let log = program.log();
    let refused = log.matches("batch rejected").count();
    // From a million bytes to 62,500 it is four halves.
    assert!((1..=4).contains(&refused), "{refused} times: {log}");
    let ids: HashSet<String> =
        reader::read_all(&kafka.bootstrap(), "small-batches").iter().map(reader::Record::event_id).collect();
    assert_eq!(ids.len(), 6 * ROWS);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn f20_a_record_that_the_broker_rejects_is_found_in_its_batch() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic_with("poison-broker", 1, &[("max.message.bytes", "20000")]);
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"poison-broker\"\n\n";
    let text = format!("{outbox}[kafka.properties]\n\"linger.ms\" = 200\n");
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &text);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    program.start_streaming();
    // Incompressible, so that it has the same size for the broker.
    let noise = "(SELECT to_jsonb(string_agg(md5(random()::text), '')) FROM generate_series(1, 2000))";
    sql.run(&format!(
        "BEGIN; SELECT emit('k1'); {INSERT} ('{ID}', 'Order', 'k1', 'E', {noise}, NULL); SELECT emit('k1'); COMMIT"
    ));
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    let log = program.log();
    assert!(log.contains("WR-6810") && log.contains(ID), "{log}");
    assert!(log.contains("one record at a time"), "{log}");
}

#[test]
fn a_partition_that_the_topic_does_not_have_stops_with_68_and_its_id() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("no-partition", 2);
    let (_, sql) = prepared(&postgres, &kafka.bootstrap(), "no-partition", "");
    sql.run("ALTER TABLE outbox_events ADD COLUMN part int");
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"no-partition\"\npartition = \"part\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    program.start_streaming();
    let insert = "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, part) VALUES";
    sql.run(&format!("{insert} (gen_random_uuid(), 'Order', 'k1', 'E', '1', 1)"));
    sql.await_all_confirmed(Duration::from_secs(15));
    // The producer knows the topic by now and rejects the record at once; at the second start the brokers do.
    sql.run(&format!("{insert} ('{ID}', 'Order', 'k1', 'E', '1', 2)"));
    for _ in 0..2 {
        assert_eq!(program.wait(), Some(68), "{}", program.log());
        let log = program.log();
        assert!(log.contains(ID) && log.contains("topic no-partition has no partition 2 (key k1)"), "{log}");
        assert!(log.contains("--alter --topic no-partition --partitions 3") && !log.contains("--create"), "{log}");
        program.start();
    }
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "no-partition").len(), 1);
    // What it advises does help.
    kafka.add_partitions("no-partition", 3);
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "no-partition").len(), 2);
}

#[test]
fn c10_a_missing_mapped_column_stops_with_65() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poison-column", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "poison-column", "");
    program.start_streaming();
    sql.run("ALTER TABLE outbox_events RENAME COLUMN event_type TO kind");
    sql.run("INSERT INTO outbox_events (aggregate_type, aggregate_id, kind, payload) VALUES ('Order', 'k1', 'E', '1')");
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    assert!(program.log().contains("event_type"), "{}", program.log());
}
