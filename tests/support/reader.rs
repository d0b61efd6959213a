//! What is in Kafka, read from its beginning to its end, and checked against what was committed.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use super::murmur2;

/// A record, as a consumer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub timestamp_millis: Option<i64>,
}

impl Record {
    /// Gives a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Gives the event's id.
    pub fn event_id(&self) -> String {
        self.header("event_id").unwrap().to_owned()
    }
}

/// Reads a topic from its beginning to where it ends now.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut records = Vec::new();
    read_each(bootstrap, topic, |record| records.push(record));
    records
}

/// Hands over each record of a topic, from its beginning to where it ends now.
pub fn read_each(bootstrap: &str, topic: &str, mut take: impl FnMut(Record)) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted")
        .set("fetch.wait.max.ms", "50")
        .create()
        .unwrap();
    let wait = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), wait).unwrap();
    let partitions = i32::try_from(metadata.topics()[0].partitions().len()).unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut missing: i64 = 0;
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, wait).unwrap();
        assignment.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
        missing += high - low;
    }
    consumer.assign(&assignment).unwrap();
    let mut last = Instant::now();
    while missing > 0 {
        assert!(last.elapsed() < Duration::from_secs(60), "{missing} records are missing at the end of {topic}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().map(|headers| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())).collect()
        });
        take(Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp_millis: message.timestamp().to_millis(),
        });
        missing -= 1;
        last = Instant::now();
    }
}

/// What was committed: for each key its events, in commit order.
pub type Truth = BTreeMap<String, Vec<String>>;

/// What the checker found besides what it insists on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    pub events: usize,
    pub repeated: usize,
}

/// Insists on: nothing lost, nothing invented, one partition per key and Java's own, a rewind but never a swap. Counts
/// what was repeated, and insists that a repetition is the same record.
pub fn check(records: &[Record], truth: &Truth, partitions: i32) -> Verdict {
    let mut by_key: HashMap<String, Vec<&Record>> = HashMap::new();
    for record in records {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        assert_eq!(record.partition, murmur2::partition(key.as_bytes(), partitions), "partition of key {key}");
        by_key.entry(key).or_default().push(record);
    }
    let mut verdict = Verdict::default();
    for (key, expected) in truth {
        let mut found = by_key.remove(key).unwrap_or_default();
        found.sort_by_key(|record| record.offset);
        let places: HashMap<&str, usize> =
            expected.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect();
        let mut next = 0;
        let mut previous: Option<usize> = None;
        let mut first: HashMap<usize, &Record> = HashMap::new();
        for record in &found {
            let id = record.event_id();
            let place =
                *places.get(id.as_str()).unwrap_or_else(|| panic!("event {id} of key {key} was never committed"));
            if let Some(earlier) = first.insert(place, record) {
                verdict.repeated += 1;
                let same = |record: &Record| {
                    (record.value.clone(), record.headers.clone(), record.timestamp_millis, record.key.clone())
                };
                assert_eq!(same(earlier), same(record), "a repetition is the same record");
            }
            // Either the next one, or back to an earlier one and on from there.
            assert!(place <= next, "key {key}: event {place} before event {next}");
            assert!(previous.is_none_or(|previous| place <= previous + 1), "key {key}: {place} after {previous:?}");
            next = next.max(place + 1);
            previous = Some(place);
        }
        let seen: HashSet<usize> = first.keys().copied().collect();
        assert_eq!(seen.len(), expected.len(), "key {key}: {} of {} events arrived", seen.len(), expected.len());
        verdict.events += expected.len();
    }
    assert!(by_key.is_empty(), "keys that were never committed: {:?}", by_key.keys().collect::<Vec<_>>());
    verdict
}
