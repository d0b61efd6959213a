//! Reads the records of a topic, partition by partition, from an offset to the end at the time of the call.

use std::collections::BTreeMap;
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
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::topic_partition::TopicPartition;

/// The timeout of a request, and of waiting for the next record.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Number, first offset to read and end of each partition when the reader was opened.
    partitions: Vec<(i32, i64, i64)>,
}

impl Reader {
    /// `properties` are librdkafka's.
    pub(super) fn open(properties: &BTreeMap<String, String>, topic: &str) -> Result<Self, ClientError> {
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

    /// Skips the records before the first one of each partition with at least this timestamp.
    pub(super) fn skip_until(&mut self, millis: i64) -> Result<(), ClientError> {
        let mut times = TopicPartitionList::new();
        for (number, ..) in &self.partitions {
            times.add_partition_offset(&self.topic, *number, Offset::Offset(millis))?;
        }
        let found = self.consumer.offsets_for_times(times, TIMEOUT)?;
        for (number, first, end) in &mut self.partitions {
            let start = found.find_partition(&self.topic, *number).map(|element| element.offset());
            *first = match start {
                Some(Offset::Offset(offset)) => offset.clamp(*first, *end),
                // No record is that new.
                Some(Offset::End) => *end,
                Some(Offset::Beginning | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_)) | None => *first,
            };
        }
        Ok(())
    }

    /// Visits the records until a visit breaks.
    pub(super) fn pass(&self, visit: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), ClientError> {
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
                    if message.partition() == number && message.offset() < end {
                        let flow = visit(Record::copy(&message, &partition, &mut Pool::default()));
                        if flow.is_break() {
                            return Ok(flow);
                        }
                    }
                    if message.offset() + 1 >= end {
                        return Ok(ControlFlow::Continue(()));
                    }
                    // A visit may take long.
                    last_received = Instant::now();
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
