//! Follows the records of topics as they come, without a group: nothing is joined, and nothing is committed.
//!
//! For the program only. An application that handles events uses [`crate::consumer::Consumer`].

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::brokers;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::topic_partition::TopicPartition;
use crate::kafka_error::KafkaError;

/// Where a partition is read from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FollowFrom {
    /// Its oldest record.
    Beginning,
    /// Its first record with at least this timestamp, in milliseconds since 1970.
    Time(i64),
    /// Its end when it is found.
    End,
}

/// A client that reads partitions without a group.
pub struct Follower {
    consumer: BaseConsumer,
    followed: BTreeSet<TopicPartition>,
}

impl Follower {
    /// `properties` are librdkafka's. Does not connect.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        for (name, value) in properties {
            client.set(name, value);
        }
        // It does not join this group and does not commit.
        client.set("group.id", "walrelay-tail").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        let consumer = client.create().map_err(KafkaError::new)?;
        Ok(Self { consumer, followed: BTreeSet::new() })
    }

    /// Follows the partitions of these topics, as far as they exist and are not followed yet. Gives the new ones. Each
    /// request blocks for at most `limit`.
    pub fn add(
        &mut self,
        is_wanted: &dyn Fn(&str) -> bool,
        from: FollowFrom,
        limit: Duration,
    ) -> Result<Vec<TopicPartition>, KafkaError> {
        self.find_and_add(is_wanted, from, limit).map_err(KafkaError::new)
    }

    /// Waits for the next record of any followed partition. None if there is none within `limit`.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Record>, KafkaError> {
        match self.consumer.poll(limit) {
            None => Ok(None),
            Some(Err(error)) => Err(KafkaError::new(error)),
            Some(Ok(message)) => {
                let partition = TopicPartition::new(message.topic(), message.partition());
                Ok(Some(Record::copy(&message, &partition, &mut Pool::default())))
            }
        }
    }

    fn find_and_add(
        &mut self,
        is_wanted: &dyn Fn(&str) -> bool,
        from: FollowFrom,
        limit: Duration,
    ) -> Result<Vec<TopicPartition>, ClientError> {
        let metadata = self.consumer.fetch_metadata(None, limit)?;
        let mut found = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| is_wanted(topic.name())) {
            let partitions = topic.partitions().iter().map(MetadataPartition::id);
            found.extend(partitions.map(|number| TopicPartition::new(topic.name(), number)));
        }
        found.retain(|partition| !self.followed.contains(partition));
        if found.is_empty() {
            return Ok(found);
        }
        let start = self.start(&found, from, limit)?;
        self.consumer.incremental_assign(&start)?;
        self.followed.extend(found.iter().cloned());
        Ok(found)
    }

    /// Gives the first offset to read of each partition. An end is that of now: a record that is written from now on is
    /// read.
    fn start(
        &self,
        found: &[TopicPartition],
        from: FollowFrom,
        limit: Duration,
    ) -> Result<TopicPartitionList, ClientError> {
        let times = match from {
            FollowFrom::Time(millis) => {
                let mut wanted = TopicPartitionList::new();
                for TopicPartition { topic, partition } in found {
                    wanted.add_partition_offset(topic, *partition, Offset::Offset(millis))?;
                }
                Some(self.consumer.offsets_for_times(wanted, limit)?)
            }
            FollowFrom::Beginning | FollowFrom::End => None,
        };
        let mut start = TopicPartitionList::new();
        for TopicPartition { topic, partition } in found {
            let (first, end) = brokers::watermarks(&self.consumer, topic, *partition, || limit)?;
            let at = times.as_ref().and_then(|times| times.find_partition(topic, *partition));
            let offset = match (from, at.map(|element| element.offset())) {
                (FollowFrom::Beginning, _) => first,
                (FollowFrom::Time(_), Some(Offset::Offset(offset))) => offset.max(first),
                // No record is that new.
                (FollowFrom::Time(_) | FollowFrom::End, _) => end,
            };
            start.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        }
        Ok(start)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("followed", &self.followed).finish_non_exhaustive()
    }
}
