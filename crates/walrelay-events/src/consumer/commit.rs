//! Commits of offsets. The committed offset of a partition is the offset of the next record to handle.
//!
//! The result of an asynchronous commit is unknown: rdkafka does not call `commit_callback`
//! (<https://github.com/fede1024/rust-rdkafka/issues/856>). A synchronous commit blocks as long as librdkafka likes. A
//! commit that must succeed is therefore sent asynchronously, and the committed offset is then requested, with a
//! timeout.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::CommitMode;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::brokers;
use crate::consumer::topic_partition::TopicPartition;

/// The pause between two attempts.
const BACKOFF: Duration = Duration::from_millis(50);

/// Commits without waiting for the result.
pub(super) fn send<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, i64)],
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    consumer.commit(&brokers::list_at(positions)?, CommitMode::Async)
}

/// Commits, and returns when the group has the offsets, or with an error at the deadline. A group that rebalances
/// refuses commits for a while.
pub(super) fn confirm<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, i64)],
    deadline: Instant,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    loop {
        let committed = send(consumer, positions).and_then(|()| are_committed(consumer, positions, deadline));
        if committed == Ok(true) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return committed.and(Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RequestTimedOut)));
        }
        thread::sleep(BACKOFF);
    }
}

/// Requests the committed offsets. The coordinator answers after it has processed the commit. A higher offset is a
/// mismatch, too: a recreated topic starts below the committed offset of the old one.
fn are_committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, i64)],
    deadline: Instant,
) -> KafkaResult<bool> {
    let request: TopicPartitionList = brokers::list(positions.iter().map(|(partition, _)| partition));
    let committed = consumer.committed_offsets(request, brokers::request_timeout(deadline))?;
    Ok(positions.iter().all(|(partition, position)| {
        let found = committed.find_partition(&partition.topic, partition.partition);
        matches!(found.map(|found| found.offset()), Some(Offset::Offset(committed)) if committed == *position)
    }))
}
