//! Reading a dead-letter topic from its beginning to where it ends now.
//!
//! That a letter was redriven is told by a further record in the same topic, which names it. So letters are read twice: once
//! for what was redriven, once for the letters themselves, and memory holds of a letter no more than where it came from.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::dead_letter::Provenance;
use crate::consumer::kafka;
use crate::consumer::lanes::Partition;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;

/// The header of the record that says which letter was redriven: `partition@offset`.
pub(super) const REDRIVEN: &str = "dlq_redriven_letter";
/// How long one question to the brokers may take, and how long records may fail to come.
const ANSWER: Duration = Duration::from_secs(10);

/// A record in a dead-letter topic.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The record, byte for byte.
    pub record: Record,
    /// Where it came from and why; none if nobody said so.
    pub provenance: Option<Provenance>,
    /// Whether it was brought back already.
    pub is_redriven: bool,
    /// Whether an earlier letter has the same record: its consumer wrote it twice, since it ended before it had committed.
    pub is_repeated: bool,
}

/// Visits every letter of a topic, partition by partition, oldest first. These are librdkafka's properties.
pub fn read(
    properties: &BTreeMap<String, String>,
    topic: &str,
    visit: &mut dyn FnMut(Letter) -> ControlFlow<()>,
) -> Result<(), KafkaError> {
    let reader = Reader::open(properties, topic)?;
    let mut redriven = HashSet::new();
    reader.pass(&mut |record| {
        redriven.extend(record.header(REDRIVEN).map(str::to_owned));
        ControlFlow::Continue(())
    })?;
    let mut origins = HashSet::new();
    reader.pass(&mut |record| {
        if record.header(REDRIVEN).is_some() {
            return ControlFlow::Continue(());
        }
        let is_redriven = redriven.contains(&place(&record));
        let provenance = Provenance::read(&record);
        let origin = provenance.as_ref().map(|it| (it.topic.clone(), it.partition, it.offset, it.group.clone()));
        let is_repeated = origin.is_some_and(|origin| !origins.insert(origin));
        visit(Letter { provenance, record, is_redriven, is_repeated })
    })
}

/// Gives the name of a letter within its topic.
pub(super) fn place(record: &Record) -> String {
    format!("{}@{}", record.partition(), record.offset())
}

struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// First offset and end of each partition, as they were when it was opened.
    partitions: Vec<(i32, i64, i64)>,
}

impl Reader {
    fn open(properties: &BTreeMap<String, String>, topic: &str) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        for (name, value) in properties {
            client.set(name, value);
        }
        // It never joins this group and never commits.
        client.set("group.id", "walrelay-dlq").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = client.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let numbers: Vec<i32> = found.map_or_else(Vec::new, |found| {
            found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
        });
        if numbers.is_empty() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let mut partitions = Vec::with_capacity(numbers.len());
        for number in numbers {
            let (first, end) = kafka::watermarks(&consumer, topic, number, || ANSWER)?;
            partitions.push((number, first, end));
        }
        partitions.sort_unstable();
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    fn pass(&self, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), KafkaError> {
        for (number, first, end) in &self.partitions {
            if first == end {
                continue;
            }
            let mut start = TopicPartitionList::new();
            start.add_partition_offset(&self.topic, *number, Offset::Offset(*first))?;
            self.consumer.assign(&start)?;
            if self.partition(*number, *end, visit)?.is_break() {
                break;
            }
        }
        self.consumer.unassign()
    }

    fn partition(
        &self,
        number: i32,
        end: i64,
        visit: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, KafkaError> {
        let mut heard = Instant::now();
        let whence = Partition { topic: self.topic.as_str().into(), number };
        loop {
            // The last offsets may be markers of transactions, which never come as records.
            let position = self.consumer.position()?;
            let next = position.find_partition(&self.topic, number).map(|element| element.offset());
            if matches!(next, Some(Offset::Offset(next)) if next >= end) {
                return Ok(ControlFlow::Continue(()));
            }
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.partition() == number && message.offset() < end {
                        let flow = visit(Record::copy(&message, &whence, &mut Pool::default()));
                        if flow.is_break() {
                            return Ok(flow);
                        }
                    }
                    if message.offset() + 1 >= end {
                        return Ok(ControlFlow::Continue(()));
                    }
                }
                Some(Err(error)) if heard.elapsed() > ANSWER => return Err(error),
                None if heard.elapsed() > ANSWER => {
                    return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
}
