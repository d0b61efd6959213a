//! Broken brokers, log-ins, topics and rights.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::certificates::create_pair;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::raw;
use crate::support::source::Sql;

use super::commands;
use super::failed;
use super::find;
use super::report;

fn outbox(topic: &str) -> String {
    format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n")
}

/// Gives the word after each of these options.
fn words<'c>(command: &'c str, option: &str) -> Vec<&'c str> {
    let words: Vec<&str> = command.split(' ').collect();
    words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1]).collect()
}

/// Does what a printed command of Kafka's tools says. Only `kafka-configs.sh` is among the jars of the tests.
fn run(kafka: &Kafka, command: &str) {
    let topic = words(command, "--topic").pop().unwrap_or_default();
    if command.starts_with("kafka-topics.sh") {
        assert_eq!(words(command, "--replication-factor"), ["1"], "{command}");
        assert!(command.contains(" --create "), "{command}");
        kafka.create_topic(topic, words(command, "--partitions")[0].parse().unwrap());
    } else if command.starts_with("kafka-acls.sh") {
        assert_eq!(words(command, "--allow-principal"), ["User:app"], "{command}");
        for operation in words(command, "--operation") {
            let operation = match operation {
                "Write" => raw::Operation::Write,
                "Describe" => raw::Operation::Describe,
                other => panic!("{other} in {command}"),
            };
            raw::grant(&kafka.bootstrap(), raw::Resource::Topic, topic, operation);
        }
    } else {
        kafka.configure(command);
    }
}

/// Asserts that a check fails, and gives its code and commands.
fn broken(report: &Value, title: &str) -> (String, Vec<String>) {
    let check = find(report, title);
    assert_eq!(check["status"], "failed", "{report:#}");
    (check["findings"][0]["code"].as_str().unwrap().to_owned(), commands(check))
}

#[test]
fn topics_that_are_missing_or_refuse_records_are_found_and_the_printed_commands_fix_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), &outbox("checked"));
    program.setup();
    let before = kafka.topics();
    let missing = report(&program, &[]);
    let (code, commands) = broken(&missing, "topic checked");
    assert_eq!((code.as_str(), failed(&missing).len()), ("WR-6932", 1), "{missing:#}");
    assert_eq!(find(&missing, "topic_rights checked")["needs"], "topic", "{missing:#}");
    assert_eq!(kafka.topics(), before, "a check creates no topic");
    run(kafka, &commands[0]);
    let fixed = report(&program, &[]);
    assert_eq!(failed(&fixed), Vec::<String>::new(), "{fixed:#}");
    assert_eq!(find(&fixed, "topic_replicas checked")["found"], "1 for each partition, 1 needed in sync", "{fixed:#}");

    let set = |setting: &str| {
        kafka.configure(&format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name checked --add-config \
             {setting}",
            kafka.bootstrap()
        ));
    };
    set("min.insync.replicas=2,max.message.bytes=1000,message.timestamp.before.max.ms=3600000");
    let strict = report(&program, &[]);
    let (code, fixes) = broken(&strict, "topic_replicas checked");
    assert_eq!(code, "WR-6938", "{strict:#}");
    run(kafka, &fixes[0]);
    let limits = find(&strict, "topic_settings checked");
    let codes: Vec<&Value> = limits["findings"].as_array().unwrap().iter().map(|finding| &finding["code"]).collect();
    assert_eq!(codes, ["WR-0110", "WR-0111"], "{strict:#}");
    super::commands(limits).iter().for_each(|command| run(kafka, command));
    let fixed = report(&program, &[]);
    let statuses = ["topic_replicas checked", "topic_settings checked"].map(|title| &find(&fixed, title)["status"]);
    assert_eq!(statuses, ["ok", "ok"], "{fixed:#}");
}

#[test]
fn topics_that_follow_from_the_rows_are_read_from_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), "");
    program.setup();
    let empty = report(&program, &[]);
    let needs = find(&empty, "topics public.outbox_events")["needs"].as_str().unwrap();
    assert!(needs.starts_with("a row of public.outbox_events"), "{empty:#}");
    let sql = Sql::connect(&postgres.url());
    sql.run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
         VALUES ('FromRows', 'a', 'b', '{}')",
    );
    let found = report(&program, &[]);
    // A row may be older than its topic.
    let topic = find(&found, "topic fromrows-events");
    assert!(topic["status"] == "warning" && topic["findings"][0]["code"] == "WR-6932", "{found:#}");
    assert_eq!(failed(&found), Vec::<String>::new(), "{found:#}");
    sql.run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
         VALUES ('x;touch $HOME/pwned #\x1b[31m', 'a', 'b', '{}')",
    );
    let hostile = report(&program, &[]);
    let topics = find(&hostile, "topics public.outbox_events");
    assert!(topics["status"] == "warning" && topics["findings"][0]["code"] == "WR-0112", "{hostile:#}");
    assert!(!hostile.to_string().contains("\\u001b") && !hostile.to_string().contains("--topic x"), "{hostile:#}");
    find(&hostile, "topic fromrows-events");
    sql.run("ALTER TABLE outbox_events RENAME aggregate_type TO kind");
    let columns = Program::new(
        &postgres.url(),
        &kafka.bootstrap(),
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{aggregate_type}\"\n\
         columns = { aggregate_type = [\"aggregate_type\", \"kind\"] }\n",
    );
    // Without a suffix the topic of an empty column has no name at all.
    sql.run("UPDATE outbox_events SET kind = '' WHERE kind <> 'FromRows'");
    let renamed = report(&columns, &[]);
    assert_eq!(find(&renamed, "topics public.outbox_events")["findings"][0]["code"], "WR-0112", "{renamed:#}");
    assert_eq!(find(&renamed, "topic FromRows")["status"], "warning", "{renamed:#}");
    sql.run("ALTER TABLE outbox_events RENAME kind TO aggregate_type");
    // The relay itself needs no such privilege.
    sql.run("CREATE ROLE relay LOGIN REPLICATION; GRANT USAGE ON SCHEMA walrelay TO relay");
    sql.run("GRANT SELECT, INSERT, UPDATE ON walrelay.position TO relay");
    program.edit("postgres://postgres@", "postgres://relay@");
    let denied = report(&program, &[]);
    let needs = find(&denied, "topics public.outbox_events")["needs"].as_str().unwrap();
    assert!(needs.starts_with("SELECT on public.outbox_events"), "{denied:#}");
    assert_eq!(failed(&denied), Vec::<String>::new(), "{denied:#}");
}

#[test]
fn a_wrong_password_and_a_missing_right_on_a_topic_are_found() {
    let (postgres, (kafka, door)) = (Postgres::start(Options::default()).unwrap(), Kafka::guarded_by_scram());
    let sasl = "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"app\"\npassword = { file = \"sasl\" }\n";
    let program = Program::new(&postgres.url(), &door, &(outbox("guarded-check") + sasl));
    let secret = |text: &str| {
        let path = program.folder().join("sasl");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    program.setup();
    kafka.create_topic("guarded-check", 1);

    let unreadable = report(&program, &[]);
    assert_eq!(broken(&unreadable, "secret kafka.sasl.password").0, "WR-6432", "{unreadable:#}");
    assert_eq!(find(&unreadable, "kafka_login")["needs"], "secret kafka.sasl.password", "{unreadable:#}");
    secret("wrong");
    let wrong = report(&program, &[]);
    assert_eq!(broken(&wrong, "kafka_login").0, "WR-6731", "{wrong:#}");
    assert_eq!(find(&wrong, "topic guarded-check")["needs"], "kafka_login", "{wrong:#}");
    secret("secret");

    let hidden = report(&program, &[]);
    assert_eq!(broken(&hidden, "topic guarded-check").0, "WR-6730", "{hidden:#}");
    let (code, commands) = broken(&hidden, "producer_id");
    assert!(code == "WR-6730" && commands[0].contains("--operation IdempotentWrite --cluster"), "{hidden:#}");
    raw::grant(&kafka.bootstrap(), raw::Resource::Topic, "guarded-check", raw::Operation::Describe);
    let denied = super::await_status(&program, "topic guarded-check", "ok");
    let (code, commands) = broken(&denied, "topic_rights guarded-check");
    assert_eq!(code, "WR-6730", "{denied:#}");
    assert!(commands[0].contains("--command-config admin.properties"), "{denied:#}");
    run(&kafka, &commands[0]);
    let fixed = super::await_status(&program, "topic_rights guarded-check", "ok");
    assert_eq!(failed(&fixed), Vec::<String>::new(), "one right of writing is enough for a producer id: {fixed:#}");
    assert_eq!(find(&fixed, "topic_settings")["needs"], "the right DescribeConfigs on the topic", "{fixed:#}");
}

#[test]
fn brokers_that_are_down_or_speak_another_protocol_are_found_with_the_reason() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let folder = postgres.folder();
    ["broker", "client"].iter().for_each(|name| create_pair(folder, name));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    fs::write(folder.join("broker.pem"), read("broker.key") + &read("broker.crt")).unwrap();
    fs::copy(folder.join("client.crt"), folder.join("trusted.pem")).unwrap();
    let (kafka, door) = Kafka::with_certificates(folder);
    kafka.create_topic("secured", 1);
    Program::new(&postgres.url(), &door, &outbox("secured")).setup();
    let look =
        |brokers: &str, more: &str| report(&Program::new(&postgres.url(), brokers, &(outbox("secured") + more)), &[]);
    let tls = |more: &str| format!("[kafka.tls]\n{more}");
    let path = |path: &Path| path.display().to_string();
    let trust = format!("root_cert = \"{}\"\n", path(&folder.join("broker.crt")));
    // Port 1 is reserved, so no other test listens there.
    let down = "127.0.0.1:1".to_owned();
    for (brokers, more, expected, next) in [
        (down.as_str(), String::new(), "Connection refused", "that the brokers run"),
        (door.as_str(), String::new(), "closed by peer", "add [kafka.tls]"),
        (&kafka.bootstrap(), tls(&trust), "PLAINTEXT broker listener", "remove [kafka.tls]"),
        (&door, tls(""), "certificate verify failed", "set kafka.tls.root_cert"),
    ] {
        let report = look(brokers, &more);
        assert_eq!(broken(&report, "kafka_login").0, "WR-6930", "{expected}: {report:#}");
        let finding = &find(&report, "kafka_login")["findings"][0];
        assert!(finding["what"].as_str().unwrap().contains(expected), "{expected}: {report:#}");
        assert!(finding["next"].as_str().unwrap().contains(next), "{expected}: {report:#}");
    }
    let missing = look(&door, &tls("root_cert = \"/nowhere/ca.crt\"\n"));
    assert_eq!(broken(&missing, "file kafka.tls.root_cert").0, "WR-6433", "{missing:#}");
    let key = folder.join("client.key");
    let pair = format!("{trust}cert = \"{}\"\nkey = \"{}\"\n", path(&folder.join("client.crt")), path(&key));
    let fixed = look(&door, &tls(&pair));
    assert_eq!(failed(&fixed), Vec::<String>::new(), "{fixed:#}");
}

#[test]
fn brokers_that_advertise_an_address_that_cannot_be_reached_are_found() {
    let (postgres, (kafka, door)) = (Postgres::start(Options::default()).unwrap(), Kafka::with_wrong_address());
    kafka.create_topic("advertised", 1);
    // With rows of no topic yet, too.
    for more in [outbox("advertised"), String::new()] {
        let program = Program::new(&postgres.url(), &door, &more);
        program.setup();
        let broken = report(&program, &[]);
        assert_eq!(failed(&broken), ["kafka_brokers"], "{broken:#}");
        let finding = &find(&broken, "kafka_brokers")["findings"][0];
        assert!(finding["what"].as_str().unwrap().contains("Connection refused"), "{broken:#}");
        assert!(finding["next"].as_str().unwrap().contains("advertised.listeners"), "{broken:#}");
        assert_eq!(find(&broken, "producer_id")["needs"], "kafka_brokers", "{broken:#}");
    }
    let fixed = report(&Program::new(&postgres.url(), &kafka.bootstrap(), &outbox("advertised")), &[]);
    assert_eq!(failed(&fixed), Vec::<String>::new(), "{fixed:#}");
    assert_eq!(find(&fixed, "kafka_brokers")["status"], "ok", "{fixed:#}");
}
