//! Records that no handler can handle are written to the dead-letter topic whole, and only then are they done.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::Router;
use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::consumer::dead_letter::DeadLetterTopic;
use walrelay_events::consumer::typed;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::chain;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::noise;
use super::stage::wait_until;
use crate::support::kafka::Kafka;
use crate::support::program::printed;
use crate::support::raw;
use crate::support::reader;

#[derive(Debug, Deserialize)]
#[serde(tag = "event_type")]
#[expect(dead_code, reason = "only decoded")]
enum Event {
    Changed { key: String, version: i64 },
}

fn dead_letters(topic: &Topic) -> Vec<reader::Record> {
    reader::read_all(&Kafka::shared().bootstrap(), &format!("{}.dlq", topic.name))
}

#[test]
fn i8_a_poison_record_is_retried_then_dead_lettered_whole_and_then_done() {
    let topic = Topic::create("i8", 1);
    let headers: [(&str, Option<&[u8]>); 4] = [
        ("event_id", Some(b"00000000-0000-7000-8000-000000000001")),
        ("event_type", Some(b"Odd")),
        ("x", Some(b"1")),
        ("x", None),
    ];
    topic.write(Some("k"), Some(b"\xff\x00bytes"), &headers);
    topic.change(Uuid::now_v7(), "k", 2);
    topic.flush();
    let log = Log::default();
    let mut config = topic.config("i8");
    config.retry.max_attempts = 3;
    let router = Router::new()
        .on("Odd", |_: Delivery| async { Outcome::retry("cannot be") })
        .on("Changed", |_: Delivery| async { Outcome::Ack });
    let member = Member::start_observed(config, router, log.clone());
    wait_until("both", || topic.committed("i8") == [2]);
    member.stop().unwrap();
    let expected = [
        "retry i8[0]@0",
        "retry i8[0]@0",
        "dead_letter i8[0]@0",
        "dead-lettered i8[0]@0 after 3 attempts: cannot be",
        "ack i8[0]@1",
    ];
    let lines: Vec<String> = log.lines().into_iter().filter(|line| !line.starts_with("lag")).collect();
    assert_eq!(lines, expected, "the later event of the key waits for the earlier one");
    let dead_letters = dead_letters(&topic);
    assert_eq!(dead_letters.len(), 1);
    let dead_letter = &dead_letters[0];
    assert_eq!(
        (dead_letter.key.as_deref(), dead_letter.value.as_deref()),
        (Some(&b"k"[..]), Some(&b"\xff\x00bytes"[..]))
    );
    let own: Vec<_> = dead_letter.headers.iter().filter(|(name, _)| !name.starts_with("dlq_")).cloned().collect();
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let id = "00000000-0000-7000-8000-000000000001";
    assert_eq!(own, [text("event_id", id), text("event_type", "Odd"), text("x", "1"), text("x", "")]);
    let provenance = ["dlq_topic", "dlq_partition", "dlq_offset", "dlq_group", "dlq_reason", "dlq_attempts"];
    let provenance = provenance.map(|name| dead_letter.header(name).unwrap());
    assert_eq!(provenance, ["i8", "0", "0", "i8", "after 3 attempts: cannot be", "3"]);
}

#[test]
fn i8_a_dead_letter_record_may_be_as_large_as_the_topic_allows() {
    let topic = Topic::create_with("i8large", 1, &[("max.message.bytes", "4000000")]);
    topic.write(Some("k"), Some(&vec![b'x'; 2_000_000]), &[]);
    topic.flush();
    let member = Member::start(topic.config("i8large"), |_: Delivery| async { Outcome::dead_letter("too much") });
    wait_until("it", || topic.committed("i8large") == [1]);
    member.stop().unwrap();
    assert_eq!(dead_letters(&topic)[0].value.as_ref().map(Vec::len), Some(2_000_000));
}

#[test]
fn i8_a_record_that_came_in_compressed_is_dead_lettered_whole() {
    let topic = Topic::create("i8zstd", 1);
    let value = b"an order with many lines, ".repeat(80_000);
    let headers: [(&str, Option<&[u8]>); 2] = [("event_id", Some(b"e-1")), ("x", Some(b"1"))];
    let compressed = topic.compressed();
    compressed.write(Some("k"), Some(&value), &headers);
    compressed.flush();
    let member = Member::start(topic.config("i8zstd"), |_: Delivery| async { Outcome::dead_letter("never") });
    wait_until("it", || topic.committed("i8zstd") == [1]);
    member.stop().unwrap();
    let dead_letter = &dead_letters(&topic)[0];
    assert!(dead_letter.value.as_deref() == Some(&value), "byte for byte");
    assert_eq!((dead_letter.header("event_id"), dead_letter.header("x")), (Some("e-1"), Some("1")));
    assert_eq!(dead_letter.header("dlq_reason"), Some("never"));
}

#[test]
fn i8_near_the_limit_a_dead_letter_record_loses_its_reason_and_then_all_but_its_origin() {
    let kafka = Kafka::shared();
    kafka.create_topic("i8tight", 1);
    kafka.create_topic_with("i8tight.dlq", 1, &[("max.message.bytes", "20000")]);
    let topic = Topic::on(kafka, "i8tight", 1);
    // With a reason of 2,048 bytes neither fits, with one of 128 bytes the first does.
    let values = [noise(18_700), noise(19_780)];
    topic.write(Some("a"), Some(&values[0]), &[]);
    topic.write(Some("b"), Some(&values[1]), &[]);
    topic.flush();
    let reason: String = noise(4_000).into_iter().filter(u8::is_ascii_alphanumeric).map(char::from).collect();
    let reason = reason.repeat(3);
    let member = Member::start(topic.config(&topic.name), move |_: Delivery| {
        let outcome = Outcome::dead_letter(reason.clone());
        async { outcome }
    });
    wait_until("both", || topic.committed(&topic.name) == [2]);
    member.stop().unwrap();
    // Each needs several attempts: the second can be written first.
    let mut dead_letters = dead_letters(&topic);
    dead_letters.sort_by_key(|it| it.header("dlq_offset").map(str::to_owned));
    for (dead_letter, value) in dead_letters.iter().zip(&values) {
        assert!(dead_letter.value.as_ref() == Some(value), "byte for byte");
        let origin = ["dlq_topic", "dlq_partition", "dlq_group"].map(|name| dead_letter.header(name));
        assert_eq!(origin, [Some("i8tight"), Some("0"), Some("i8tight")]);
    }
    let shortened = |place: usize| dead_letters[place].header("dlq_reason").map(str::len);
    assert_eq!((shortened(0), shortened(1)), (Some(128), None));
    assert_eq!([0, 1].map(|place: usize| dead_letters[place].header("dlq_offset")), [Some("0"), Some("1")]);
}

#[test]
fn i8_a_record_that_is_too_large_for_the_dead_letter_topic_stops_the_consumer_and_the_next_step_works() {
    let kafka = Kafka::shared();
    kafka.create_topic_with("i8huge", 1, &[("max.message.bytes", "4000000")]);
    kafka.create_topic("i8huge.dlq", 1);
    let topic = Topic::on(kafka, "i8huge", 1);
    let value = noise(3_000_000);
    topic.write(Some("k"), Some(&value), &[]);
    topic.flush();
    let never = |_: Delivery| async { Outcome::dead_letter("never") };
    let ended = Member::start(topic.config(&topic.name), never).join();
    let Err(error @ Error::DeadLetterRefused { .. }) = ended else { panic!("{ended:?}") };
    let (text, next) = (chain(&error), error.help().unwrap());
    for part in ["i8huge[0]@0", "a value of 3000000 bytes", "topic i8huge.dlq", "max.message.bytes is 1048588"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(topic.committed(&topic.name)[0] <= 0, "its offset is not committed");
    kafka.configure(&printed(&next, "kafka-configs.sh"));
    let member = Member::start(topic.config(&topic.name), never);
    wait_until("it", || topic.committed(&topic.name) == [1]);
    member.stop().unwrap();
    assert!(dead_letters(&topic)[0].value.as_ref() == Some(&value), "byte for byte");
}

#[test]
fn i9_a_record_that_the_dead_letter_topic_refuses_for_good_stops_the_consumer() {
    let kafka = Kafka::shared();
    kafka.create_topic("i9compact", 1);
    kafka.create_topic_with("i9compact.dlq", 1, &[("cleanup.policy", "compact")]);
    let topic = Topic::on(kafka, "i9compact", 1);
    topic.write(None, Some(b"no key"), &[]);
    topic.flush();
    let ended = Member::start(topic.config(&topic.name), |_: Delivery| async { Outcome::dead_letter("never") }).join();
    let Err(error @ Error::DeadLetterRefused { .. }) = ended else { panic!("{ended:?}") };
    let text = chain(&error);
    assert!(text.contains("i9compact[0]@0") && text.contains("topic i9compact.dlq refuses"), "{text}");
    assert!(error.help().is_some_and(|next| next.contains("compacted")), "{error:?}");
    assert!(topic.committed(&topic.name)[0] <= 0, "its offset is not committed");
}

#[test]
fn i9_a_dead_letter_topic_that_the_consumer_itself_consumes_is_refused() {
    let topic = Topic::create("i9loop", 1);
    topic.change(Uuid::now_v7(), "k", 1);
    topic.flush();
    for name in ["{topic}", "i9loop"] {
        let mut config = topic.config("i9loop");
        config.dead_letters.topic = name.to_owned();
        let ended = Member::start(config, |_: Delivery| async { Outcome::dead_letter("never") }).join();
        assert!(matches!(&ended, Err(Error::Option(text)) if text.contains("topic i9loop would be")), "{ended:?}");
    }
    assert_eq!(Kafka::shared().end_of("i9loop"), 1, "nothing was written to it");
}

#[test]
fn i9_a_stop_names_the_dead_letter_write_that_is_pending() {
    let topic = Topic::create("i9pending", 1);
    let log = Log::default();
    let mut config = topic.config("i9pending");
    config.shutdown_timeout = Duration::from_millis(200);
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    let member = Member::start_observed(config, |_: Delivery| async { Outcome::dead_letter("never") }, log.clone());
    topic.change(Uuid::now_v7(), "k", 1);
    topic.flush();
    log.wait_for("dead-lettered", 1);
    Kafka::shared().delete_topic("i9pending.dlq");
    topic.change(Uuid::now_v7(), "k", 2);
    topic.flush();
    log.wait_for("dead-letter failed", 1);
    let ended = member.stop();
    let Err(Error::DeadLettersPending { records, record, topic, error, running, .. }) = &ended else {
        panic!("{ended:?}")
    };
    assert_eq!((*records, record.as_str(), topic.as_str(), *running), (1, "i9pending[0]@1", "i9pending.dlq", 0));
    assert!(error.contains("cannot write to topic i9pending.dlq: "), "{error}");
}

#[test]
fn i9_without_its_dead_letter_topic_a_consumer_does_not_start() {
    Kafka::shared().create_topic("i9-alone", 1);
    let config = walrelay_events::consumer::Config::new(&Kafka::shared().bootstrap(), "i9-alone", &["i9-alone"]);
    let ended = Member::start(config, |_: Delivery| async { Outcome::Ack }).join();
    assert!(matches!(&ended, Err(Error::TopicsMissing { topics }) if topics == &["i9-alone.dlq"]), "{ended:?}");
}

#[test]
fn i9_while_the_dead_letter_topic_is_missing_the_partition_waits_and_then_continues() {
    let topic = Topic::create("i9", 1);
    let log = Log::default();
    let reject = |_: Delivery| async { Outcome::dead_letter("never") };
    let mut config = topic.config("i9");
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    // Until the assignment many may be written.
    config.dead_letters.budget.max_consecutive = 10_000;
    config.dead_letters.budget.max_per_thousand = 1_000;
    let member = Member::start_observed(config, reject, log.clone());
    let mut written = 0;
    wait_until("an assignment", || {
        topic.change(Uuid::now_v7(), "k", 1);
        topic.flush();
        written += 1;
        log.count("dead-lettered") > 0
    });
    // All of them, so that what comes into the next topic is known.
    log.wait_for("dead-lettered", usize::try_from(written).unwrap());
    Kafka::shared().delete_topic("i9.dlq");
    let (before, end) = (topic.committed("i9"), log.count("dead-lettered"));
    topic.change(Uuid::now_v7(), "k", 2);
    topic.flush();
    log.wait_for("dead-letter failed", 1);
    assert!(topic.committed("i9")[0] <= before[0].max(i64::try_from(end).unwrap()), "it is not passed");
    Kafka::shared().create_topic("i9.dlq", 1);
    log.wait_for("dead-lettered", end + 1);
    wait_until("every offset", || topic.committed("i9") == [written + 1]);
    member.stop().unwrap();
    assert_eq!(dead_letters(&topic).len(), 1);
}

#[test]
fn i9_a_dead_letter_topic_that_is_missing_does_not_stop_other_keys() {
    let topic = Topic::create("i9others", 1);
    let log = Log::default();
    let mut config = topic.config("i9others");
    config.max_concurrency = 1;
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    let handle = |delivery: Delivery| {
        let is_bad = delivery.record.key() == Some(b"bad");
        async move { if is_bad { Outcome::dead_letter("never") } else { Outcome::Ack } }
    };
    let member = Member::start_observed(config, handle, log.clone());
    topic.change(Uuid::now_v7(), "bad", 1);
    topic.flush();
    log.wait_for("dead-lettered i9others[0]@0", 1);
    Kafka::shared().delete_topic("i9others.dlq");
    topic.change(Uuid::now_v7(), "bad", 2);
    topic.flush();
    log.wait_for("dead-letter failed i9others[0]@1", 1);
    topic.change(Uuid::now_v7(), "good", 1);
    topic.flush();
    log.wait_for("ack i9others[0]@2", 1);
    assert_eq!(topic.committed("i9others"), [1], "nothing after the record that waits is committed");
    Kafka::shared().create_topic("i9others.dlq", 1);
    wait_until("every offset", || topic.committed("i9others") == [3]);
    member.stop().unwrap();
    assert_eq!(dead_letters(&topic).len(), 1);
}

#[test]
fn i10_a_dead_letter_record_whose_offset_was_not_committed_is_written_twice_with_one_id() {
    let topic = Topic::create("i10", 1);
    let id = Uuid::now_v7();
    topic.change(id, "k", 1);
    topic.flush();
    for times in 1..=2 {
        let log = Log::default();
        let reject = |_: Delivery| async { Outcome::dead_letter("never") };
        let member = Member::start_observed(topic.config("i10"), reject, log.clone());
        log.wait_for("dead-lettered", 1);
        member.stop().unwrap();
        assert_eq!(dead_letters(&topic).len(), times);
        // As if the commit had never reached the broker.
        topic.commit("i10", 0);
    }
    let ids: Vec<String> = dead_letters(&topic).iter().map(reader::Record::event_id).collect();
    assert_eq!(ids, [id.to_string(), id.to_string()]);
}

#[test]
fn i16_tombstones_unknown_types_and_invalid_records_are_handled_or_dead_lettered() {
    let topic = Topic::create("i16", 1);
    let id = |number: u8| format!("00000000-0000-7000-8000-0000000000{number:02}");
    let write = |number: u8, event_type: Option<&str>, value: Option<&[u8]>| {
        let id = id(number);
        let mut headers: Vec<(&str, Option<&[u8]>)> = vec![("event_id", Some(id.as_bytes()))];
        headers.extend(event_type.map(|event_type| ("event_type", Some(event_type.as_bytes()))));
        topic.write(Some("k"), value, &headers);
    };
    write(1, Some("Changed"), None);
    write(2, Some("Renamed"), Some(b"{\"to\": 1}"));
    write(3, Some("Changed"), Some(b"not json"));
    write(4, Some("Changed"), Some(b"{\"key\": 5}"));
    write(5, Some("Changed"), Some(b"{\"event_type\": \"Other\", \"key\": \"k\", \"version\": 1}"));
    write(6, None, Some(b"{\"event_type\": \"Changed\", \"key\": \"k\", \"version\": 1}"));
    topic.write(Some("k"), Some(b"{}"), &[("event_type", Some(b"Changed"))]);
    topic.write(Some("k"), Some(b"{}"), &[("event_id", Some(b"\xff\xfe")), ("event_type", None)]);
    // A content type that nobody here reads.
    let ninth = id(9);
    let (changed, avro) = (Some(b"Changed".as_slice()), Some(b"application/avro".as_slice()));
    let headers = [("event_id", Some(ninth.as_bytes())), ("event_type", changed), ("content-type", avro)];
    topic.write(Some("k"), Some(b"\x00\x00\x00\x00\x07\x02k"), &headers);
    topic.flush();
    let (log, seen) = (Log::default(), Log::default());
    let notes = seen.clone();
    let handle = move |received: Received<Event>| {
        notes.note(match &received.event {
            Payload::Event(event) => format!("{event:?}"),
            Payload::Unknown(unknown) => format!("unknown {}", unknown.event_type),
            Payload::Tombstone => "tombstone".to_owned(),
            other => panic!("an unknown {other:?}"),
        });
        async {}
    };
    let member = Member::start_observed(topic.config("i16"), typed(handle).handle_unknown(), log);
    wait_until("all of them", || topic.committed("i16") == [9]);
    member.stop().unwrap();
    assert_eq!(seen.lines(), ["tombstone", "unknown Renamed", "Changed { key: \"k\", version: 1 }"]);
    let dead_letters = dead_letters(&topic);
    let offsets: Vec<_> = dead_letters.iter().map(|dead_letter| dead_letter.header("dlq_offset").unwrap()).collect();
    assert_eq!(offsets, ["2", "3", "4", "6", "7", "8"]);
    assert!(dead_letters.iter().all(|dead_letter| dead_letter.header("dlq_attempts") == Some("1")), "no retry");
}

#[test]
fn i16_a_header_name_that_is_not_utf8_hides_no_other_header_and_is_dead_lettered_byte_for_byte() {
    // The hook is that of the process: other tests panic on purpose, but not on a consumer's thread.
    let (panics, previous) = (Arc::new(AtomicUsize::new(0)), std::panic::take_hook());
    let counted = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |info| {
        counted.fetch_add(usize::from(std::thread::current().name() == Some("consumer")), Relaxed);
        previous(info);
    }));
    let topic = Topic::create("i16names", 1);
    let headers: [raw::Header<'_>; 3] =
        [(b"event_type", b"Odd"), (b"\xff\xfe", b"x"), (b"event_id", b"00000000-0000-7000-8000-000000000001")];
    raw::produce(&Kafka::shared().bootstrap(), "i16names", b"k", b"the value", &headers);
    topic.change(Uuid::now_v7(), "k", 2);
    topic.flush();
    let log = Log::default();
    let router = Router::new()
        .on("Odd", |delivery: Delivery| async move {
            let names: Vec<Vec<u8>> = delivery.record.raw_headers().map(|(name, _)| name.to_vec()).collect();
            assert_eq!(names, [&b"event_type"[..], b"\xff\xfe", b"event_id"]);
            Outcome::dead_letter("as a test")
        })
        .on("Changed", |_: Delivery| async { Outcome::Ack });
    let member = Member::start_observed(topic.config("i16names"), router, log.clone());
    wait_until("both", || topic.committed("i16names") == [2]);
    member.stop().unwrap();
    assert_eq!((log.count("dead_letter i16names[0]@0"), log.count("ack i16names[0]@1")), (1, 1), "{:?}", log.lines());
    let properties = [("bootstrap.servers".to_owned(), Kafka::shared().bootstrap())].into();
    let mut kept = Vec::new();
    let mut take = |dead_letter: DeadLetter| {
        let record = dead_letter.record;
        let own = record.raw_headers().map(|(name, value)| (name.to_vec(), value.unwrap_or_default().to_vec()));
        kept.extend(own.take(3));
        assert_eq!((record.key(), record.value()), (Some(&b"k"[..]), Some(&b"the value"[..])));
        ControlFlow::Continue(())
    };
    DeadLetterTopic::open(&properties, "i16names.dlq").unwrap().visit(&mut take).unwrap();
    assert_eq!(kept, headers.map(|(name, value)| (name.to_vec(), value.to_vec())));
    assert_eq!(panics.load(Relaxed), 0, "with panic = \"abort\" the process ends");
}

#[test]
fn the_dead_letter_budget_stops_the_consumer() {
    let topic = Topic::create("budget", 1);
    topic.changes(100, 1);
    let mut config = topic.config("budget");
    config.dead_letters.budget.max_consecutive = 7;
    config.dead_letters.budget.max_per_thousand = 1_000;
    let ended = Member::start(config, |_: Delivery| async { Outcome::dead_letter("a bad deploy") }).join();
    let Err(Error::DeadLetterBudgetExceeded { record, reason, .. }) = &ended else { panic!("{ended:?}") };
    assert_eq!((record.as_str(), reason.as_str()), ("budget[0]@7", "a bad deploy"));
    assert_eq!((dead_letters(&topic).len(), topic.committed("budget")), (7, vec![7]));
}

#[test]
fn a_handler_that_panics_has_failed_like_any_other() {
    let topic = Topic::create("panics", 1);
    topic.changes(3, 3);
    let mut config = topic.config("panics");
    config.retry.max_attempts = 2;
    let handle = |delivery: Delivery| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(delivery.record.offset() != 1, "a bug in the handler");
    };
    let member = Member::start(config, handle);
    wait_until("all of them", || topic.committed("panics") == [3]);
    member.stop().unwrap();
    assert_eq!(dead_letters(&topic).len(), 1);
}
