//! Brokers that refuse us: it is said at once what is missing, and what can be mended meanwhile is no end.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::InboxKeeps;
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
    config.retry.first_pause = Duration::from_millis(20);
    config.retry.longest_pause = Duration::from_millis(200);
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
fn i9_what_is_refused_is_said_and_a_letter_goes_out_when_it_may() {
    let (kafka, door) = Kafka::guarded();
    let inside = kafka.bootstrap();
    ["t", "t.dlq"].iter().for_each(|topic| kafka.create_topic(topic, 1));
    let never = |_: Delivery| async { Outcome::reject("never") };

    let ended = Member::start(config(&door, "wrong"), never).join();
    assert!(matches!(ended, Err(Error::Refused(_))), "{ended:?}");

    for (resource, name, operation) in [
        (Resource::Topic, "t", Operation::Read),
        (Resource::Topic, "t.dlq", Operation::Describe),
        (Resource::Group, "g", Operation::Read),
    ] {
        grant(&inside, resource, name, operation);
    }
    let mut with_inbox = config(&door, "secret");
    with_inbox.inbox_keeps = Some(InboxKeeps::For(Duration::from_secs(30 * 86_400)));
    let ended = Member::start(with_inbox, never).join();
    assert!(matches!(ended, Err(Error::Refused(_))), "{ended:?}");

    let log = Log::default();
    let mut member = Member::start_observed(config(&door, "secret"), never, log.clone());
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", &inside).create().unwrap();
    producer.send(BaseRecord::to("t").key("k").payload("v")).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    wait_until("a letter that is refused", || {
        member.check();
        log.count("blocked") >= 2
    });
    assert_eq!(log.count("letter"), 0);
    grant(&inside, Resource::Topic, "t.dlq", Operation::Write);
    log.wait_for("letter t[0]@0", 1);
    member.stop().unwrap();
    assert_eq!(reader::read_all(&inside, "t.dlq").len(), 1);
}

#[test]
fn i9_a_letter_of_a_partition_that_goes_is_left_to_its_new_owner() {
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
    let never = |_: Delivery| async { Outcome::reject("never") };
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
    first.wait_for("blocked t[0]", 1);
    first.wait_for("blocked t[1]", 1);
    let mut other = Member::start_observed(config(&door, "secret"), never, second.clone());
    wait_until("one partition to change hands", || {
        member.check();
        other.check();
        second.count("blocked") >= 2
    });
    let moved = if second.count("blocked t[0]") > 0 { "t[0]" } else { "t[1]" };
    let tried = first.count(&format!("blocked {moved}"));
    second.wait_for("blocked", second.count("blocked") + 5);
    assert_eq!(first.count(&format!("blocked {moved}")), tried, "it is nobody's business of the first one any more");
    grant(&inside, Resource::Topic, "t.dlq", Operation::Write);
    first.wait_for("letter", 1);
    second.wait_for(&format!("letter {moved}@0"), 1);
    member.stop().unwrap();
    other.stop().unwrap();
    assert_eq!(reader::read_all(&inside, "t.dlq").len(), 2, "each event once");
}
