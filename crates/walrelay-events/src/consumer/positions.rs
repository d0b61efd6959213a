//! Where each partition starts, and whether its next record still exists.
//!
//! A partition starts at the committed offset, or else where [`Start`] says. That offset is committed before a record
//! is consumed, so that the next assignment starts there, too. Partitions are assigned while brokers restart or change
//! leaders, so failed requests are retried for a while. No gap is skipped unless [`OnGap`] allows it.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use crate::consumer::brokers;
use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::config::OnGap;
use crate::consumer::config::Start;
use crate::consumer::error::Error;
use crate::consumer::properties::COMMIT_TIMEOUT;
use crate::consumer::properties::max_poll_interval;
use crate::consumer::topic_partition::TopicPartition;

/// How long requests are retried. The group waits meanwhile, so it is at most a third of `max.poll.interval.ms`.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const BACKOFF: Duration = Duration::from_millis(250);

/// Partitions with an offset each.
pub(super) type Offsets = Vec<(TopicPartition, i64)>;

/// Returns where assigned partitions start, or nothing if the consumer stops before that is known.
pub(super) fn starts<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &Config,
    assigned: &TopicPartitionList,
    stop: &CancellationToken,
) -> Result<Option<Offsets>, Error> {
    retry(config, stop, |deadline| request_starts(consumer, config, assigned, deadline))
}

/// Returns the partitions whose next record was deleted, with the offset to continue at if the options allow it.
pub(super) fn gaps<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &Config,
    next: &Offsets,
    stop: &CancellationToken,
) -> Result<Option<Offsets>, Error> {
    retry(config, stop, |deadline| {
        let mut moved = Offsets::new();
        for (partition, next) in next {
            let timeout = || brokers::request_timeout(deadline);
            let held = brokers::watermarks(consumer, &partition.topic, partition.partition, timeout)?;
            match within(config, partition, *next, held) {
                Ok(offset) if offset != *next => moved.push((partition.clone(), offset)),
                Ok(_) => {}
                Err(gap) => return Ok(Err(gap)),
            }
        }
        Ok(Ok(moved))
    })
}

/// Continues at other offsets. After an error librdkafka cannot seek, so the partitions are assigned again.
pub(super) fn continue_at<C: ConsumerContext>(consumer: &BaseConsumer<C>, offsets: &Offsets) -> KafkaResult<()> {
    consumer.incremental_unassign(&brokers::list(offsets.iter().map(|(partition, _)| partition)))?;
    consumer.incremental_assign(&brokers::list_at(offsets)?)
}

/// Retries a request. An outer error of `request` is transient.
fn retry<T>(
    config: &Config,
    stop: &CancellationToken,
    request: impl Fn(Instant) -> Result<Result<T, Error>, KafkaError>,
) -> Result<Option<T>, Error> {
    let deadline = Instant::now() + RETRY_TIMEOUT.min(max_poll_interval(config) / 3);
    loop {
        let error = match request(deadline) {
            Ok(answer) => return answer.map(Some),
            Err(error) => error,
        };
        if let Some(fatal) = brokers::fatal(&error) {
            return Err(fatal);
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(Error::client_failed(error));
        }
        tracing::warn!(error = %error, "offset request failed");
        thread::sleep(BACKOFF);
    }
}

fn request_starts<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &Config,
    assigned: &TopicPartitionList,
    deadline: Instant,
) -> Result<Result<Offsets, Error>, KafkaError> {
    let timeout = || brokers::request_timeout(deadline);
    let committed = consumer.committed_offsets(assigned.clone(), timeout())?;
    let (mut starts, mut uncommitted) = (Offsets::new(), Offsets::new());
    for element in committed.elements() {
        element.error()?;
        let partition = TopicPartition::new(element.topic(), element.partition());
        let held = brokers::watermarks(consumer, &partition.topic, partition.partition, timeout)?;
        let start = match element.offset() {
            Offset::Offset(committed) => match within(config, &partition, committed, held) {
                Ok(start) => start,
                Err(gap) => return Ok(Err(gap)),
            },
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                let start = match config.start {
                    Start::Earliest => held.0,
                    Start::Latest => held.1,
                };
                uncommitted.push((partition.clone(), start));
                start
            }
        };
        starts.push((partition, start));
    }
    if let Err(error) = commit::confirm(consumer, &uncommitted, deadline.min(Instant::now() + COMMIT_TIMEOUT)) {
        // The group rebalances again. The start is committed like any other position.
        tracing::debug!(error = %error, "start offset not committed yet");
    }
    Ok(Ok(starts))
}

/// Compares the next offset with the offsets that the partition holds.
fn within(config: &Config, partition: &TopicPartition, next: i64, held: (i64, i64)) -> Result<i64, Error> {
    let (oldest, end) = held;
    if (oldest..=end).contains(&next) {
        return Ok(next);
    }
    let gap = Error::Gap {
        group: config.group.clone(),
        topic: partition.topic.to_string(),
        partition: partition.partition,
        committed: next,
        oldest,
        end,
    };
    match config.on_gap {
        OnGap::Stop => Err(gap),
        OnGap::SkipToEarliest => {
            tracing::warn!(error = %gap, "skipping to earliest offset");
            Ok(oldest)
        }
    }
}
