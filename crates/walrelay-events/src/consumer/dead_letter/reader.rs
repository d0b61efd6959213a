//! Reads a dead-letter topic from its beginning to its end at the time of the call.
//!
//! A marker record in the same topic says that a dead-letter record was redriven. Therefore the topic is read twice:
//! first for the markers, then for the records. Of each record only its origin is kept in memory.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::brokers;
use crate::consumer::dead_letter::provenance::Provenance;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::topic_partition::TopicPartition;
use crate::kafka_error::KafkaError;

/// The header of a marker record: `partition@offset` of the dead-letter record that was redriven.
pub(super) const REDRIVEN: &str = "dlq_redriven";
/// The timeout of a request, and of waiting for the next record.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A record in a dead-letter topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record in the dead-letter topic.
    pub record: Record,
    /// Where it came from and why, if its headers say so.
    pub provenance: Option<Provenance>,
    /// Whether it was redriven.
    pub is_redriven: bool,
    /// Whether an earlier dead-letter record has the same origin: the consumer ended before it could commit.
    pub is_repeated: bool,
}

impl DeadLetter {
    /// Reads the provenance of a record. It counts as neither redriven nor repeated.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { provenance: Provenance::read(&record), record, is_redriven: false, is_repeated: false }
    }
}

/// Visits each dead-letter record of a topic, partition by partition, in the order of their offsets. `properties` are
/// librdkafka's.
pub fn read(
    properties: &BTreeMap<String, String>,
    topic: &str,
    visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
) -> Result<(), KafkaError> {
    let reader = Reader::open(properties, topic).map_err(KafkaError::new)?;
    let mut redriven = HashSet::new();
    reader
        .pass(&mut |record| {
            redriven.extend(record.header(REDRIVEN).map(str::to_owned));
            ControlFlow::Continue(())
        })
        .map_err(KafkaError::new)?;
    let mut origins = HashSet::new();
    reader
        .pass(&mut |record| {
            if record.header(REDRIVEN).is_some() {
                return ControlFlow::Continue(());
            }
            let mut dead_letter = DeadLetter::new(record);
            dead_letter.is_redriven = redriven.contains(&place(&dead_letter.record));
            let origin = dead_letter.provenance.as_ref();
            let origin = origin.map(|it| (it.topic.clone(), it.partition, it.offset, it.group.clone()));
            dead_letter.is_repeated = origin.is_some_and(|origin| !origins.insert(origin));
            visit(dead_letter)
        })
        .map_err(KafkaError::new)
}

/// `partition@offset`
pub(super) fn place(record: &Record) -> String {
    format!("{}@{}", record.partition(), record.offset())
}

struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Number, oldest offset and end of each partition when the reader was opened.
    partitions: Vec<(i32, i64, i64)>,
}

impl Reader {
    fn open(properties: &BTreeMap<String, String>, topic: &str) -> Result<Self, ClientError> {
        let mut client = ClientConfig::new();
        for (name, value) in properties {
            client.set(name, value);
        }
        // It does not join this group and does not commit.
        client.set("group.id", "walrelay-dlq").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = client.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let numbers: Vec<i32> = found.map_or_else(Vec::new, |found| {
            found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
        });
        if numbers.is_empty() {
            return Err(ClientError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let mut partitions = Vec::with_capacity(numbers.len());
        for number in numbers {
            let (first, end) = brokers::watermarks(&consumer, topic, number, || TIMEOUT)?;
            partitions.push((number, first, end));
        }
        partitions.sort_unstable();
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    fn pass(&self, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), ClientError> {
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
    ) -> Result<ControlFlow<()>, ClientError> {
        let mut last_received = Instant::now();
        let partition = TopicPartition::new(self.topic.as_str(), number);
        loop {
            // The last offsets may be transaction markers, which are not delivered as records.
            let position = self.consumer.position()?;
            let next = position.find_partition(&self.topic, number).map(|element| element.offset());
            if matches!(next, Some(Offset::Offset(next)) if next >= end) {
                return Ok(ControlFlow::Continue(()));
            }
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last_received = Instant::now();
                    if message.partition() == number && message.offset() < end {
                        let flow = visit(Record::copy(&message, &partition, &mut Pool::default()));
                        if flow.is_break() {
                            return Ok(flow);
                        }
                    }
                    if message.offset() + 1 >= end {
                        return Ok(ControlFlow::Continue(()));
                    }
                }
                Some(Err(error)) if last_received.elapsed() > TIMEOUT => return Err(error),
                None if last_received.elapsed() > TIMEOUT => {
                    return Err(ClientError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
}
