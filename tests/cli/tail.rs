//! What the relay publishes is followed record by record, and nothing is disturbed by it.

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program;
use crate::support::program::Program;
use crate::support::source::Sql;

/// A `tail` that runs, from the moment when it follows its topics.
struct Tail {
    process: Child,
    notes: BufReader<std::process::ChildStderr>,
}

impl Tail {
    fn start(program: &Program, more: &[&str]) -> Self {
        let mut command = program.command(&[&["tail"], more].concat());
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let notes = BufReader::new(process.stderr.take().unwrap());
        let mut tail = Self { process, notes };
        tail.await_note("following ");
        tail
    }

    fn await_note(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(self.notes.read_line(&mut line).unwrap() > 0, "no {text} in {seen}");
            if line.contains(text) {
                return line;
            }
            seen += &line;
        }
    }

    /// The records of one that ends by itself.
    fn records(self) -> Vec<Value> {
        let output = self.process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A program without PostgreSQL, which `tail` does not need.
fn reader(brokers: &str, more: &str) -> Program {
    Program::new("postgres://postgres@127.0.0.1:1/postgres", brokers, more)
}

fn column(records: &[Value], name: &str) -> Vec<String> {
    records.iter().map(|record| record[name].as_str().unwrap().to_owned()).collect()
}

#[test]
fn tail_prints_what_the_running_relay_publishes_from_then_on() {
    let kafka = Kafka::shared();
    kafka.create_topic("tailed-events", 3);
    let postgres = Postgres::start(Options::default()).unwrap();
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), "");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    let insert = |key: &str, payload: &str| {
        sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
             VALUES ('Tailed', '{key}', 'Changed', '{payload}')"
        ));
    };
    program.start_streaming();
    insert("before", "0");
    program.await_that("the first record", |_| kafka.end_of("tailed-events") == 1);
    let all = Tail::start(&program, &["--limit", "2", "-o", "json"]);
    let of_key = Tail::start(&program, &["--key", "b", "--limit", "1", "-o", "json", "--topic", "tailed-events"]);
    let human = Tail::start(&program, &["--limit", "2"]);
    insert("a", "1");
    insert("b", "2");
    let records = all.records();
    let mut keys = column(&records, "key");
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
    let ids = sql.text("SELECT string_agg(id::text, ',') FROM outbox_events");
    for record in &records {
        assert!(ids.contains(record["event_id"].as_str().unwrap()), "{record}");
        assert_eq!((&record["topic"], &record["event_type"]), (&"tailed-events".into(), &"Changed".into()));
        assert!(record["partition"].is_i64() && record["offset"].is_i64() && record["timestamp_millis"].is_i64());
        assert_eq!(record["headers"][1], serde_json::json!(["event_type", "Changed"]));
    }
    let records = of_key.records();
    assert_eq!((column(&records, "key"), column(&records, "value")), (vec!["b".to_owned()], vec!["2".to_owned()]));
    let output = human.process.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.starts_with("tailed-events[") && lines.contains("  key a  Changed  ") && lines.lines().count() == 2);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn tail_starts_at_the_beginning_or_at_a_time_and_joins_no_group() {
    let kafka = Kafka::shared();
    kafka.create_topic("tailed-past", 1);
    let postgres = Postgres::start(Options::default()).unwrap();
    let more = "[[outbox]]\ntopic = \"tailed-past\"\ntimestamp = \"created_at\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    program.setup();
    Sql::connect(&postgres.url()).run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, created_at)
         SELECT 'Tailed', 'k', 'Changed', to_jsonb(i), now() - (4 - i) * interval '1 hour'
         FROM generate_series(1, 3) i",
    );
    program.start_streaming();
    program.await_that("three records", |_| kafka.end_of("tailed-past") == 3);
    let values = |more: &[&str]| column(&Tail::start(&program, &[more, &["-o", "json"]].concat()).records(), "value");
    assert_eq!(values(&["--from-beginning", "--limit", "3"]), ["1", "2", "3"]);
    assert_eq!(values(&["--since", "150m", "--limit", "2"]), ["2", "3"]);
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let groups = consumer.fetch_group_list(None, std::time::Duration::from_secs(10)).unwrap();
    assert!(groups.groups().iter().all(|group| group.name() != "walrelay-tail"));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn tail_ends_with_0_at_ctrl_c_and_when_its_reader_is_gone() {
    let kafka = Kafka::shared();
    kafka.create_topic("tailed-quietly", 1);
    let program = reader(&kafka.bootstrap(), "[[outbox]]\ntopic = \"tailed-quietly\"\n");
    let mut tail = Tail::start(&program, &[]);
    kill_process(Pid::from_child(&tail.process), Signal::INT).unwrap();
    assert_eq!(tail.process.wait().unwrap().code(), Some(0));
    // Nothing is published, so that it writes nothing.
    let mut tail = Tail::start(&program, &[]);
    drop(tail.process.stdout.take());
    assert_eq!(tail.process.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    while tail.notes.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(rest, "");
}

#[test]
fn tail_follows_a_topic_that_is_created_later_from_its_beginning() {
    let kafka = Kafka::shared();
    kafka.create_topic("tailed1-later", 1);
    let program = reader(&kafka.bootstrap(), "[[outbox]]\ntopic = \"{aggregate_type:lower}-later\"\n");
    let mut tail = Tail::start(&program, &["--limit", "1", "-o", "json"]);
    kafka.create_topic("tailed2-later", 1);
    // The relay of another process publishes at once.
    let postgres = Postgres::start(Options::default()).unwrap();
    let more = "[[outbox]]\ntopic = \"{aggregate_type:lower}-later\"\n";
    let mut relay = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    relay.setup();
    Sql::connect(&postgres.url()).run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
         VALUES ('Tailed2', 'k', 'E', '7')",
    );
    relay.start_streaming();
    assert!(tail.await_note("as well").contains("tailed2-later (1 partition)"));
    assert_eq!(column(&tail.records(), "value"), ["7"]);
    assert_eq!(relay.terminate(), Some(0), "{}", relay.log());
}

#[test]
fn tail_waits_while_the_brokers_are_down() {
    let mut kafka = Kafka::start(1);
    kafka.create_topic("order-events", 1);
    let postgres = Postgres::start(Options::default()).unwrap();
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), "");
    program.setup();
    let mut tail = Tail::start(&program, &["--limit", "1", "-o", "json"]);
    kafka.kill(0);
    tail.await_note("waiting: ");
    kafka.resume(0);
    Sql::connect(&postgres.url()).run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload) VALUES ('Order', 'k', 'E', '7')",
    );
    program.start_streaming();
    assert_eq!(column(&tail.records(), "value"), ["7"]);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn tail_says_why_it_cannot_follow() {
    let ended = reader("127.0.0.1:1", "").verb(&["tail"]);
    assert!(ended.code == Some(69) && ended.notes.contains("error[WR-6981]: cannot read the topics: "), "{ended:?}");
    let kafka = Kafka::shared();
    let ended = reader(&kafka.bootstrap(), "[[outbox]]\ntopic = \"tailed-never\"\n").verb(&["tail"]);
    assert!(ended.code == Some(69) && ended.notes.contains("WR-6982"), "{ended:?}");
    assert!(ended.notes.contains("no topic of the brokers is tailed-never"), "{ended:?}");
    let ended = reader(&kafka.bootstrap(), "").verb(&["tail", "--topic", "tailed-never"]);
    assert!(ended.notes.contains("no topic of the brokers is tailed-never"), "{ended:?}");
    let path = program::path();
    let script = format!("'{}' tail --since 1h --from-beginning", path.display());
    assert_eq!(Command::new("sh").args(["-c", &script]).output().unwrap().status.code(), Some(2));
}
