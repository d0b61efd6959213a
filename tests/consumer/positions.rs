//! What holds no records is passed: transaction markers, aborted and open transactions, compacted records.

use std::future::Ready;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message as _;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use rdkafka::topic_partition_list::Offset;
use walrelay_events::consumer::Delivery;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use super::starting::delete_records;
use crate::support::kafka::Kafka;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A producer of transactions.
struct Transactions(ThreadedProducer<DefaultProducerContext>);

impl Transactions {
    fn of(id: &str) -> Self {
        Self::on(Kafka::shared(), id)
    }

    fn on(kafka: &Kafka, id: &str) -> Self {
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "600000")
            .create()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        Self(producer)
    }

    /// Begins a transaction and writes records in it.
    fn begin(&self, topic: &Topic, records: usize) {
        self.0.begin_transaction().unwrap();
        for _ in 0..records {
            let record = BaseRecord::to(&topic.name).partition(0).key("k").payload("in a transaction");
            self.0.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.0.flush(TIMEOUT).unwrap();
    }

    fn commit(&self) {
        self.0.commit_transaction(TIMEOUT).unwrap();
    }

    fn abort(&self) {
        self.0.abort_transaction(TIMEOUT).unwrap();
    }
}

fn noting(log: &Log) -> impl Fn(Delivery) -> Ready<()> + Send + Sync + 'static {
    let log = log.clone();
    move |delivery| {
        log.note(delivery.record.offset());
        std::future::ready(())
    }
}

#[test]
fn i15_a_transaction_marker_is_passed_and_its_deletion_is_no_gap() {
    let topic = Topic::create("marker", 1);
    let transactions = Transactions::of("marker");
    transactions.begin(&topic, 1);
    transactions.commit();
    let (log, seen) = (Log::default(), Log::default());
    let member = Member::start_observed(topic.config("marker"), noting(&log), seen.clone());
    wait_until("the end, behind the marker", || topic.committed("marker") == [2]);
    assert_eq!(topic.end(), 2, "Kafka's tools show a lag of 0");
    seen.wait_for("lag 0 0", 1);
    member.stop().unwrap();

    delete_records("marker", 2);
    topic.changes(1, 1);
    let mut member = Member::start(topic.config("marker"), noting(&log));
    wait_until("the next record", || {
        member.check();
        topic.committed("marker") == [3]
    });
    member.stop().unwrap();
    assert_eq!(log.lines(), ["0", "2"], "each once");
}

#[test]
fn aborted_transactions_are_passed_also_by_a_consumer_that_starts_behind_the_last_record() {
    let topic = Topic::create("aborted", 1);
    let transactions = Transactions::of("aborted");
    topic.changes(2, 1);
    topic.commit("aborted", 2);
    for _ in 0..2 {
        transactions.begin(&topic, 3);
        transactions.abort();
    }
    let (log, seen) = (Log::default(), Log::default());
    let member = Member::start_observed(topic.config("aborted"), noting(&log), seen.clone());
    wait_until("the end, behind both markers", || topic.committed("aborted") == [10]);
    seen.wait_for("lag 0 0", 1);
    transactions.begin(&topic, 3);
    transactions.abort();
    wait_until("the end, behind another one", || topic.committed("aborted") == [14]);
    assert_eq!(topic.end(), 14);
    member.stop().unwrap();
    assert!(log.lines().is_empty(), "{:?}", log.lines());
}

#[test]
fn a_lag_behind_an_open_transaction_says_so_until_it_ends() {
    let topic = Topic::create("open", 1);
    topic.changes(1, 1);
    let transactions = Transactions::of("open");
    transactions.begin(&topic, 1);
    topic.changes(2, 1);
    let (log, seen) = (Log::default(), Log::default());
    let member = Member::start_observed(topic.config("open"), noting(&log), seen.clone());
    seen.wait_for("waiting 0 1 4", 1);
    seen.wait_for("lag 0 3", 2);
    assert_eq!((topic.committed("open"), log.lines().len()), (vec![1], 1));
    transactions.commit();
    wait_until("the end", || topic.committed("open") == [5]);
    seen.wait_for("ended 0", 1);
    seen.wait_for("lag 0 0", 1);
    member.stop().unwrap();
    assert_eq!(log.lines(), ["0", "1", "2", "3"]);
    assert_eq!((seen.count("waiting"), seen.count("ended")), (1, 1));
}

/// Whatever can be compacted is: a segment ends soon, and a tombstone goes with the next compaction.
const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "100"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "0"),
];

/// Returns the offset of the first record from an offset on, those of aborted transactions included.
fn first_from(kafka: &Kafka, topic: &Topic, offset: i64) -> i64 {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "none")
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, Offset::Offset(offset)).unwrap();
    reader.assign(&list).unwrap();
    reader.poll(TIMEOUT).unwrap().unwrap().offset()
}

#[test]
fn a_compacted_tail_is_passed_by_a_group_that_is_new_and_by_one_that_has_committed_within_it() {
    let kafka = Kafka::compacting();
    let topic = Topic::create_on(&kafka, "compacted", 1, &COMPACTED);
    let transactions = Transactions::on(&kafka, "compacted");
    topic.write(Some("kept"), Some(b"0"), &[]);
    (1..5).for_each(|_| topic.write(Some("gone"), Some(b"1"), &[]));
    topic.write(Some("gone"), None, &[]);
    topic.flush();
    topic.commit("within", 3);
    let mut aborted = 0;
    wait_until("the compaction", || {
        transactions.begin(&topic, 2);
        transactions.abort();
        aborted += 1;
        // The record before it is gone as well: it is of the second aborted transaction or of a later one.
        first_from(&kafka, &topic, 1) > 8
    });
    assert_eq!(topic.end(), 6 + 3 * aborted);
    for (group, handled) in [("new", vec!["0"]), ("within", vec![])] {
        for round in 0..2 {
            let (log, seen) = (Log::default(), Log::default());
            let member = Member::start_observed(topic.config(group), noting(&log), seen.clone());
            wait_until("the end", || topic.committed(group) == [topic.end()]);
            seen.wait_for("lag 0 0", 1);
            member.stop().unwrap();
            let expected = if round == 0 { handled.clone() } else { vec![] };
            assert_eq!(log.lines(), expected, "{group}, round {round}");
        }
    }
    let end = topic.end();
    topic.changes(1, 1);
    let log = Log::default();
    let member = Member::start(topic.config("within"), noting(&log));
    wait_until("the next record", || topic.committed("within") == [end + 1]);
    member.stop().unwrap();
    assert_eq!(log.lines(), [end.to_string()]);
}
