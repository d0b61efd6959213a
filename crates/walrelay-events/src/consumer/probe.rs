//! Reads a partition outside of the group: where the next record after a position is, and whether the log before the
//! position is still the one that it was reached in.
//!
//! The consumer's own client reports neither. It names no partition when it finds a truncated log or the end of one,
//! and not where a log was truncated to. A probe has one partition at a time and reads until its first record or its
//! end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use serde::Deserialize;

use crate::consumer::brokers;
use crate::consumer::config::Config;
use crate::consumer::error::Error;
use crate::consumer::gap::Branch;
use crate::consumer::position::Position;
use crate::consumer::properties;
use crate::consumer::raw;
use crate::consumer::topic_partition::TopicPartition;

const POLL: Duration = Duration::from_millis(100);

/// A client that is not a member of the group.
pub(super) struct Probe {
    consumer: BaseConsumer<Context>,
}

/// The first that a partition holds at or after a position, or after the end of the log before that position.
enum First {
    Record(Position),
    End { offset: i64, leader_epoch: Option<i32> },
}

impl Probe {
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let client = properties::detached(config).create_with_context(Context::default());
        Ok(Self { consumer: client.map_err(Error::configuration)? })
    }

    /// Returns where the log of a partition differs from the one that a position was reached in, if it does.
    pub(super) fn branch(
        &self,
        partition: &TopicPartition,
        next: Position,
        deadline: Instant,
    ) -> KafkaResult<Option<Branch>> {
        let branch = match self.first(partition, next, deadline)? {
            First::Record(record) => Branch { offset: record.offset, leader_epoch: record.epoch },
            First::End { offset, leader_epoch } => Branch { offset, leader_epoch },
        };
        Ok((branch.offset < next.offset).then_some(branch))
    }

    fn first(&self, partition: &TopicPartition, from: Position, deadline: Instant) -> KafkaResult<First> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, Offset::End)?;
        self.consumer.assign(&list)?;
        brokers::seek(&self.consumer, [&(partition.clone(), from)])?;
        let mut is_at_end = false;
        while Instant::now() < deadline {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let epoch = raw::message_epoch(&message);
                    return Ok(First::Record(Position { offset: message.offset(), epoch }));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    is_at_end = true;
                    self.consumer.context().forget();
                }
                Some(Err(error)) if brokers::fatal(&error).is_some() => return Err(error),
                Some(Err(error)) => tracing::debug!(error = %error, "poll failed"),
                None => {}
            }
            let end = self.consumer.context().end(partition).filter(|_| is_at_end);
            if let Some((offset, leader_epoch)) = end {
                return Ok(First::End { offset, leader_epoch });
            }
        }
        Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }
}

/// Keeps the last statistics. They alone contain the end that was reached and the epoch of the leader.
#[derive(Default)]
struct Context(Mutex<Statistics>);

#[derive(Default, Deserialize)]
struct Statistics {
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    eof_offset: i64,
    leader_epoch: i32,
}

impl Context {
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Statistics::default();
    }

    /// Returns the end that was reached of a partition, and the epoch of its leader.
    fn end(&self, partition: &TopicPartition) -> Option<(i64, Option<i32>)> {
        let statistics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let topic = statistics.topics.get(&*partition.topic)?;
        let partition = topic.partitions.get(&partition.partition.to_string())?;
        let epoch = (partition.leader_epoch >= 0).then_some(partition.leader_epoch);
        (partition.eof_offset >= 0).then_some((partition.eof_offset, epoch))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(?level, facility, text, "librdkafka");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice(statistics) {
            Ok(statistics) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = statistics,
            Err(error) => tracing::debug!(error = %error, "statistics cannot be read"),
        }
    }
}

impl ConsumerContext for Context {}
