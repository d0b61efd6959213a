//! Where a partition without a committed offset starts.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use crate::consumer::beginning::Beginning;
use crate::consumer::beginning::Beginnings;
use crate::consumer::beginning::FirstStart;
use crate::consumer::brokers;
use crate::consumer::config::Start;
use crate::consumer::raw;
use crate::consumer::topic_partition::TopicPartition;

/// Returns where a partition starts. If the group begins in its topic, that is added to `beginnings`.
pub(super) fn first_start<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    start: Start,
    partition: &TopicPartition,
    beginnings: &mut Beginnings,
    timeout: impl Fn() -> Duration,
) -> KafkaResult<FirstStart> {
    if start == Start::Earliest {
        return Ok(FirstStart::Oldest);
    }
    let known = beginnings.get(&*partition.topic).cloned();
    let beginning = known.map_or_else(|| beginning(consumer, &partition.topic, timeout), Ok)?;
    let first_start = beginning.first_start(partition.partition);
    if first_start == FirstStart::Oldest {
        tracing::info!(%partition, "partition was added after the group began; starting at its oldest record");
    }
    if beginning.partitions() > 0 {
        beginnings.insert(partition.topic.to_string(), beginning);
    }
    Ok(first_start)
}

/// Forgets where the group began in topics whose partitions of that time all have committed offsets.
pub(super) fn settle<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    beginnings: &mut Beginnings,
    timeout: Duration,
) -> KafkaResult<()> {
    let mut settled = Vec::new();
    for (topic, beginning) in &*beginnings {
        let committed = brokers::positions(&committed(consumer, topic, beginning.partitions(), timeout)?);
        if committed.iter().all(|(_, committed)| committed.is_some()) {
            settled.push(topic.clone());
        }
    }
    beginnings.retain(|topic, _| !settled.contains(topic));
    Ok(())
}

/// Returns where the group began in a topic. It begins now if it has no committed offset there.
fn beginning<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: impl Fn() -> Duration,
) -> KafkaResult<Beginning> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout())?;
    let partitions = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
    let committed = committed(consumer, topic, partitions, timeout())?;
    if brokers::positions(&committed).iter().any(|(_, committed)| committed.is_some()) {
        let known = raw::metadata(&committed).into_iter().filter_map(Beginning::read);
        return Ok(known.reduce(Beginning::earlier).unwrap_or_default());
    }
    let end = |partition: &TopicPartition| {
        let held = brokers::watermarks(consumer, topic, partition.partition, &timeout);
        held.map(|(_, end)| end)
    };
    let ends: KafkaResult<Vec<i64>> = brokers::partitions(&committed).iter().map(end).collect();
    Ok(Beginning::new(ends?))
}

/// Requests the committed offsets of the first partitions of a topic.
fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: usize,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, timeout)?;
    committed.elements().iter().try_for_each(TopicPartitionListElem::error)?;
    Ok(committed)
}
