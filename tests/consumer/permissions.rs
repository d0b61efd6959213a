//! Denied access: the consumer reports it at once, and continues where the permission can be granted meanwhile.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::InboxRetention;
use walrelay_events::consumer::Outcome;

use super::stage::Log;
use super::stage::Member;
use super::stage::wait_until;
use crate::support::kafka::Kafka;
use crate::support::raw::Operation;
use crate::support::raw::Resource;
use crate::support::raw::grant;
use crate::support::reader;

fn config(door: &str, password: &str) -> Config {
    let mut config = Config::new(door, "g", &["t"]);
    config.retry.initial_backoff = Duration::from_millis(20);
    config.retry.max_backoff = Duration::from_millis(200);
    let sasl = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", "app"),
        ("sasl.password", password),
    ];
    config.properties.extend(sasl.map(|(name, value)| (name.to_owned(), value.to_owned())));
    config
}

#[test]
fn i9_denied_access_is_reported_and_a_dead_letter_record_is_written_once_it_is_granted() {
    let (kafka, door) = Kafka::guarded();
    let inside = kafka.bootstrap();
    ["t", "t.dlq"].iter().for_each(|topic| kafka.create_topic(topic, 1));
    let never = |_: Delivery| async { Outcome::dead_letter("never") };

    let ended = Member::start(config(&door, "wrong"), never).join();
    assert!(matches!(ended, Err(Error::AccessDenied(_))), "{ended:?}");

    for (resource, name, operation) in [
        (Resource::Topic, "t", Operation::Read),
        (Resource::Topic, "t.dlq", Operation::Describe),
        (Resource::Group, "g", Operation::Read),
    ] {
        grant(&inside, resource, name, operation);
    }
    let mut with_inbox = config(&door, "secret");
    with_inbox.inbox_retention = Some(InboxRetention::For(Duration::from_secs(30 * 86_400)));
    let ended = Member::start(with_inbox, never).join();
    assert!(matches!(ended, Err(Error::AccessDenied(_))), "{ended:?}");

    let log = Log::default();
    let mut member = Member::start_observed(config(&door, "secret"), never, log.clone());
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", &inside).create().unwrap();
    producer.send(BaseRecord::to("t").key("k").payload("v")).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    wait_until("a dead-letter write that is refused", || {
        member.check();
        log.count("dead-letter failed") >= 2
    });
    assert_eq!(log.count("dead-lettered"), 0);
    grant(&inside, Resource::Topic, "t.dlq", Operation::Write);
    log.wait_for("dead-lettered t[0]@0", 1);
    member.stop().unwrap();
    assert_eq!(reader::read_all(&inside, "t.dlq").len(), 1);
}

#[test]
fn i9_the_dead_letter_record_of_a_revoked_partition_is_left_to_its_new_owner() {
    let (kafka, door) = Kafka::guarded();
    let inside = kafka.bootstrap();
    kafka.create_topic("t", 2);
    kafka.create_topic("t.dlq", 1);
    for (resource, name, operation) in [
        (Resource::Topic, "t", Operation::Read),
        (Resource::Topic, "t.dlq", Operation::Describe),
        (Resource::Group, "g", Operation::Read),
    ] {
        grant(&inside, resource, name, operation);
    }
    let never = |_: Delivery| async { Outcome::dead_letter("never") };
    let (first, second) = (Log::default(), Log::default());
    let mut member = Member::start_observed(config(&door, "secret"), never, first.clone());
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", &inside).create().unwrap();
    for partition in [0, 1] {
        producer
            .send(BaseRecord::to("t").partition(partition).key("k").payload("v"))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    first.wait_for("dead-letter failed t[0]", 1);
    first.wait_for("dead-letter failed t[1]", 1);
    let mut other = Member::start_observed(config(&door, "secret"), never, second.clone());
    wait_until("one partition to change hands", || {
        member.check();
        other.check();
        second.count("dead-letter failed") >= 2
    });
    let moved = if second.count("dead-letter failed t[0]") > 0 { "t[0]" } else { "t[1]" };
    let tried = first.count(&format!("dead-letter failed {moved}"));
    second.wait_for("dead-letter failed", second.count("dead-letter failed") + 5);
    assert_eq!(first.count(&format!("dead-letter failed {moved}")), tried, "the first member no longer writes it");
    grant(&inside, Resource::Topic, "t.dlq", Operation::Write);
    first.wait_for("dead-lettered", 1);
    second.wait_for(&format!("dead-lettered {moved}@0"), 1);
    member.stop().unwrap();
    other.stop().unwrap();
    assert_eq!(reader::read_all(&inside, "t.dlq").len(), 2, "each event once");
}
