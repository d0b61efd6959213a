//! Commits of offsets: for each partition the offset of the next record to handle.
//!
//! Nobody is told how an asynchronous commit ended: rdkafka calls no `commit_callback` for one
//! (<https://github.com/fede1024/rust-rdkafka/issues/856>), and a synchronous one waits for as long as librdkafka likes. What
//! must be committed for good is therefore committed and then asked for, within a time.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::CommitMode;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;

use crate::consumer::kafka;
use crate::consumer::kafka::Context;
use crate::consumer::lanes::Partition;

/// How long a commit is given at least: the group may be settling who is in it, and refuse commits meanwhile.
pub(super) const SETTLED: Duration = Duration::from_secs(3);
/// How often it is tried.
const SETTLING: Duration = Duration::from_millis(50);

/// Commits without waiting.
pub(super) fn soon(consumer: &BaseConsumer<Context>, positions: &[(Partition, i64)]) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    consumer.commit(&kafka::list_at(positions)?, CommitMode::Async)
}

/// Commits, and returns when the group has it, or when the time is over.
pub(super) fn for_good(
    consumer: &BaseConsumer<Context>,
    positions: &[(Partition, i64)],
    until: Instant,
) -> KafkaResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    loop {
        let tried = soon(consumer, positions).and_then(|()| is_committed(consumer, positions, until));
        if tried == Ok(true) {
            return Ok(());
        }
        if Instant::now() >= until {
            return tried.and(Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RequestTimedOut)));
        }
        thread::sleep(SETTLING);
    }
}

/// Asks the group. The coordinator answers after it has dealt with the commit before. A higher offset is not it either: a topic
/// that was made anew begins below what was committed of the old one.
fn is_committed(consumer: &BaseConsumer<Context>, positions: &[(Partition, i64)], until: Instant) -> KafkaResult<bool> {
    let asked: TopicPartitionList = kafka::list(positions.iter().map(|(partition, _)| partition));
    let committed = consumer.committed_offsets(asked, kafka::left(until))?;
    Ok(positions.iter().all(|(partition, position)| {
        let found = committed.find_partition(&partition.topic, partition.number);
        matches!(found.map(|found| found.offset()), Some(Offset::Offset(committed)) if committed == *position)
    }))
}
