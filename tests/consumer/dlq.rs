//! `walrelay dlq` on records that a consumer dead-lettered: they are listed, shown and redriven whole.

use std::process::Command;

use serde_json::Value;
use uuid::Uuid;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Outcome;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::kafka::Kafka;
use crate::support::murmur2;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::raw;
use crate::support::reader;

/// The program with a configuration that needs no PostgreSQL for these verbs.
fn program() -> Program {
    Program::new("postgres://nobody@127.0.0.1:1/none", &Kafka::shared().bootstrap(), "")
}

fn well(ended: Ended) -> (String, String) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.notes);
    (ended.out, ended.notes)
}

/// Rejects the changes of these keys until a stop.
fn reject(topic: &Topic, records: i64, keys: &'static [&'static str]) {
    let member = Member::start(topic.config("g"), move |delivery: Delivery| async move {
        match delivery.record.key() {
            Some(key) if keys.iter().any(|wanted| wanted.as_bytes() == key) => {
                Outcome::dead_letter("no such\x1b[31m street")
            }
            Some(_) | None => Outcome::Ack,
        }
    });
    wait_until("all", || topic.committed("g").iter().filter(|offset| **offset > 0).sum::<i64>() == records);
    member.stop().unwrap();
}

#[test]
fn dead_letter_records_are_listed_shown_and_redriven_once_byte_for_byte() {
    let topic = Topic::create("dlq", 1);
    let id = Uuid::now_v7();
    let own: [(&str, Option<&[u8]>); 4] =
        [("event_id", Some(id.as_bytes())), ("event_type", Some(b"Odd")), ("x", Some(b"\xff")), ("x", None)];
    let text = id.to_string();
    let own = own.map(|(name, value)| if name == "event_id" { (name, Some(text.as_bytes())) } else { (name, value) });
    topic.write(Some("a"), Some(b"\xff\x00bytes"), &own);
    topic.change(Uuid::now_v7(), "b", 1);
    topic.change(Uuid::now_v7(), "c", 1);
    topic.flush();
    reject(&topic, 3, &["a", "b"]);
    let program = program();

    let (out, notes) = well(program.verb(&["dlq", "list", "dlq.dlq"]));
    assert_eq!(out.lines().count(), 2, "{out}");
    let line = out.lines().find(|line| line.contains("key a")).unwrap();
    let (location, rest) = line.split_once("  ").unwrap();
    assert_eq!(rest, format!("{id}  Odd  key a from dlq[0]@0: no such\\u{{1b}}[31m street"));
    assert!(notes.contains("2 dead-letter records in dlq.dlq"), "{notes}");
    let (out, _) = well(program.verb(&["dlq", "list", "dlq.dlq", "--limit", "1", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["from"]["group"], "g");

    let (out, _) = well(program.verb(&["dlq", "show", "dlq.dlq", "--id", &text, "-o", "json"]));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["value"]["hex"], "ff006279746573");
    assert_eq!(shown["headers"][2], serde_json::json!(["x", { "hex": "ff" }]));

    let (out, notes) = well(program.verb(&["dlq", "redrive", "dlq.dlq", "--at", location, "--dry-run"]));
    let dead_letter = format!("dlq.dlq[0]@{}", location.strip_prefix("0@").unwrap());
    assert_eq!(
        (out, notes.contains("nothing was written")),
        (format!("{dead_letter} would be redriven to dlq\n"), true)
    );
    assert_eq!(reader::read_all(&Kafka::shared().bootstrap(), "dlq").len(), 3);

    well(program.verb(&["dlq", "redrive", "dlq.dlq", "--key", "a"]));
    let records = reader::read_all(&Kafka::shared().bootstrap(), "dlq");
    assert_eq!(records.len(), 4);
    let (first, again) = (&records[0], &records[3]);
    assert_eq!((&first.key, &first.value), (&again.key, &again.value));
    assert_eq!(again.headers[..4], first.headers[..], "its own headers, in their order");
    assert_eq!(again.headers[4..], [("redriven_from".to_owned(), dead_letter)]);

    let (_, notes) = well(program.verb(&["dlq", "redrive", "dlq.dlq", "--key", "a"]));
    assert!(notes.contains("0 dead-letter records redriven"), "it is not redriven twice: {notes}");
    let (out, _) = well(program.verb(&["dlq", "list", "dlq.dlq"]));
    assert_eq!(out.lines().count(), 1, "{out}");
    let (out, _) = well(program.verb(&["dlq", "list", "dlq.dlq", "--all"]));
    assert!(out.lines().count() == 2 && out.contains("(redriven)"), "{out}");
}

#[test]
fn a_redriven_record_that_is_dead_lettered_again_can_be_redriven_again() {
    let topic = Topic::create("dlqagain", 1);
    topic.change(Uuid::now_v7(), "a", 1);
    topic.flush();
    let program = program();
    reject(&topic, 1, &["a"]);
    well(program.verb(&["dlq", "redrive", "dlqagain.dlq"]));
    reject(&topic, 2, &["a"]);
    let (out, _) = well(program.verb(&["dlq", "list", "dlqagain.dlq"]));
    assert!(out.lines().count() == 1 && out.contains("from dlqagain[0]@1"), "{out}");
    well(program.verb(&["dlq", "redrive", "dlqagain.dlq"]));
    let log = Log::default();
    let done = log.clone();
    let member = Member::start(topic.config("g"), move |delivery: Delivery| {
        let done = done.clone();
        async move { done.note(delivery.record.header("redriven_from").unwrap_or("-")) }
    });
    log.wait_for("dlqagain.dlq", 1);
    member.stop().unwrap();
}

#[test]
fn i10_a_record_that_was_dead_lettered_twice_is_redriven_once() {
    let topic = Topic::create("dlqtwice", 1);
    topic.change(Uuid::now_v7(), "a", 1);
    topic.flush();
    for _ in 0..2 {
        // As if the commit had never reached the broker.
        topic.commit("g", 0);
        reject(&topic, 1, &["a"]);
    }
    let program = program();
    let (out, _) = well(program.verb(&["dlq", "list", "dlqtwice.dlq"]));
    assert_eq!((out.lines().count(), out.matches(" (repeated)").count()), (2, 1), "{out}");
    let (out, _) = well(program.verb(&["dlq", "redrive", "dlqtwice.dlq"]));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(reader::read_all(&Kafka::shared().bootstrap(), "dlqtwice").len(), 2);
}

#[test]
fn a_record_is_redriven_to_its_former_partition_if_that_exists() {
    let topic = Topic::create("dlqhome", 3);
    let by_key = murmur2::partition(b"a", 3);
    let chosen = (by_key + 1) % 3;
    topic.write_to(Some(chosen), Some("a"), Some(b"1"), &[]);
    topic.write_to(Some(2), Some("b"), Some(b"2"), &[]);
    topic.flush();
    reject(&topic, 2, &["a", "b"]);
    let program = program();
    let partitions = |key: &str| -> Vec<i32> {
        let records = reader::read_all(&Kafka::shared().bootstrap(), "dlqhome").into_iter();
        records.filter(|record| record.key.as_deref() == Some(key.as_bytes())).map(|it| it.partition).collect()
    };
    well(program.verb(&["dlq", "redrive", "dlqhome.dlq", "--key", "a"]));
    assert_eq!(partitions("a"), [chosen, chosen], "as a column of the outbox had chosen");

    Kafka::shared().delete_topic("dlqhome");
    Kafka::shared().create_topic("dlqhome", 1);
    well(program.verb(&["dlq", "redrive", "dlqhome.dlq", "--key", "b"]));
    assert_eq!(partitions("b"), [0], "the topic has no partition 2 any more");
}

#[test]
fn an_error_has_a_next_step() {
    let topic = Topic::create("dlqwrong", 1);
    Kafka::shared().create_topic("strange", 1);
    let program = program();
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let ended = program.verb(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.notes);
        expected.iter().for_each(|text| assert!(ended.notes.contains(text), "{text} in {}", ended.notes));
    };
    check(&["dlq", "list", "nowhere.dlq"], 69, &["WR-6980", "nowhere.dlq", "the name of the topic"]);
    check(&["dlq", "list", "dlqwrong.dlq"], 0, &["0 dead-letter records"]);
    check(&["dlq", "show", "dlqwrong.dlq", "--at", "0@9"], 1, &["no dead-letter record in dlqwrong.dlq", "--all"]);
    check(&["dlq", "list", "dlqwrong.dlq", "--since", "yesterday"], 2, &["--since", "a duration (2h)"]);
    // A record without provenance is shown, and redriven only to a given topic.
    topic.write(Some("a"), Some(b"x"), &[]);
    topic.flush();
    check(
        &["dlq", "redrive", "dlqwrong"],
        1,
        &["do not name the original topic", "--to TOPIC", "0 dead-letter records redriven"],
    );
    check(&["dlq", "redrive", "dlqwrong", "--to", "strange"], 0, &["1 dead-letter record redriven"]);
    assert_eq!(reader::read_all(&Kafka::shared().bootstrap(), "strange").len(), 1);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let topic = Topic::create("dlqhead", 1);
    topic.changes(50, 50);
    let script = format!(
        "set -o pipefail; '{}' --set kafka.brokers=[\"'{}'\"] --set postgres.url=postgres://x@127.0.0.1:1/x \
         dlq list dlqhead | head -1",
        env!("CARGO_BIN_EXE_walrelay"),
        Kafka::shared().bootstrap()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !notes.contains("panicked"), "{notes}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

#[test]
fn a_record_with_a_header_that_cannot_be_read_is_shown_but_not_redriven() {
    let topic = Topic::create("dlqnames", 1);
    raw::produce(&Kafka::shared().bootstrap(), "dlqnames.dlq", b"k", b"the value", (b"\xff\xfe", b"x"));
    let program = program();
    let (out, notes) = well(program.verb(&["dlq", "list", "dlqnames.dlq"]));
    assert!(out.contains("key k: (headers cannot be read") && notes.contains("1 dead-letter record"), "{out}{notes}");
    let (out, _) = well(program.verb(&["dlq", "show", "dlqnames.dlq"]));
    assert!(out.contains("the value") && out.contains("not UTF-8"), "{out}");
    let refused = program.verb(&["dlq", "redrive", "dlqnames.dlq", "--to", &topic.name]);
    assert_eq!(refused.code, Some(1), "{}{}", refused.out, refused.notes);
    assert!(
        refused.notes.contains("dlqnames.dlq[0]@0") && refused.notes.contains("byte for byte"),
        "{}",
        refused.notes
    );
    assert!(reader::read_all(&Kafka::shared().bootstrap(), &topic.name).is_empty());
}
