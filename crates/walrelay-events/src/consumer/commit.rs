//! Commits of offsets. The committed offset of a partition is the offset of the next record to handle. It is committed
//! with the leader epoch of the record before it, so that the next owner recognizes a log that was truncated.
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

use crate::consumer::beginning::Beginnings;
use crate::consumer::brokers;
use crate::consumer::position::Position;
use crate::consumer::topic_partition::TopicPartition;

/// The pause between two attempts.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long the first attempt waits for its answer. The next ones wait longer, for a slow coordinator.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Commits without waiting for the result, with where the group began as metadata.
pub(super) fn send<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, Position)],
    beginnings: &Beginnings,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let list = brokers::list_at(positions)?;
    for mut element in list.elements() {
        if let Some(beginning) = beginnings.get(element.topic()) {
            element.set_metadata(beginning.metadata());
        }
    }
    consumer.commit(&list, CommitMode::Async)
}

/// Commits, and returns when the group has the offsets, or with an error at the deadline. A group that rebalances
/// refuses commits for a while. Nothing is polled; what a client needs nevertheless is done in `between` two attempts.
pub(super) fn confirm<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, Position)],
    beginnings: &Beginnings,
    deadline: Instant,
    between: impl Fn(),
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut timeout = ATTEMPT_TIMEOUT;
    loop {
        let sent = send(consumer, positions, beginnings);
        let answered_by = deadline.min(Instant::now() + timeout);
        timeout *= 2;
        let committed = sent.and_then(|()| are_committed(consumer, positions, answered_by));
        if committed == Ok(true) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return committed.and(Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RequestTimedOut)));
        }
        between();
        thread::sleep(BACKOFF);
    }
}

/// Requests the committed offsets. The coordinator answers after it has processed the commit. A higher offset is a
/// mismatch, too: a recreated topic starts below the committed offset of the old one.
fn are_committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, Position)],
    deadline: Instant,
) -> KafkaResult<bool> {
    let request: TopicPartitionList = brokers::list(positions.iter().map(|(partition, _)| partition));
    let committed = consumer.committed_offsets(request, brokers::request_timeout(deadline))?;
    Ok(positions.iter().all(|(partition, position)| {
        let found = committed.find_partition(&partition.topic, partition.partition);
        matches!(found.map(|found| found.offset()), Some(Offset::Offset(committed)) if committed == position.offset)
    }))
}
