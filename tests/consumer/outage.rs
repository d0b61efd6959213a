//! Brokers go down and come up, memory stays bounded meanwhile, and a stop does not wait without limit.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaApiKey;
use rdkafka::types::RDKafkaRespErr;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;
use walrelay_events::consumer::Outcome;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::cut_off;
use super::stage::wait_until;
use crate::support::kafka::Kafka;

/// Keeps the maximum of buffered bytes, and counts the reports.
#[derive(Clone, Default)]
struct Bytes {
    most: Arc<AtomicU64>,
    reports: Arc<AtomicU64>,
}

impl Observer for Bytes {
    fn observe(&self, observed: &Observed<'_>) {
        if let Observed::Load { buffered_bytes, .. } = observed {
            self.most.fetch_max(*buffered_bytes, Relaxed);
            self.reports.fetch_add(1, Relaxed);
        }
    }
}

#[test]
fn large_records_are_buffered_up_to_the_limit() {
    const RECORD: usize = 100_000;
    const BOUND: u64 = 300_000;
    let topic = Topic::create("large", 8);
    let value = vec![b'x'; RECORD];
    // One answer of the broker has many of them, of all partitions.
    (0..400).for_each(|number| topic.write(Some(&number.to_string()), Some(&value), &[]));
    topic.flush();
    let mut config = topic.config("large");
    config.max_buffered_bytes = BOUND;
    config.shutdown_timeout = Duration::ZERO;
    let bytes = Bytes::default();
    let member = Member::start_observed(config, |_: Delivery| std::future::pending::<()>(), bytes.clone());
    wait_until("something to hold", || bytes.most.load(Relaxed) >= BOUND);
    let reports = bytes.reports.load(Relaxed);
    wait_until("more of it, if it takes more", || bytes.reports.load(Relaxed) >= reports + 3);
    assert!(matches!(member.stop(), Err(Error::ShutdownTimeout { .. })));
    let most = bytes.most.load(Relaxed);
    assert!(most < BOUND + 110_000, "{most} bytes are more than the bound and one record");
}

#[test]
fn a_cluster_whose_answers_name_no_broker_for_a_while_is_found_again() {
    let mut kafka = Kafka::start(1);
    let topic = Topic::create_on(&kafka, "nameless", 1, &[]);
    topic.changes(10, 1);
    let log = Log::default();
    let mut config = Config::new(&kafka.bootstrap(), "g", &["nameless"]);
    config.dead_letters.budget.max_consecutive = 1_000;
    config.dead_letters.budget.max_per_thousand = 1_000;
    // For so long the group waits for the member that could not say that it left.
    config.properties.insert("session.timeout.ms".into(), "10000".into());
    let reject = |_: Delivery| async { Outcome::dead_letter("as a test") };
    let member = Member::start_observed(config, reject, log.clone());
    log.wait_for("dead-lettered nameless[0]@9", 1);
    kafka.waver_until("the loss of every broker", || log.count("client replaced") > 0);
    kafka.steady();
    Topic::on(&kafka, "nameless", 1).changes(10, 1);
    log.wait_for("dead-lettered nameless[0]@19", 1);
    assert!(member.stop().is_ok());
}

#[test]
fn an_outage_of_kafka_is_reported_once_and_a_stop_in_the_middle_of_one_ends() {
    let (mut kafka, topic, log, member) = cut_off("outage", Duration::from_secs(1));
    kafka.resume(0);
    log.wait_for("brokers up", 1);
    topic.changes(10, 1);
    log.wait_for("ack", 20);
    assert_eq!((log.count("all brokers down"), log.count("brokers up")), (1, 1));
    kafka.kill(0);
    log.wait_for("all brokers down", 2);
    assert!(matches!(member.stop(), Err(Error::ShutdownTimeout { running: 0, .. })), "ten acks are not committed");
}

/// Errors that librdkafka does not repeat by itself, which a real broker gives only for a moment.
#[test]
fn partitions_that_come_while_brokers_fail_are_taken_when_they_answer() {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["t", "t.dlq"] {
        cluster.create_topic(topic, 1, 1).unwrap();
    }
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for _ in 0..5 {
        producer.send(BaseRecord::to("t").key("k").payload("v")).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let failures = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 3];
    cluster.request_errors(RDKafkaApiKey::OffsetFetch, &failures);
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &failures);
    let log = Log::default();
    let config = Config::new(&cluster.bootstrap_servers(), "g", &["t"]);
    let mut member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    wait_until("all of them", || {
        member.check();
        log.count("ack") == 5
    });
    member.stop().unwrap();
}
