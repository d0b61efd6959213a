//! Where a group starts, and what makes it refuse to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::Semaphore;
use uuid::Uuid;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::InboxRetention;
use walrelay_events::consumer::OnGap;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Start;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::kafka::Kafka;

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap()
}

/// Lets a topic forget what stands before an offset.
pub fn delete_records(topic: &str, offset: i64) {
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin().delete_records(&until, &AdminOptions::new())).unwrap();
}

fn noting(log: &Log) -> impl Fn(Delivery) -> std::future::Ready<()> + Send + Sync + 'static {
    let log = log.clone();
    move |delivery| {
        log.note(delivery.record.offset());
        std::future::ready(())
    }
}

#[test]
fn i15_records_that_are_gone_stop_the_consumer_with_their_offsets() {
    let topic = Topic::create("i15", 1);
    topic.changes(20, 1);
    topic.commit("i15", 5);
    delete_records("i15", 9);

    let log = Log::default();
    let ended = Member::start(topic.config("i15"), noting(&log)).join();
    let Err(Error::Gap { committed, oldest, end, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((committed, oldest, end), (5, 9, 20));
    assert_eq!((log.lines().len(), topic.committed("i15")), (0, vec![5]), "nothing is skipped silently");

    let mut config = topic.config("i15");
    config.on_gap = OnGap::SkipToEarliest;
    let member = Member::start(config, noting(&log));
    wait_until("the rest", || topic.committed("i15") == [20]);
    member.stop().unwrap();
    assert_eq!(log.lines().len(), 11);
}

#[test]
fn i15_a_topic_that_was_recreated_stops_the_consumer() {
    let topic = Topic::create("i15-anew", 1);
    topic.changes(3, 1);
    topic.commit("i15-anew", 30);
    let ended = Member::start(topic.config("i15-anew"), |_: Delivery| async {}).join();
    assert!(matches!(ended, Err(Error::Gap { committed: 30, end: 3, .. })), "{ended:?}");
}

#[test]
fn i15_a_topic_that_is_recreated_while_its_partition_is_full_is_read_from_its_beginning_if_the_options_allow_it() {
    let topic = Topic::create("i15-full", 1);
    topic.changes(10, 1);
    let mut config = topic.config("i15-full");
    config.on_gap = OnGap::SkipToEarliest;
    config.max_buffered_records = 4;
    config.revoke_timeout = Duration::from_millis(100);
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "500".into());
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let (notes, opened) = (log.clone(), Arc::clone(&gate));
    let member = Member::start(config, move |delivery: Delivery| {
        let (notes, opened) = (notes.clone(), Arc::clone(&opened));
        async move {
            notes.note(format!("begun {}", delivery.record.offset()));
            if delivery.record.offset() == 6 {
                drop(opened.acquire().await);
            }
            notes.note(format!("done {}", delivery.record.value().map_or(0, <[u8]>::len)));
        }
    });
    log.wait_for("begun 6", 1);
    // Until the partition is paused.
    std::thread::sleep(Duration::from_secs(1));
    topic.recreated().changes(3, 1);
    gate.close();
    wait_until("the new records", || topic.committed("i15-full") == [3]);
    member.stop().unwrap();
    let after = log.lines().into_iter().rposition(|line| line == "begun 0").unwrap();
    assert!(after > 0 && log.lines()[after..].iter().any(|line| line == "begun 2"), "{:?}", log.lines());
}

#[test]
fn a_group_that_has_committed_nothing_starts_at_the_oldest_record_or_after_the_newest() {
    let topic = Topic::create("first-start", 1);
    topic.changes(5, 1);
    let log = Log::default();
    let member = Member::start(topic.config("earliest"), noting(&log));
    wait_until("all of them", || topic.committed("earliest") == [5]);
    member.stop().unwrap();

    let mut config = topic.config("latest");
    config.start = Start::Latest;
    let later = Log::default();
    let member = Member::start(config, noting(&later));
    wait_until("a later one", || {
        topic.change(Uuid::now_v7(), "k", 1);
        topic.flush();
        !later.lines().is_empty()
    });
    member.stop().unwrap();
    let offsets: Vec<i64> = later.lines().iter().map(|line| line.parse().unwrap()).collect();
    assert!(offsets[0] >= 5, "{offsets:?}");
}

#[test]
fn i15_a_partition_that_is_added_later_is_read_from_its_beginning_although_the_group_started_at_the_end() {
    let mut topic = Topic::create("added", 1);
    topic.changes(3, 1);
    let mut config = topic.config("added");
    config.start = Start::Latest;
    config.properties.insert("topic.metadata.refresh.interval.ms".into(), "1000".into());
    let member = Member::start(config.clone(), |_: Delivery| async {});
    wait_until("its beginning", || topic.committed("added") == [3]);
    member.stop().unwrap();

    // While nobody is there, and while somebody is.
    let log = Log::default();
    let mut member = None;
    for partitions in 2..=3 {
        Kafka::shared().add_partitions("added", partitions);
        let added = i32::try_from(partitions).unwrap() - 1;
        topic = Topic::on(Kafka::shared(), "added", added + 1);
        for _ in 0..4 {
            topic.write_to(Some(added), Some("k"), Some(b"{}"), &[]);
        }
        topic.flush();
        member.get_or_insert_with(|| Member::start(config.clone(), noting(&log)));
        wait_until("the records of the new partition", || topic.committed("added")[partitions - 1] == 4);
    }
    member.unwrap().stop().unwrap();
    assert_eq!(log.lines(), ["0", "1", "2", "3", "0", "1", "2", "3"]);
}

#[test]
fn i15_a_group_that_starts_at_the_end_does_so_in_partitions_of_members_that_come_second() {
    let topic = Topic::create("latecomers", 2);
    let write = |partition| topic.write_to(Some(partition), Some("k"), Some(b"{}"), &[]);
    (0..2).for_each(|partition| (0..5).for_each(|_| write(partition)));
    topic.flush();
    let config = |group| {
        let mut config = topic.config(group);
        config.start = Start::Latest;
        config
    };
    // What the first member of a group commits, taken from a group with one.
    let member = Member::start(config("alone"), |_: Delivery| async {});
    let mut metadata = String::new();
    wait_until("its beginning", || {
        metadata = topic.metadata("alone");
        !metadata.is_empty()
    });
    member.stop().unwrap();
    // The second member failed before it committed anything, and records came.
    topic.commit_with("latecomers", 5, &metadata);
    write(1);
    topic.flush();
    let log = Log::default();
    let member = Member::start(config("latecomers"), noting(&log));
    wait_until("both", || topic.committed("latecomers") == [5, 6]);
    member.stop().unwrap();
    assert_eq!(log.lines(), ["5"], "neither what was before the group began, nor less than what came since");
}

#[test]
fn i15_records_that_go_while_a_consumer_runs_stop_it_or_are_skipped_as_the_options_say() {
    for (name, on_gap) in [("i15-runs-stop", OnGap::Stop), ("i15-runs-on", OnGap::SkipToEarliest)] {
        let topic = Topic::create(name, 1);
        topic.changes(2, 1);
        let mut config = topic.config(&topic.name);
        config.on_gap = on_gap;
        // It holds the first two and takes no more, when the next ones come and go.
        config.max_buffered_records = 2;
        let (log, begun, gate) = (Log::default(), Log::default(), Arc::new(Semaphore::new(0)));
        let (notes, first, opened) = (log.clone(), begun.clone(), Arc::clone(&gate));
        let mut member = Member::start(config, move |delivery: Delivery| {
            let (notes, first, opened) = (notes.clone(), first.clone(), Arc::clone(&opened));
            async move {
                first.note("begun");
                drop(opened.acquire().await);
                notes.note(delivery.record.offset());
            }
        });
        begun.wait_for("begun", 1);
        // Until the partition is paused.
        std::thread::sleep(Duration::from_secs(1));
        topic.changes(18, 1);
        delete_records(name, 10);
        gate.add_permits(1);
        if on_gap == OnGap::Stop {
            let ended = member.join();
            assert!(matches!(ended, Err(Error::Gap { oldest: 10, end: 20, .. })), "{ended:?}");
        } else {
            wait_until("the rest", || topic.committed(&topic.name) == [20]);
            member.stop().unwrap();
            let expected: Vec<String> = (0..2).chain(10..20).map(|offset| offset.to_string()).collect();
            assert_eq!(log.lines(), expected);
        }
    }
}

#[test]
fn i15_where_a_group_began_is_kept_although_nothing_was_done() {
    let topic = Topic::create("i15-began", 1);
    topic.changes(5, 1);
    let (mut latest, earliest) = (topic.config("latest"), topic.config("earliest"));
    latest.start = Start::Latest;
    let member = Member::start(latest.clone(), |_: Delivery| async {});
    wait_until("its beginning", || topic.committed("latest") == [5]);
    member.stop().unwrap();
    // While nobody is there: not to be passed.
    topic.changes(2, 1);
    let log = Log::default();
    let member = Member::start(latest, noting(&log));
    wait_until("both", || topic.committed("latest") == [7]);
    member.stop().unwrap();
    assert_eq!(log.lines(), ["5", "6"]);

    let log = Log::default();
    let never = |_: Delivery| async { Outcome::retry("not yet") };
    let member = Member::start_observed(earliest.clone(), never, log.clone());
    log.wait_for("retry", 1);
    member.stop().unwrap();
    delete_records("i15-began", 3);
    let ended = Member::start(earliest, noting(&log)).join();
    assert!(matches!(ended, Err(Error::Gap { committed: 0, oldest: 3, .. })), "{ended:?}");
}

#[test]
fn i12_an_inbox_that_forgets_before_the_topic_does_is_refused() {
    let topic = Topic::create("i12", 1);
    let mut config = topic.config("i12");
    config.inbox_retention = Some(InboxRetention::For(Duration::from_secs(3_600)));
    let ended = Member::start(config, |_: Delivery| async {}).join();
    let Err(Error::InboxRetentionTooShort { inbox, retention, .. }) = &ended else { panic!("{ended:?}") };
    assert_eq!((inbox.as_str(), retention.as_str()), ("1h", "for 7days"));
}

#[test]
fn a_property_that_carries_a_guarantee_is_refused_with_the_reason() {
    for (name, why) in [("enable.auto.commit", "only acked records"), ("test.mock.num.brokers", "a mock")] {
        let mut config = Config::new("127.0.0.1:1", "g", &["t"]);
        config.properties.insert(name.into(), "1".into());
        let ended = Member::start(config, |_: Delivery| async {}).join();
        assert!(matches!(&ended, Err(Error::Option(text)) if text.contains(why)), "{ended:?}");
    }
}

#[test]
fn a_consumer_waits_for_brokers_and_can_be_stopped_meanwhile() {
    let log = Log::default();
    let config = Config::new("127.0.0.1:1", "g", &["t"]);
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("all brokers down", 1);
    member.stop().unwrap();
}

#[test]
fn a_stop_lets_handlers_end_commits_and_leaves_the_rest() {
    let topic = Topic::create("unfinished", 1);
    topic.changes(50, 1);
    let log = Log::default();
    let notes = log.clone();
    let handle = move |delivery: Delivery| {
        let notes = notes.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            notes.note(delivery.record.offset());
        }
    };
    let member = Member::start(topic.config("unfinished"), handle);
    log.wait_for("", 3);
    member.stop().unwrap();
    let done = i64::try_from(log.lines().len()).unwrap();
    assert!(done < 50, "it does not take what it has not started");
    assert_eq!(topic.committed("unfinished"), [done], "exactly what was done is committed");
    // Each was handled once, in order.
    let counts = log.lines().into_iter().fold(HashMap::new(), |mut counts, line| {
        *counts.entry(line).or_insert(0) += 1;
        counts
    });
    assert!(counts.values().all(|count| *count == 1));
}

#[test]
fn a_revoke_timeout_that_outlasts_the_poll_interval_is_refused() {
    let mut config = Config::new("127.0.0.1:1", "g", &["never"]);
    config.properties.insert("max.poll.interval.ms".into(), "10000".into());
    config.revoke_timeout = Duration::from_secs(7);
    let ended = Member::start(config, |_: Delivery| async {}).join();
    let Err(Error::Option(text)) = ended else { panic!("{ended:?}") };
    assert!(text.contains("shorter than max.poll.interval.ms, 10s"), "{text}");
}
