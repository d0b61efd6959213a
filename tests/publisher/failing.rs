//! What Kafka refuses is distinguished from what it cannot take now, and nothing else is lost or swapped.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaApiKey;
use rdkafka::types::RDKafkaRespErr;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::publisher::Config;
use walrelay_events::publisher::Error;
use walrelay_events::publisher::ErrorKind;
use walrelay_events::publisher::Publisher;

use super::TIMEOUT;
use super::all;
use super::block_on;
use super::config;
use super::enqueue;
use super::numbers;
use super::padded;
use super::publisher;
use super::read;
use crate::support::kafka::Kafka;
use crate::support::raw::Operation;
use crate::support::raw::Resource;
use crate::support::raw::grant;

#[test]
fn an_event_for_a_missing_topic_names_it_and_is_delivered_if_the_topic_comes() {
    let kafka = Kafka::shared();
    let mut config = config(kafka);
    config.delivery_timeout = Duration::from_secs(12);
    block_on(async {
        let publisher = Publisher::new(config).unwrap();
        let error = publisher.publish("comes-late", "k", &read(1)).await.unwrap_err();
        assert!(matches!(error, Error::NotAcknowledged { .. }), "{error}");
        assert!(error.to_string().contains("topic comes-late does not exist"), "{error}");
        assert_eq!((error.kind(), error.may_be_delivered()), (ErrorKind::Retriable, true));
        let Error::Undelivered { count: 1, events } = publisher.flush().await.unwrap_err() else { panic!() };
        assert!(events[0].may_be_delivered && events[0].topic == "comes-late");
        tokio::task::spawn_blocking(|| Kafka::shared().create_topic("comes-late", 1)).await.unwrap();
        while publisher.flush().await.is_err() {}
        publisher.close().await.unwrap();
    });
    assert_eq!(numbers(&kafka.bootstrap(), "comes-late"), [1]);
}

#[test]
fn a_topic_that_does_not_exist_for_a_minute_is_an_error_for_certain_and_others_are_not_disturbed() {
    let kafka = Kafka::shared();
    kafka.create_topic("exists", 1);
    block_on(async {
        let publisher = publisher(kafka);
        let missing = publisher.enqueue("never-comes", "k", &read(1)).await.unwrap();
        publisher.publish("exists", "k", &read(2)).await.unwrap();
        let error = missing.await.unwrap_err();
        assert!(matches!(&error, Error::TopicMissing { topic, .. } if topic == "never-comes"), "{error}");
        assert_eq!((error.kind(), error.may_be_delivered()), (ErrorKind::Fatal, false));
        assert!(error.help().unwrap().contains("--create --topic never-comes"));
        let again = publisher.publish("never-comes", "k", &read(3)).await.unwrap_err();
        assert!(matches!(again, Error::TopicMissing { .. }), "{again}");
        publisher.publish("exists", "k", &read(4)).await.unwrap();
        publisher.close().await.unwrap();
    });
    assert_eq!(numbers(&kafka.bootstrap(), "exists"), [2, 4]);
}

#[test]
fn only_the_event_that_kafka_refuses_fails_and_the_others_of_its_batch_are_delivered_in_order() {
    let kafka = Kafka::shared();
    kafka.create_topic_with("small", 1, &[("max.message.bytes", "20000")]);
    let mut config = config(kafka);
    // All in one batch.
    config.properties.insert("linger.ms".to_owned(), "500".to_owned());
    block_on(async {
        let publisher = Publisher::new(config).unwrap();
        let mut pending = Vec::new();
        for number in 0..60 {
            let bytes = if number == 17 || number == 40 { 30_000 } else { 1_000 };
            pending.push(publisher.enqueue("small", "k", &padded(number, bytes)).await.unwrap());
        }
        for (number, pending) in pending.into_iter().enumerate() {
            match (number, pending.await) {
                (17 | 40, Err(error @ Error::Refused { .. })) => {
                    assert_eq!((error.kind(), error.may_be_delivered()), (ErrorKind::ThisEvent, false));
                }
                (17 | 40, other) => panic!("{number}: {other:?}"),
                (_, result) => assert!(result.is_ok(), "{number}: {result:?}"),
            }
        }
        let error = publisher.publish("small", "k", &padded(60, 2_000_000)).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 1_048_588, .. }), "{error}");
        publisher.publish("small", "k", &read(61)).await.unwrap();
        publisher.close().await.unwrap();
    });
    let expected: Vec<usize> = (0..60).filter(|number| *number != 17 && *number != 40).chain([61]).collect();
    assert_eq!(numbers(&kafka.bootstrap(), "small"), expected);
}

#[test]
fn events_that_were_accepted_while_kafka_was_down_are_delivered_in_order() {
    let mut kafka = Kafka::start(1);
    kafka.create_topic("outage", 1);
    block_on(async {
        let publisher = publisher(&kafka);
        publisher.publish("outage", "k", &read(0)).await.unwrap();
        kafka.kill(0);
        let pending = enqueue(&publisher, "outage", 1..500, 3).await;
        kafka.resume(0);
        all(pending).await;
        publisher.close().await.unwrap();
    });
    assert_eq!(numbers(&kafka.bootstrap(), "outage"), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_fatal_error_of_the_client_costs_nothing_but_a_new_client() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let mut config = Config::new(&cluster.bootstrap_servers(), "meters");
    config.delivery_timeout = TIMEOUT;
    // Several batches, of which some are in flight when the first one fails.
    config.properties.insert("batch.num.messages".to_owned(), "10".to_owned());
    block_on(async {
        let publisher = Publisher::new(config).unwrap();
        publisher.publish("t", "k", &read(0)).await.unwrap();
        let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fatal, fatal]);
        all(enqueue(&publisher, "t", 1..300, 1).await).await;
        publisher.close().await.unwrap();
    });
    assert_eq!(numbers(&cluster.bootstrap_servers(), "t"), (0..300).collect::<Vec<_>>());
}

#[test]
fn a_missing_permission_is_an_error_for_its_topic_and_goes_away_when_it_is_granted() {
    let (kafka, door) = Kafka::guarded();
    let inside = kafka.bootstrap();
    ["denied", "granted"].iter().for_each(|topic| kafka.create_topic(topic, 1));
    grant(&inside, Resource::Topic, "granted", Operation::Write);
    let sasl = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.username", "app"),
        ("sasl.password", "secret"),
    ];
    let mut config = Config::new(&door, "meters");
    config.delivery_timeout = TIMEOUT;
    config.properties.extend(sasl.map(|(name, value)| (name.to_owned(), value.to_owned())));
    block_on(async {
        let publisher = Publisher::new(config).unwrap();
        publisher.publish("granted", "k", &read(1)).await.unwrap();
        let error = publisher.publish("denied", "k", &read(2)).await.unwrap_err();
        assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
        assert_eq!((error.kind(), error.may_be_delivered()), (ErrorKind::Fatal, false));
        publisher.publish("granted", "k", &read(3)).await.unwrap();
        grant(&inside, Resource::Topic, "denied", Operation::Write);
        while let Err(error) = publisher.publish("denied", "k", &read(4)).await {
            assert!(matches!(error, Error::AccessDenied { .. }), "{error}");
        }
        publisher.close().await.unwrap();
    });
    assert_eq!((numbers(&inside, "granted"), numbers(&inside, "denied")), (vec![1, 3], vec![4]));
}
