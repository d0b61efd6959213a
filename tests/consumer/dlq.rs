//! `walrelay dlq` on records that a consumer dead-lettered: they are listed, shown and redriven whole.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::kill_process;
use serde_json::Value;
use uuid::Uuid;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::consumer::dead_letter::DeadLetterTopic;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::noise;
use super::stage::wait_until;
use crate::support::kafka::Kafka;
use crate::support::murmur2;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::program::printed;
use crate::support::program::signal;
use crate::support::raw;
use crate::support::raw::Operation;
use crate::support::raw::Resource;
use crate::support::raw::grant;
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
    let member = Member::start(topic.config(&topic.name), move |delivery: Delivery| async move {
        match delivery.record.key() {
            Some(key) if keys.iter().any(|wanted| wanted.as_bytes() == key) => {
                Outcome::dead_letter("no such\x1b[31m street")
            }
            Some(_) | None => Outcome::Ack,
        }
    });
    wait_until("all", || topic.committed(&topic.name).iter().filter(|offset| **offset > 0).sum::<i64>() == records);
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
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["from"]["group"], "dlq");

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
    let member = Member::start(topic.config("dlqagain"), move |delivery: Delivery| {
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
        topic.commit("dlqtwice", 0);
        reject(&topic, 1, &["a"]);
    }
    let program = program();
    let (out, _) = well(program.verb(&["dlq", "list", "dlqtwice.dlq"]));
    assert_eq!((out.lines().count(), out.matches(" (repeated)").count()), (2, 1), "{out}");
    let (out, _) = well(program.verb(&["dlq", "redrive", "dlqtwice.dlq"]));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(reader::read_all(&Kafka::shared().bootstrap(), "dlqtwice").len(), 2);
}

/// Handles the topic as another group, or from another offset, and rejects what `rejects` selects.
fn reject_where(topic: &Topic, group: &str, end: i64, rejects: impl Fn(&Delivery) -> bool + Send + Sync + 'static) {
    let member = Member::start(topic.config(group), move |delivery: Delivery| {
        let outcome = if rejects(&delivery) { Outcome::dead_letter("no such street") } else { Outcome::Ack };
        async { outcome }
    });
    wait_until("all", || topic.committed(group) == [end]);
    member.stop().unwrap();
}

/// A topic whose dead-letter topic has so many records of different keys, as a consumer writes them.
fn with_dead_letters(name: &str, count: i64) -> Topic {
    let topic = Topic::create(name, 1);
    let written = Topic::on(Kafka::shared(), &format!("{name}.dlq"), 1);
    (0..count).for_each(|number| {
        let value = number.to_string();
        write_dead_letter(&written, name, number, &format!("k{number}"), value.as_bytes());
    });
    written.flush();
    topic
}

fn write_dead_letter(written: &Topic, origin: &str, offset: i64, key: &str, value: &[u8]) {
    let (id, offset) = (Uuid::now_v7().to_string(), offset.to_string());
    let headers: [(&str, Option<&[u8]>); 6] = [
        ("event_id", Some(id.as_bytes())),
        ("dlq_topic", Some(origin.as_bytes())),
        ("dlq_partition", Some(b"0")),
        ("dlq_offset", Some(offset.as_bytes())),
        ("dlq_group", Some(b"dlqtwice")),
        ("dlq_reason", Some(b"no such street")),
    ];
    written.write(Some(key), Some(value), &headers);
}

/// Gives the dead-letter records that the records of a topic were redriven from, in order.
fn redriven_from(topic: &str) -> Vec<String> {
    let records = reader::read_all(&Kafka::shared().bootstrap(), topic).into_iter();
    records.filter_map(|record| record.header("redriven_from").map(str::to_owned)).collect()
}

#[test]
fn a_second_rejection_of_an_event_whose_first_dead_letter_was_redriven_is_redriven() {
    let topic = Topic::create("dlqsecond", 1);
    topic.change(Uuid::now_v7(), "a", 1);
    topic.flush();
    let program = program();
    reject(&topic, 1, &["a"]);
    well(program.verb(&["dlq", "redrive", "dlqsecond.dlq"]));
    // The group is reset to before the event, and rejects it once more.
    topic.commit("dlqsecond", 0);
    reject_where(&topic, "dlqsecond", 2, |delivery| delivery.record.offset() == 0);
    let (out, _) = well(program.verb(&["dlq", "list", "dlqsecond.dlq"]));
    assert_eq!((out.lines().count(), out.contains("(repeated)")), (1, false), "{out}");
    let (out, _) = well(program.verb(&["dlq", "redrive", "dlqsecond.dlq"]));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(redriven_from("dlqsecond").len(), 2);
    let (out, _) = well(program.verb(&["dlq", "redrive", "dlqsecond.dlq"]));
    assert_eq!(out, "", "nothing waits any more");
}

#[test]
fn an_event_that_two_groups_rejected_is_redriven_once_or_for_one_group() {
    let topic = Topic::create("dlqgroups", 1);
    topic.change(Uuid::now_v7(), "a", 1);
    topic.change(Uuid::now_v7(), "b", 1);
    topic.flush();
    for group in ["first", "second"] {
        reject_where(&topic, group, 2, |_| true);
    }
    let program = program();
    let list = |arguments: &[&str]| {
        let (out, _) = well(program.verb(&[&["dlq", "list", "dlqgroups.dlq"], arguments].concat()));
        out.lines().count()
    };
    assert_eq!((list(&[]), list(&["--group", "second"]), list(&["--group", "third"])), (4, 2, 0));
    let (out, _) = well(program.verb(&["dlq", "redrive", "dlqgroups.dlq", "--group", "second", "--key", "a"]));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!((list(&["--group", "first"]), list(&["--group", "second"])), (2, 1));
    let (out, notes) = well(program.verb(&["dlq", "redrive", "dlqgroups.dlq", "--key", "b"]));
    assert_eq!((out.lines().count(), notes.matches("was covered").count()), (1, 1), "{out}{notes}");
    assert_eq!((list(&["--key", "b"]), redriven_from("dlqgroups").len()), (0, 2));
}

#[test]
fn a_redrive_that_ended_between_a_record_and_its_marker_is_continued_without_repetition() {
    let kafka = Kafka::shared();
    let topic = with_dead_letters("dlqcrash", 3);
    let program = program();
    well(program.verb(&["dlq", "redrive", "dlqcrash.dlq", "--limit", "1"]));
    assert_eq!(redriven_from("dlqcrash"), ["dlqcrash.dlq[0]@0"]);
    // The dead-letter topic as it was before the marker was written.
    let before = reader::read_all(&kafka.bootstrap(), "dlqcrash.dlq").into_iter();
    let before: Vec<_> = before.take_while(|record| record.header("dlq_redriven").is_none()).collect();
    kafka.delete_topic("dlqcrash.dlq");
    kafka.create_topic("dlqcrash.dlq", 1);
    let again = Topic::on(kafka, "dlqcrash.dlq", 1);
    for record in &before {
        let headers: Vec<_> =
            record.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect();
        let key = record.key.as_deref().map(|key| std::str::from_utf8(key).unwrap());
        again.write(key, record.value.as_deref(), &headers);
    }
    again.flush();
    // Another event, so that not everything in the topic is from the redrive.
    topic.change(Uuid::now_v7(), "a", 1);
    topic.flush();

    let (out, notes) = well(program.verb(&["dlq", "redrive", "dlqcrash.dlq", "--dry-run"]));
    assert_eq!(out.lines().count(), 2, "{out}{notes}");
    let (out, notes) = well(program.verb(&["dlq", "redrive", "dlqcrash.dlq"]));
    assert!(notes.contains("dlqcrash.dlq[0]@0 was delivered by a redrive that was interrupted"), "{notes}");
    assert_eq!(out.lines().count(), 2, "{out}{notes}");
    assert_eq!(redriven_from("dlqcrash"), [0, 1, 2].map(|offset| format!("dlqcrash.dlq[0]@{offset}")));
    let (out, notes) = well(program.verb(&["dlq", "list", "dlqcrash.dlq"]));
    assert!(out.is_empty() && !notes.contains("interrupted"), "{out}{notes}");
}

#[test]
fn a_redrive_that_is_killed_again_and_again_repeats_nothing() {
    const RECORDS: usize = 400;
    with_dead_letters("dlqkilled", i64::try_from(RECORDS).unwrap());
    let program = program();
    for round in 1..=4 {
        let mut running = start(&program, &["dlq", "redrive", "dlqkilled.dlq", "--rate", "10"]);
        wait_until("some records", || Kafka::shared().end_of("dlqkilled") >= round * 5);
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let (_, notes) = well(program.verb(&["dlq", "list", "dlqkilled.dlq"]));
    assert!(notes.contains("was interrupted"), "{notes}");
    well(program.verb(&["dlq", "redrive", "dlqkilled.dlq"]));
    let redriven = redriven_from("dlqkilled");
    let distinct: BTreeSet<&String> = redriven.iter().collect();
    assert_eq!((redriven.len(), distinct.len()), (RECORDS, RECORDS), "{redriven:?}");
}

fn start(program: &Program, arguments: &[&str]) -> Child {
    let mut command = program.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_redrive_that_gets_sigint_finishes_its_record_and_says_how_far_it_is() {
    with_dead_letters("dlqsigint", 30);
    let program = program();
    let running = start(&program, &["dlq", "redrive", "dlqsigint.dlq", "--rate", "5"]);
    wait_until("some records", || Kafka::shared().end_of("dlqsigint") >= 3);
    kill_process(Pid::from_child(&running), signal("INT")).unwrap();
    let output = running.wait_with_output().unwrap();
    let (out, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let redriven = redriven_from("dlqsigint").len();
    assert_eq!((output.status.code(), out.lines().count()), (Some(130), redriven), "{out}{notes}");
    assert!(redriven < 30 && notes.contains(&format!("{redriven} dead-letter records redriven")), "{notes}");
    let (_, notes) = well(program.verb(&["dlq", "redrive", "dlqsigint.dlq"]));
    assert!(!notes.contains("interrupted"), "it ended in order: {notes}");
    assert_eq!(redriven_from("dlqsigint").len(), 30);
}

#[test]
fn a_redrive_at_a_rate_reports_its_progress() {
    with_dead_letters("dlqrate", 15);
    let (out, notes) = well(program().verb(&["dlq", "redrive", "dlqrate.dlq", "--rate", "2"]));
    assert_eq!(out.lines().count(), 15, "{out}");
    assert!(notes.contains("dead-letter records redriven so far, now at dlqrate.dlq[0]@"), "{notes}");
    let times = reader::read_all(&Kafka::shared().bootstrap(), "dlqrate").into_iter();
    let times: Vec<i64> = times.map(|record| record.timestamp_millis.unwrap()).collect();
    assert!(times[14] - times[0] >= 6_000, "14 records at 2 per second: {times:?}");
}

#[test]
fn a_redrive_without_the_permission_to_mark_writes_nothing() {
    let (kafka, door) = Kafka::guarded_by_scram();
    let inside = kafka.bootstrap();
    ["t", "t.dlq"].iter().for_each(|topic| kafka.create_topic(topic, 1));
    for (resource, name, operation) in [
        (Resource::Topic, "t", Operation::Write),
        (Resource::Topic, "t", Operation::Read),
        (Resource::Topic, "t.dlq", Operation::Read),
    ] {
        grant(&inside, resource, name, operation);
    }
    let written = Topic::on(&kafka, "t.dlq", 1);
    write_dead_letter(&written, "t", 0, "a", b"1");
    written.flush();
    let sasl = "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"app\"\npassword = { env = \"SECRET\" }\n";
    let program = Program::new("postgres://nobody@127.0.0.1:1/none", &door, sasl);
    let redrive = || {
        let output = program.command(&["dlq", "redrive", "t.dlq"]).env("SECRET", "secret").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for _ in 0..2 {
        let (code, notes) = redrive();
        assert_eq!(code, Some(69), "{notes}");
        assert!(notes.contains("0 dead-letter records redriven") && notes.contains("Write"), "{notes}");
    }
    assert!(reader::read_all(&inside, "t").is_empty(), "each run would write it once more");
    grant(&inside, Resource::Topic, "t.dlq", Operation::Write);
    let (code, notes) = redrive();
    assert_eq!((code, reader::read_all(&inside, "t").len()), (Some(0), 1), "{notes}");
}

#[test]
fn a_record_that_is_too_large_does_not_hold_up_others_and_the_next_step_works() {
    let kafka = Kafka::shared();
    kafka.create_topic("dlqlarge", 1);
    kafka.create_topic_with("dlqlarge.dlq", 1, &[("max.message.bytes", "4000000")]);
    let written = Topic::on(kafka, "dlqlarge.dlq", 1);
    let (large, zeros) = (noise(3_000_000), vec![0; 2_000_000]);
    for (offset, (key, value)) in [("a", &large[..]), ("a", &b"later"[..]), ("b", &zeros[..])].into_iter().enumerate() {
        write_dead_letter(&written, "dlqlarge", i64::try_from(offset).unwrap(), key, value);
        written.flush();
    }
    let program = program();
    let ended = program.verb(&["dlq", "redrive", "dlqlarge.dlq"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.out, ended.notes);
    assert_eq!(ended.out, "dlqlarge.dlq[0]@2 redriven to dlqlarge\n", "compressed: {}", ended.notes);
    for part in [
        "error[WR-0183]: cannot redrive dlqlarge.dlq[0]@0: ",
        "a value of 3000000 bytes",
        "too large for topic dlqlarge,",
        "error[WR-0184]: cannot redrive dlqlarge.dlq[0]@1 before earlier records of its key",
        "1 dead-letter record redriven, 2 not",
    ] {
        assert!(ended.notes.contains(part), "{part} in {}", ended.notes);
    }
    kafka.configure(&printed(&ended.notes, "kafka-configs.sh"));
    well(program.verb(&["dlq", "redrive", "dlqlarge.dlq"]));
    let values: Vec<_> = reader::read_all(&kafka.bootstrap(), "dlqlarge").into_iter().map(|it| it.value).collect();
    assert!(values == [Some(zeros), Some(large), Some(b"later".to_vec())], "byte for byte, and the key in order");
}

#[test]
fn g10_a_header_that_names_no_topic_is_refused_and_printed_escaped() {
    let topic = Topic::create("dlqnotopic", 1);
    let written = Topic::on(Kafka::shared(), "dlqnotopic.dlq", 1);
    write_dead_letter(&written, "x\x1b[2J; reboot", 0, "a", b"1");
    write_dead_letter(&written, &topic.name, 1, "b", b"2");
    written.flush();
    let ended = program().verb(&["dlq", "redrive", "dlqnotopic.dlq"]);
    assert_eq!((ended.code, ended.out.lines().count()), (Some(1), 1), "{}{}", ended.out, ended.notes);
    let expected = "error[WR-0185]: cannot redrive dlqnotopic.dlq[0]@0 to topic \"x\\u{1b}[2J; reboot\"";
    assert!(ended.notes.contains(expected) && !ended.notes.contains('\x1b'), "{}", ended.notes);
}

#[test]
fn a_redrive_into_a_closed_pipe_redrives_every_record() {
    with_dead_letters("dlqpipe", 20);
    let script = format!(
        "set -o pipefail; '{}' --set kafka.brokers=[\"'{}'\"] --set postgres.url=postgres://x@127.0.0.1:1/x \
         dlq redrive dlqpipe.dlq | head -1",
        env!("CARGO_BIN_EXE_walrelay"),
        Kafka::shared().bootstrap()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && notes.contains("20 dead-letter records redriven"), "{notes}");
    assert_eq!(redriven_from("dlqpipe").len(), 20);
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
    check(&["dlq", "redrive", "dlqwrong", "--to", "dlqwrong"], 1, &["WR-0186", "to the same topic", "--to TOPIC"]);
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
fn a_record_with_a_header_name_that_is_not_utf8_is_shown_and_redriven_byte_for_byte() {
    let topic = Topic::create("dlqnames", 1);
    let bootstrap = Kafka::shared().bootstrap();
    raw::produce(&bootstrap, "dlqnames.dlq", b"k", b"the value", &[(b"\xff\xfe", b"x"), (b"a", b"y")]);
    let program = program();
    let (out, notes) = well(program.verb(&["dlq", "list", "dlqnames.dlq"]));
    assert!(out.contains("key k: (no reason)") && notes.contains("1 dead-letter record"), "{out}{notes}");
    let (out, _) = well(program.verb(&["dlq", "show", "dlqnames.dlq"]));
    assert!(out.contains("the value") && out.contains("\u{fffd}\u{fffd}: x") && out.contains("a: y"), "{out}");
    well(program.verb(&["dlq", "redrive", "dlqnames.dlq", "--to", &topic.name]));
    let mut names = Vec::new();
    let properties = [("bootstrap.servers".to_owned(), bootstrap)].into();
    let mut take = |redriven: DeadLetter| {
        names.extend(redriven.record.raw_headers().map(|(name, _)| name.to_vec()));
        ControlFlow::Continue(())
    };
    DeadLetterTopic::open(&properties, &topic.name).unwrap().visit(&mut take).unwrap();
    assert_eq!(names, [&b"\xff\xfe"[..], b"a", b"redriven_from"]);
}
