//! Text that the server cannot send: asked for as it is stored where that is possible, else named, and never tried for
//! ever.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::poll::UNPUBLISHED;
use super::poll::await_text;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::source::Sql;

const INSERT: &str = "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, note) VALUES";

/// A database with this encoding, an outbox with text columns, and an unmapped column.
fn database(postgres: &Postgres, encoding: &str) -> (String, Sql) {
    let name = encoding.to_lowercase();
    Sql::connect(&postgres.url())
        .run(&format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"));
    let url = postgres.url_of(&name);
    let sql = Sql::connect(&url);
    sql.run(
        "SET client_encoding = 'SQL_ASCII';
         CREATE TABLE outbox_events (id uuid DEFAULT gen_random_uuid(), aggregate_type text, aggregate_id text, \
         event_type text,
             payload text, created_at timestamptz DEFAULT now(), note text);
         CREATE FUNCTION raw(hex text) RETURNS text LANGUAGE sql AS
             $$ SELECT convert_from(decode(hex, 'hex'), getdatabaseencoding()::text) $$",
    );
    (url, sql)
}

fn program(url: &str, kafka: &Kafka, topic: &str, more: &str) -> Program {
    kafka.create_topic(topic, 1);
    let text = format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n[source]\n{more}\n");
    let program = Program::new(url, &kafka.bootstrap(), &text);
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program
}

fn values(kafka: &Kafka, topic: &str) -> Vec<Vec<u8>> {
    let mut records = reader::read_all(&kafka.bootstrap(), topic);
    // The events of one key are in the order of their offsets; polling publishes keys in any order.
    records.sort_by_key(|record| (record.key.clone(), record.offset));
    records.into_iter().filter_map(|record: Record| record.value).collect()
}

#[test]
fn g2_text_of_a_database_without_an_encoding_is_sent_byte_for_byte_from_either_source() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = database(&postgres, "SQL_ASCII");
    let mut log = program(&url, kafka, "ascii-log", "");
    let mut poll = program(&url, kafka, "ascii-poll", "mode = \"poll\"\n[source.poll]\nmax_batch_rows = 2");
    log.start_streaming();
    poll.start_streaming();
    // In the key, the payload and an unmapped column.
    sql.run(&format!(
        "{INSERT} ('Order', 'k1', 'E', '1', NULL), ('Order', raw('6be9'), 'E', raw('63616681e9'), raw('e9')),
                     ('Order', raw('6be9'), 'E', '3', NULL)"
    ));
    await_text(&sql, UNPUBLISHED, "0", &poll);
    sql.await_all_confirmed(Duration::from_secs(15));
    for topic in ["ascii-log", "ascii-poll"] {
        assert_eq!(values(kafka, topic), [b"1".to_vec(), b"caf\x81\xe9".to_vec(), b"3".to_vec()], "{topic}");
        let records = reader::read_all(&kafka.bootstrap(), topic);
        assert_eq!(records.iter().filter(|record| record.key.as_deref() == Some(b"k\xe9")).count(), 2, "{topic}");
    }
    for program in [&mut log, &mut poll] {
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    }
}

#[test]
fn d_text_that_cannot_be_converted_stops_with_68_after_the_earlier_events_and_can_be_skipped_as_printed() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = database(&postgres, "WIN1252");
    for (topic, more) in [("win-stored", ""), ("win-unstored", "slot = \"second\"\nstore_position = false")] {
        let mut program = program(&url, kafka, topic, more);
        program.start_streaming();
        sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '1', NULL)"));
        // In an unmapped column.
        sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '2', NULL), ('Order', 'k1', 'E', '3', raw('81'))"));
        sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '4', NULL)"));
        assert_eq!(program.wait(), Some(68), "{}", program.log());
        let log = program.log();
        assert!(log.contains("WR-6804") && log.contains("at row 2 of the transaction"), "{log}");
        assert!(log.contains("SQLSTATE 22P05") && log.contains("0x81"), "{log}");
        // Everything before the transaction is confirmed, so each start repeats only its first row.
        program.start();
        assert_eq!(program.wait(), Some(68), "{}", program.log());
        assert_eq!(values(kafka, topic), [b"1", b"2", b"2"], "{topic}: {}", program.log());
        let (_, printed) = log.split_once("run `SELECT pg_replication_slot_advance").unwrap();
        sql.run(&format!("SELECT pg_replication_slot_advance{}", printed.split_once('`').unwrap().0));
        let ended = program.verb(&["setup", "--apply", "--accept-gap"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
        program.start_streaming();
        program.await_that("the rows behind it", |_| values(kafka, topic).last().is_some_and(|value| value == b"4"));
        assert_eq!(values(kafka, topic).len(), 4, "{}", program.log());
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
    }
}

#[test]
fn polling_holds_back_only_the_key_of_text_that_cannot_be_converted_until_it_is_corrected() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = database(&postgres, "WIN1252");
    let mut program = program(&url, kafka, "win-poll", "mode = \"poll\"\n[source.poll]\nmax_batch_rows = 3");
    // In a column that nobody maps it is not even read; in the key itself the row is named all the same.
    sql.run(&format!(
        "{INSERT} ('Order', 'k1', 'E', '1', raw('81')), ('Order', 'bad', 'E', '2', NULL),
                     ('Order', 'bad', 'E', raw('6181'), NULL), ('Order', 'bad', 'E', '4', NULL), ('Order', raw('81'), \
                     'E', '5', NULL)"
    ));
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', 'last', NULL)"));
    for key in 0..40 {
        sql.run(&format!("{INSERT} ('Order', 'g{key}', 'E', '6', NULL)"));
    }
    for _ in 0..2 {
        program.start();
        assert_eq!(program.wait(), Some(68), "{}", program.log());
    }
    let log = program.log();
    let id = sql.text("SELECT id::text FROM outbox_events WHERE payload = raw('6181')");
    assert!(log.contains("WR-6804") && log.contains("SQLSTATE 22P05") && log.contains(&id), "{id}: {log}");
    // Published rows are marked: the second start has repeated nothing, and only two buckets are held back.
    let delivered = values(kafka, "win-poll");
    assert!(delivered.len() > 20 && delivered.contains(&b"2".to_vec()) && !delivered.contains(&b"4".to_vec()), "{log}");
    assert_eq!((42 + 4 - delivered.len()).to_string(), sql.text(UNPUBLISHED), "{log}");
    sql.run("UPDATE outbox_events SET payload = '3' WHERE payload = raw('6181')");
    sql.run("UPDATE outbox_events SET aggregate_id = 'k5' WHERE aggregate_id = raw('81')");
    program.start_streaming();
    await_text(&sql, UNPUBLISHED, "0", &program);
    let values = values(kafka, "win-poll");
    assert_eq!((values.len(), &values[..3]), (46, &[b"2".to_vec(), b"3".to_vec(), b"4".to_vec()][..]));
    // A recurring error of the server that is not about a row.
    sql.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON outbox_events FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '7', NULL)"));
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    assert!(program.log().contains("WR-6524") && program.log().contains("not here"), "{}", program.log());
}

#[test]
fn an_error_of_the_server_that_recurs_at_the_same_wal_position_stops_with_68() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = database(&postgres, "UTF8");
    let mut program = program(&url, kafka, "raised-again", "");
    // The filter of another table in the publication, which fails at a value.
    sql.run("CREATE TABLE other (a int); ALTER PUBLICATION walrelay ADD TABLE other WHERE (1 / a > 5)");
    program.start_streaming();
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '1', NULL); INSERT INTO other VALUES (0)"));
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    let log = program.log();
    assert!(log.contains("WR-6805") && log.contains("SQLSTATE 22012"), "{log}");
    assert!(log.contains("at row 2 of the transaction") && log.contains("pg_replication_slot_advance"), "{log}");
}

#[test]
fn c3_after_an_error_of_the_server_nothing_is_confirmed_that_may_hide_events() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = database(&postgres, "WIN1252");
    let mut program = program(&url, kafka, "win-hidden", "store_position = false");
    program.start_streaming();
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '1', NULL)"));
    sql.await_all_confirmed(Duration::from_secs(15));
    let before = sql.wal_end();
    for statement in [
        "ALTER PUBLICATION walrelay DROP TABLE outbox_events",
        &format!("{INSERT} ('Order', 'k1', 'E', 'hidden', NULL)"),
        "ALTER PUBLICATION walrelay ADD TABLE outbox_events",
        &format!("{INSERT} ('Order', 'k1', 'E', '2', NULL)"),
        &format!("{INSERT} ('Order', 'k1', 'E', '3', raw('81'))"),
    ] {
        sql.run(statement);
    }
    let code = program.wait();
    let log = program.log();
    assert!([Some(66), Some(68)].contains(&code) && log.contains("WR-6603"), "{code:?} {log}");
    assert!(sql.confirmed() <= before, "{} is confirmed, hidden from {before}: {log}", sql.confirmed());
}

#[test]
fn after_an_error_of_the_server_no_other_server_is_told_what_is_delivered() {
    let (first, second) = (Postgres::start(Options::default()).unwrap(), Postgres::start(Options::default()).unwrap());
    let kafka = Kafka::shared();
    kafka.create_topic("win-other", 1);
    let text =
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"win-other\"\n\n[source]\nstore_position = false\n";
    // The same statements, so that both catalogs read the same.
    let [sql, other] = [&first, &second].map(|postgres| {
        let (url, sql) = database(postgres, "WIN1252");
        sql.run("CREATE ROLE relay LOGIN REPLICATION");
        let ended = Program::new(&url, &kafka.bootstrap(), text).verb(&["setup", "--apply"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
        sql
    });
    let both = format!("postgres://relay@127.0.0.1:{},127.0.0.1:{}/win1252", first.port(), second.port());
    let mut program = Program::new(&both, &kafka.bootstrap(), text);
    program.start_streaming();
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '1', NULL)"));
    sql.await_all_confirmed(Duration::from_secs(15));
    // The first server takes no further connection, and the second one has WAL enough.
    sql.run("ALTER ROLE relay CONNECTION LIMIT 0");
    other.run("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    let before = other.confirmed();
    assert!(before < sql.confirmed() && sql.confirmed() < other.wal_end());
    sql.run(&format!("{INSERT} ('Order', 'k1', 'E', '2', NULL), ('Order', 'k1', 'E', '3', raw('81'))"));
    assert_eq!(program.wait(), Some(68), "{}", program.log());
    assert_eq!(other.confirmed(), before, "{}", program.log());
}
