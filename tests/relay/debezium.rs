//! The preset `debezium` against the records of Debezium itself.
//!
//! `tests/golden/debezium-string.jsonl` has one recorded case a line: what Debezium 3.4.3 and its outbox event router
//! wrote on Kafka Connect 4.1.1. The cases were chosen of a larger recording by their converters, and are unchanged:
//! `jq -c 'select(.key_converter == "string" and .header_converter == "simple" and (.value_converter | IN("string",
//! "bytearray", "binary")))'`. The base configuration of the connector routes by `<case>.${routedByValue}`; `connector`
//! has what differs from it. A case is compared, or docs/migrate-from-debezium.md lists it with the reason.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use serde_json::Value;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::program::printed;
use crate::support::source::Sql;

const RECORDED: &str = include_str!("../golden/debezium-string.jsonl");
const PAGE: &str = include_str!("../../docs/migrate-from-debezium.md");

/// A record; bytes are escaped.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Record {
    topic: String,
    /// None where any partition is right: there is no key.
    partition: Option<i64>,
    /// The place in the partition; 0 where any is right.
    place: usize,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

struct Case {
    name: String,
    fields: Value,
}

impl Case {
    fn texts(&self, field: &str) -> Vec<&str> {
        self.fields[field].as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
    }

    /// The `[[outbox]]` that does what the connector did.
    fn outbox(&self) -> String {
        let name = &self.name;
        let mut topic = format!("topic = \"{name}.{{aggregate_type}}\"\n");
        let (mut options, mut columns) = (String::new(), String::new());
        for (option, value) in self.fields["connector"].as_object().into_iter().flatten() {
            let value = value.as_str();
            match (option.strip_prefix("transforms.outbox.").unwrap_or(option), value) {
                ("route.topic.replacement", None) => topic = String::new(),
                ("route.topic.replacement", Some(text)) => {
                    topic = format!("topic = \"{}\"\n", text.replace("${routedByValue}", "{aggregate_type}"));
                }
                ("route.by.field", Some(column)) => columns += &format!("aggregate_type = \"{column}\"\n"),
                ("table.field.event.id", Some(column)) => columns += &format!("id = \"{column}\"\n"),
                ("table.field.event.key", Some(column)) => columns += &format!("aggregate_id = \"{column}\"\n"),
                ("table.field.event.payload", Some(column)) => columns += &format!("payload = \"{column}\"\n"),
                ("table.fields.additional.placement", Some(list)) => options += &placements(list),
                ("route.tombstone.on.empty.payload", Some(is_on)) => {
                    options += &format!("tombstone_on_empty_payload = {is_on}\n");
                }
                // What is about other operations than inserts, or has no effect on these records.
                (
                    "table.op.invalid.behavior"
                    | "skipped.operations"
                    | "extended.headers.enabled"
                    | "custom.metric.tags"
                    | "topic.prefix",
                    _,
                ) => {}
                _ => panic!("{name} has the option {option}: list the case with a reason"),
            }
        }
        let table = format!("[[outbox]]\ntable = \"{name}.outbox\"\npreset = \"debezium\"\n");
        format!("{table}{topic}{options}[outbox.columns]\n{columns}\n")
    }

    fn create(&self, sql: &Sql) {
        sql.run(&format!("CREATE SCHEMA {0}; SET search_path = {0}", self.name));
        self.texts("ddl").into_iter().for_each(|statement| sql.run(statement));
    }

    fn write(&self, url: &str, sql: &Sql) {
        let path = format!("SET search_path = {}", self.name);
        sql.run(&path);
        let mut others = BTreeMap::new();
        for statement in self.texts("sql") {
            match statement.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
                Some((other, statement)) => {
                    let connection = others.entry(other).or_insert_with(|| {
                        let connection = Sql::connect(url);
                        connection.run(&path);
                        connection
                    });
                    connection.run(statement);
                }
                None => sql.run(statement),
            }
        }
    }

    /// What Debezium wrote, without its own context headers, which are random.
    fn recorded(&self) -> Vec<Record> {
        let bytes = |hex: &Value| hex.as_str().map(|hex| escape(&decode(hex)));
        let headers = |record: &Value| {
            let pairs = record["headers"].as_array().unwrap().iter();
            pairs
                .map(|header| (header[0].as_str().unwrap().to_owned(), bytes(&header[1])))
                .filter(|(name, _)| !name.starts_with("__debezium.context."))
                .collect()
        };
        let records = self.fields["records"].as_array().unwrap().iter().map(|record| {
            assert!(record["value_len"].is_null(), "{}: its bytes were not recorded", self.name);
            Record {
                topic: record["topic"].as_str().unwrap().to_owned(),
                partition: record["partition"].as_i64(),
                place: usize::try_from(record["offset"].as_u64().unwrap()).unwrap(),
                key: bytes(&record["key_hex"]),
                value: bytes(&record["value_hex"]),
                headers: headers(record),
            }
        });
        records.collect()
    }

    /// The topics and their numbers of partitions.
    fn topics(&self) -> BTreeMap<String, i32> {
        let all = self.recorded().into_iter().map(|record| (record.topic, 1));
        let made = self.fields["topics"].as_object().into_iter().flatten();
        let count = |topic: &Value| i32::try_from(topic["partitions"].as_i64().unwrap()).unwrap();
        all.chain(made.map(|(name, topic)| (name.clone(), count(topic)))).collect()
    }
}

fn placements(list: &str) -> String {
    let (mut headers, mut options) = (Vec::new(), String::new());
    for placement in list.split(',').filter(|placement| !placement.is_empty()) {
        match placement.strip_suffix(":partition") {
            Some(column) => options += &format!("partition = \"{column}\"\n"),
            None => headers.push(format!("{placement:?}")),
        }
    }
    options + &format!("placements = [{}]\n", headers.join(", "))
}

fn decode(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn recorded() -> Vec<Case> {
    let case = |line| {
        let fields: Value = serde_json::from_str(line).unwrap();
        Case { name: fields["case"].as_str().unwrap().to_owned(), fields }
    };
    RECORDED.lines().map(case).collect()
}

/// The cases that the page lists.
fn listed() -> BTreeSet<&'static str> {
    let (_, section) = PAGE.split_once("\n## Recorded cases that are not compared\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let is_case =
        |name: &&str| name.starts_with('c') && name.get(1..3).is_some_and(|digits| digits.parse::<u8>().is_ok());
    section.split('`').skip(1).step_by(2).filter(is_case).collect()
}

fn compared() -> Vec<Case> {
    let listed = listed();
    recorded().into_iter().filter(|case| !listed.contains(case.name.as_str())).collect()
}

/// Compares each case, and shows all that differ.
fn assert_same(cases: &[Case], found: &[Record], place: impl Fn(&Case, &mut Vec<Record>)) {
    let mut wrong = Vec::new();
    for case in cases {
        let topics = case.topics();
        let mut expected = case.recorded();
        let mut found: Vec<Record> =
            found.iter().filter(|record| topics.contains_key(&record.topic)).cloned().collect();
        for records in [&mut expected, &mut found] {
            place(case, records);
            records.sort();
        }
        if expected != found {
            wrong.push(format!("{}:\n  Debezium {expected:#?}\n  walrelay {found:#?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn set_up(url: &str, brokers: &str, cases: &[Case], sql: &Sql) -> Program {
    cases.iter().for_each(|case| case.create(sql));
    let outboxes: String = cases.iter().map(Case::outbox).collect();
    let program = Program::new(url, brokers, &outboxes);
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program
}

#[test]
fn a_recorded_case_of_debezium_is_compared_or_listed_with_a_reason() {
    let cases = recorded();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let listed = listed();
    assert!(listed.is_subset(&names), "not recorded: {:?}", listed.difference(&names));
    for case in compared() {
        assert_eq!(case.fields["task_state"], "RUNNING", "{} failed: list it", case.name);
        assert!(!case.recorded().is_empty(), "{} has no records to compare: list it", case.name);
    }
    assert!(compared().len() >= 50, "{}", compared().len());
}

#[test]
fn records_of_the_debezium_preset_are_those_of_debezium_in_kafka_with_their_partitions() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let (url, sql) = (postgres.url(), Sql::connect(&postgres.url()));
    // With a bytea payload the server sends every table in binary form, which the next test compares.
    let mut cases = compared();
    cases.retain(|case| !case.texts("ddl").iter().any(|ddl| ddl.contains("bytea")));
    let topics: BTreeMap<String, i32> = cases.iter().flat_map(Case::topics).collect();
    topics.iter().for_each(|(topic, partitions)| kafka.create_topic(topic, *partitions));
    let mut program = set_up(&url, &kafka.bootstrap(), &cases, &sql);
    program.start_streaming();
    cases.iter().for_each(|case| case.write(&url, &sql));
    sql.await_all_confirmed(Duration::from_secs(60));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let found = read(&kafka.bootstrap(), &topics);
    assert_same(&cases, &found, |case, records| {
        let chooses = case.outbox().contains("\npartition = ");
        for record in records {
            // Without a key any partition is right.
            if record.key.is_none() && !chooses && topics[&record.topic] > 1 {
                (record.partition, record.place) = (None, 0);
            }
        }
    });
}

#[test]
fn records_of_the_debezium_preset_are_those_of_debezium_in_the_binary_form_of_the_server() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let (url, sql) = (postgres.url(), Sql::connect(&postgres.url()));
    let cases = compared();
    assert!(cases.iter().any(|case| case.texts("ddl").iter().any(|ddl| ddl.contains("payload bytea"))));
    let program = set_up(&url, "127.0.0.1:1", &cases, &sql);
    cases.iter().for_each(|case| case.write(&url, &sql));
    let ended = program.verb(&["peek", "-o", "json", "--limit", "10000"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    let bytes = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(escape(text.as_bytes())),
        Value::Object(fields) => Some(escape(&decode(fields["hex"].as_str().unwrap()))),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => panic!("{value}"),
    };
    let record = |(place, line): (usize, &str)| {
        let event: Value = serde_json::from_str(line).unwrap();
        let headers = event["headers"].as_array().unwrap_or_else(|| panic!("{line}")).iter();
        Record {
            topic: event["topic"].as_str().unwrap().to_owned(),
            partition: None,
            place,
            key: bytes(&event["key"]),
            value: bytes(&event["value"]),
            headers: headers.map(|pair| (pair[0].as_str().unwrap().to_owned(), bytes(&pair[1]))).collect(),
        }
    };
    let found: Vec<Record> = ended.out.lines().enumerate().map(record).collect();
    assert_same(&cases, &found, |case, records| {
        let topics = case.topics();
        records.sort_by_key(|record| record.place);
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for record in records {
            let place = places.entry(record.topic.clone()).or_default();
            // Of several partitions the order is not known.
            record.place = if topics[&record.topic] > 1 { 0 } else { *place };
            record.partition = None;
            *place += 1;
        }
    });
}

#[test]
fn c10_a_placed_column_that_is_missing_or_renamed_stops_the_relay_and_the_printed_step_helps() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let sql = Sql::connect(&postgres.url());
    kafka.create_topic("outbox.event.Placed", 1);
    let more = "[[outbox]]\ntable = \"public.outbox\"\npreset = \"debezium\"\n\
                placements = [\"type:header:eventType\", \"tenant:header\"]\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    let printed_sql = program.verb(&["setup", "--with-outbox"]);
    assert!(printed_sql.out.contains("    aggregatetype  varchar(255) NOT NULL"), "{}", printed_sql.out);
    program.setup();
    // Each step is run as it is printed.
    for (broken, expected) in [
        ("ALTER TABLE outbox DROP COLUMN tenant", "has no column \"tenant\" in the catalog, which is mapped as header"),
        ("ALTER TABLE outbox ALTER COLUMN tenant TYPE bytea USING NULL", "of type bytea, which cannot be the header"),
    ] {
        sql.run(broken);
        let ended = program.verb(&["setup", "--apply"]);
        assert!(ended.code == Some(65) && ended.notes.contains(expected), "{ended:?}");
        sql.run(&printed(&ended.notes, "ALTER TABLE"));
        assert_eq!(program.verb(&["setup", "--apply"]).code, Some(0), "{expected}");
    }
    program.start_streaming();
    let insert = |column: &str| {
        sql.run(&format!(
            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload, {column})
             VALUES ('Placed', 'o-1', 'Changed', '{{}}', '{column}')"
        ));
    };
    insert("tenant");
    sql.await_all_confirmed(Duration::from_secs(15));
    sql.run("ALTER TABLE outbox RENAME COLUMN tenant TO client");
    insert("client");
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    // The catalog, which is looked at first after a restart, has the same step.
    let ended = program.verb(&["setup", "--apply"]);
    assert!(ended.notes.contains("\"tenant|its new name:header:tenant\" in placements"), "{ended:?}");
    let step = "\"tenant|its new name:header:tenant\"";
    assert!(program.log().contains(&step.replace('"', "\\\"")), "{}", program.log());
    program.edit("\"tenant:header\"", &step.replace("its new name", "client"));
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(15));
    // The last step of the rename: the header keeps its name.
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    program.edit("\"tenant|client:header:tenant\"", "\"client:header:tenant\"");
    program.start_streaming();
    insert("client");
    sql.await_all_confirmed(Duration::from_secs(15));
    let records = read(&kafka.bootstrap(), &BTreeMap::from([("outbox.event.Placed".to_owned(), 1)]));
    let tenants: Vec<_> = records.iter().map(|record| record.headers[1..].to_vec()).collect();
    let headers = |tenant: &str| {
        [("eventType", "Changed"), ("tenant", tenant)].map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
    };
    assert_eq!(tenants, [headers("tenant"), headers("client"), headers("client")]);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn the_query_of_the_page_says_when_the_connector_has_confirmed_what_came_before_the_slot_of_walrelay() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(include_str!("../../sql/outbox_debezium.sql"));
    sql.run("SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')");
    let more = "[[outbox]]\ntable = \"public.outbox\"\npreset = \"debezium\"\n";
    let program = Program::new(&postgres.url(), "127.0.0.1:1", more);
    assert_eq!(program.verb(&["setup", "--apply"]).code, Some(0));
    let (_, query) = PAGE.split_once("```sql\n").unwrap();
    let query = query.split("```").next().unwrap().trim().trim_end_matches(';');
    let confirmed = || sql.text(&format!("SELECT ({query})::text"));
    assert_eq!(confirmed(), "false");
    sql.run("SELECT pg_replication_slot_advance('debezium', pg_current_wal_lsn())");
    assert_eq!(confirmed(), "true");
    sql.run("SELECT pg_drop_replication_slot('debezium')");
}

/// Reads topics from their beginning to their end, with NULL headers apart from empty ones.
fn read(bootstrap: &str, topics: &BTreeMap<String, i32>) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut missing = 0;
    for (topic, partitions) in topics {
        for partition in 0..*partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).unwrap();
            assignment.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
            missing += high - low;
        }
    }
    consumer.assign(&assignment).unwrap();
    let (mut records, began) = (Vec::new(), Instant::now());
    while missing > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{missing} records are missing");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Record {
            topic: message.topic().to_owned(),
            partition: Some(message.partition().into()),
            place: usize::try_from(message.offset()).unwrap(),
            key: message.key().map(escape),
            value: message.payload().map(escape),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(escape))).collect(),
        });
        missing -= 1;
    }
    records
}
