//! Delivery: every committed event arrives once and in order, and only then its WAL is confirmed.

use std::time::Duration;
use std::time::Instant;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Verdict;
use crate::support::source;
use crate::support::source::Sql;

const PARTITIONS: i32 = 6;

/// The number of events of the larger tests; an acceptance run raises it.
fn events() -> i32 {
    std::env::var("WALRELAY_TEST_EVENTS").map_or(20_000, |text| text.parse().unwrap())
}

/// What an acceptance run with `--nocapture` shows of a large test.
#[expect(clippy::print_stderr, reason = "for those who raise the size of a test")]
fn tell(test: &str, verdict: Verdict, began: Instant) {
    let Verdict { events, repeated } = verdict;
    eprintln!("{test}: {events} events, {repeated} of them again, {:.0} s", began.elapsed().as_secs_f64());
}

#[expect(clippy::print_stderr, reason = "a figure of the large test")]
fn tell_of_the_end(written: Instant) {
    eprintln!("confirmed {:.2} s after the last commit", written.elapsed().as_secs_f64());
}

/// A source that is set up, and its configuration; the topic is the test's own.
pub(super) fn prepared(postgres: &Postgres, brokers: &str, topic: &str, more: &str) -> (Program, Sql) {
    let outbox = format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n{more}");
    let program = Program::new(&postgres.url(), brokers, &outbox);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    (program, sql)
}

#[test]
fn g1_g2_g3_every_committed_event_arrives_once_in_order_and_nothing_else() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("delivery", PARTITIONS);
    let began = Instant::now();
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "delivery", "");
    program.start_streaming();
    let writers = source::writers(&postgres.url(), 4, events(), 1_000);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    // A row that is inserted and deleted in one transaction is an event too.
    sql.run(
        "BEGIN; SELECT emit('k1'); DELETE FROM outbox_events WHERE id = (SELECT event_id FROM truth WHERE key = 'k1'
         ORDER BY version DESC LIMIT 1); COMMIT",
    );
    let written = Instant::now();
    sql.await_all_confirmed(Duration::from_secs(60));
    tell_of_the_end(written);
    let truth = sql.truth();
    let records = reader::read_all(&kafka.bootstrap(), "delivery");
    let total = truth.values().map(Vec::len).sum();
    let verdict = reader::check(&records, &truth, PARTITIONS);
    tell("delivered", verdict, began);
    assert_eq!(verdict, Verdict { events: total, repeated: 0 });
    assert!(total > usize::try_from(events()).unwrap());
    assert_eq!(records[0].header("traceparent"), Some("00-ab"));
    assert_eq!(program.metric("walrelay_events_published_total"), Some(records.len() as f64));

    // G5: after SIGTERM nothing is repeated.
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    program.start_streaming();
    sql.run("SELECT emit('k2')");
    sql.await_all_confirmed(Duration::from_secs(15));
    let records = reader::read_all(&kafka.bootstrap(), "delivery");
    assert_eq!(reader::check(&records, &sql.truth(), PARTITIONS), Verdict { events: total + 1, repeated: 0 });
}

#[test]
fn g4_g5_a_relay_that_is_killed_repeatedly_loses_nothing_and_swaps_nothing() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("killed", PARTITIONS);
    let began = Instant::now();
    // With the takeover delay it would not publish anything before the next kill.
    let more = "[source]\ntakeover_delay = \"0s\"\n";
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "killed", more);
    let kills = std::env::var("WALRELAY_TEST_KILLS").map_or(8, |text| text.parse().unwrap());
    let writers = source::writers(&postgres.url(), 2, events(), 200);
    for kill in 0..kills {
        program.start();
        std::thread::sleep(Duration::from_millis(150 + kill * 97 % 400));
        program.kill();
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(60));
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), "killed"), &sql.truth(), PARTITIONS);
    tell(&format!("killed {kills} times"), verdict, began);
    assert!(verdict.events > 0);
    // A second of delivery, whole transactions of up to 50 rows and the window, for each kill.
    assert!(verdict.repeated < usize::try_from(kills).unwrap() * 60_000, "{verdict:?}");
}

#[test]
fn a12_on_an_idle_outbox_the_slot_follows_other_tables_and_an_idle_database_is_not_written_to() {
    // Without autovacuum, which writes too.
    let options = Options::default().with_settings(vec!["autovacuum = off".into()]);
    let (postgres, kafka) = (Postgres::start(options).unwrap(), Kafka::shared());
    kafka.create_topic("idle", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "idle", "");
    program.start_streaming();
    sql.run("INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 1000)");
    sql.await_all_confirmed(Duration::from_secs(15));
    // From here on nobody else writes, and the relay writes nothing after its last write.
    std::thread::sleep(Duration::from_secs(11));
    let writes = "SELECT stored_at FROM walrelay.position";
    let before = sql.text(&format!("SELECT ({writes})::text"));
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(sql.text(&format!("SELECT ({writes})::text")), before, "the relay wrote on an idle database");
}

#[test]
fn every_type_of_payload_arrives_as_it_was_stored() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let tables = ["jsonb", "json", "text", "bytea"];
    let outboxes: String = tables
        .iter()
        .map(|kind| {
            format!(
                "[[outbox]]\ntable = \"public.out_{kind}\"\ntopic = \"payload-{kind}\"\nkey = \"aggregate_type\"\n\n"
            )
        })
        .collect();
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), &outboxes);
    let sql = Sql::connect(&postgres.url());
    for kind in tables {
        kafka.create_topic(&format!("payload-{kind}"), 1);
        sql.run(&format!(
            "CREATE TABLE out_{kind} (id bigint PRIMARY KEY, aggregate_type varchar(20), event_type text, payload \
             {kind})"
        ));
    }
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    let mut program = program;
    program.start_streaming();
    let large = "y".repeat(300_000);
    sql.run(&format!(
        "INSERT INTO out_jsonb VALUES (1, 'a', 't', '{{\"b\":  1, \"a\": [1,2]}}'), (2, 'a', 't', NULL);
         INSERT INTO out_json VALUES (1, 'a', 't', '{{\"b\":  1, \"a\": [1,2]}}');
         INSERT INTO out_text VALUES (1, 'a', 't', 'grüße'), (2, 'a', 't', ''), (3, 'a', 't', '{large}');
         INSERT INTO out_bytea VALUES (1, 'a', 't', '\\x00ff10'), (2, 'a', 't', '\\x')"
    ));
    sql.await_all_confirmed(Duration::from_secs(15));
    let values = |kind: &str| -> Vec<Option<Vec<u8>>> {
        let records = reader::read_all(&kafka.bootstrap(), &format!("payload-{kind}"));
        records.into_iter().map(|record| record.value).collect()
    };
    assert_eq!(values("jsonb"), [Some(b"{\"a\": [1, 2], \"b\": 1}".to_vec()), None]);
    assert_eq!(values("json"), [Some(b"{\"b\":  1, \"a\": [1,2]}".to_vec())]);
    assert_eq!(values("text"), [Some("grüße".into()), Some(Vec::new()), Some(large.into_bytes())]);
    assert_eq!(values("bytea"), [Some(vec![0, 0xFF, 0x10]), Some(Vec::new())]);
}

#[test]
fn c9_c12_x29_a_partitioned_outbox_and_an_altered_one_stream_on() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("partitioned", 1);
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "CREATE TABLE outbox_events (id uuid DEFAULT gen_random_uuid(), aggregate_type text, aggregate_id text,
             event_type text, payload jsonb, day date) PARTITION BY RANGE (day);
         CREATE TABLE outbox_1 PARTITION OF outbox_events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
    );
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"partitioned\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program.start_streaming();
    let insert = |number: u32, day: &str| {
        format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, day)
             VALUES ('Order', 'a', 'E{number}', '{number}', '{day}')"
        )
    };
    sql.run(&insert(1, "2026-01-05"));
    sql.run("CREATE TABLE outbox_2 PARTITION OF outbox_events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')");
    sql.run(&insert(2, "2026-02-05"));
    sql.run(&format!(
        "BEGIN; {}; ALTER TABLE outbox_events ADD COLUMN more text; {}; COMMIT",
        insert(3, "2026-01-06"),
        insert(4, "2026-02-06")
    ));
    sql.await_all_confirmed(Duration::from_secs(15));
    let records = reader::read_all(&kafka.bootstrap(), "partitioned");
    let types: Vec<_> = records.iter().map(|record| record.header("event_type").unwrap()).collect();
    assert_eq!(types, ["E1", "E2", "E3", "E4"]);
    // What is published may be dropped with its partition, whether the relay runs or is stopped.
    sql.run("DROP TABLE outbox_1");
    sql.run(&insert(5, "2026-02-07"));
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run("CREATE TABLE outbox_3 PARTITION OF outbox_events FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')");
    sql.run(&insert(6, "2026-03-05"));
    sql.run("DROP TABLE outbox_2");
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(15));
    let records = reader::read_all(&kafka.bootstrap(), "partitioned");
    let types: Vec<_> = records.iter().map(|record| record.header("event_type").unwrap()).collect();
    assert_eq!(types, ["E1", "E2", "E3", "E4", "E5", "E6"]);
}

#[test]
fn columns_with_domain_types_are_read_as_their_base_types() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("domains", 1);
    let outbox = "[[outbox]]\ntable = \"public.events\"\ntopic = \"domains\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "CREATE DOMAIN event_id AS uuid; CREATE DOMAIN word AS varchar(40); CREATE DOMAIN key AS word CHECK (VALUE <> \
         '');
         CREATE DOMAIN document AS jsonb;
         CREATE TABLE events (id event_id PRIMARY KEY, aggregate_type word, aggregate_id key, event_type text, payload \
         document)",
    );
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program.start_streaming();
    let id = "00000000-0000-7000-8000-000000000001";
    sql.run(&format!("INSERT INTO events VALUES ('{id}', 'Order', 'k1', 'E', '{{\"a\": 1}}')"));
    sql.await_all_confirmed(Duration::from_secs(15));
    let records = reader::read_all(&kafka.bootstrap(), "domains");
    assert_eq!(records.len(), 1, "{}", program.log());
    assert_eq!(records[0].event_id(), id);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k1"[..]), Some(&br#"{"a": 1}"#[..])));
}
