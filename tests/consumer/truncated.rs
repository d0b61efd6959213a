//! A leader that lacks records is elected: what a group has read is no longer in the log.

use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::OnGap;
use walrelay_events::fault::Diagnose as _;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::kafka::Kafka;

/// Notes the offset and the branch of the log that a record is in: its key.
fn noting(log: &Log) -> impl Fn(Delivery) -> std::future::Ready<()> + Send + Sync + 'static {
    let log = log.clone();
    move |delivery| {
        let key = String::from_utf8_lossy(delivery.record.key().unwrap_or_default()).into_owned();
        log.note(format!("{} {key}", delivery.record.offset()));
        std::future::ready(())
    }
}

fn write(topic: &Topic, count: usize, branch: &str) {
    (0..count).for_each(|_| topic.change(uuid::Uuid::now_v7(), branch, 1));
    topic.flush();
}

fn lines(offsets: std::ops::Range<i64>, branch: &str) -> Vec<String> {
    offsets.map(|offset| format!("{offset} {branch}")).collect()
}

/// What was handled, without the order of keys among each other.
fn sorted(log: &Log) -> Vec<String> {
    sort(log.lines())
}

fn sort(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn assert_truncated(ended: Result<(), Error>, topic: &Topic) {
    let error = ended.unwrap_err();
    assert_eq!(error.code().to_string(), "WR-6671", "{error}");
    let expected = format!("committed offset 20 of {}[0] in leader epoch", topic.name);
    let text = error.to_string();
    assert!(text.contains(&expected) && text.contains("from offset 10 on"), "{text}");
    assert!(error.help().unwrap().contains("--to-offset 10"), "{:?}", error.help());
}

#[test]
fn i15_a_truncated_log_stops_the_consumer_or_is_read_from_where_it_parts_at_the_start_and_in_flight() {
    let mut kafka = Kafka::start(3);
    let settings = [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")];
    let names = ["truncated", "truncated-runs-stop", "truncated-runs-on"];
    for name in names {
        kafka.create_topic_at(name, &[0, 1], &settings);
        kafka.create_topic(&format!("{name}.dlq"), 1);
    }
    let topics = names.map(|name| Topic::on(&kafka, name, 1));
    topics.iter().for_each(|topic| write(topic, 10, "both"));
    kafka.kill(1);
    topics.iter().for_each(|topic| write(topic, 10, "first"));

    let config = |topic: &Topic, on_gap| {
        let mut config: Config = topic.config("g");
        config.on_gap = on_gap;
        config
    };
    let logs = [Log::default(), Log::default(), Log::default()];
    let start = |at: usize, on_gap| Member::start(config(&topics[at], on_gap), noting(&logs[at]));
    let [stopped, mut stops, runs_on] = [start(0, OnGap::Stop), start(1, OnGap::Stop), start(2, OnGap::SkipToEarliest)];
    for topic in &topics {
        wait_until("all of the first leader", || topic.committed("g") == [20]);
    }
    stopped.stop().unwrap();

    // The second broker lacks the last ten and is the only one that can lead.
    kafka.kill(0);
    kafka.resume(1);
    let written: Vec<Topic> = names.iter().map(|name| Topic::on(&kafka, name, 1)).collect();
    // The log grows past the committed offset again.
    written.iter().for_each(|topic| write(topic, 11, "second"));

    assert_truncated(stops.join(), &topics[1]);
    assert_truncated(start(0, OnGap::Stop).join(), &topics[0]);
    assert_eq!(topics[0].committed("g"), [20], "nothing is skipped silently");
    let member = start(0, OnGap::SkipToEarliest);
    for topic in [&topics[0], &topics[2]] {
        wait_until("the rest of the second leader", || topic.committed("g") == [21]);
    }
    member.stop().unwrap();
    runs_on.stop().unwrap();

    let read = [lines(0..10, "both"), lines(10..20, "first")].concat();
    assert_eq!(sorted(&logs[1]), sort(read.clone()), "each once");
    let read = sort([read, lines(10..21, "second")].concat());
    assert_eq!((sorted(&logs[0]), sorted(&logs[2])), (read.clone(), read), "each once");
}
