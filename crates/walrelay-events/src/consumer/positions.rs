//! Where each partition starts, and whether its next record still exists in the log that the group has read.
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
use rdkafka::topic_partition_list::TopicPartitionListElem;
use tokio_util::sync::CancellationToken;

use crate::consumer::beginning::Beginnings;
use crate::consumer::beginning::FirstStart;
use crate::consumer::brokers;
use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::config::OnGap;
use crate::consumer::error::Error;
use crate::consumer::first_start::first_start;
use crate::consumer::gap::Branch;
use crate::consumer::gap::Gap;
use crate::consumer::lanes::Lanes;
use crate::consumer::position::Position;
use crate::consumer::probe::Probe;
use crate::consumer::properties::COMMIT_TIMEOUT;
use crate::consumer::properties::max_poll_interval;
use crate::consumer::topic_partition::TopicPartition;

/// How long requests are retried. The group waits meanwhile, so it is at most a third of `max.poll.interval.ms`.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const BACKOFF: Duration = Duration::from_millis(250);

/// Partitions with a position each.
pub(super) type Positions = Vec<(TopicPartition, Position)>;

/// Returns where assigned partitions start, or nothing if the consumer stops before that is known.
pub(super) fn starts<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &Config,
    assigned: &TopicPartitionList,
    beginnings: &mut Beginnings,
    stop: &CancellationToken,
) -> Result<Option<Positions>, Error> {
    retry(config, stop, |deadline| request_starts(consumer, config, assigned, beginnings, deadline))
}

/// Returns the partitions whose next record was deleted or is in a truncated part of the log, with the position to
/// continue at if the options allow it.
pub(super) fn gaps<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &Config,
    next: &Positions,
    stop: &CancellationToken,
) -> Result<Option<Positions>, Error> {
    retry(config, stop, |deadline| {
        let timeout = || brokers::request_timeout(deadline);
        let mut checked = Vec::new();
        for (partition, next) in next {
            checked.push((
                partition,
                *next,
                brokers::watermarks(consumer, &partition.topic, partition.partition, timeout)?,
            ));
        }
        // A log can be truncated and have grown past the position again. Only then every partition is read.
        let is_outside =
            |(_, next, (oldest, end)): &(_, Position, (i64, i64))| !(*oldest..=*end).contains(&next.offset);
        if checked.iter().any(is_outside) {
            checked.retain(is_outside);
        }
        let mut probe = None;
        let mut moved = Positions::new();
        for (partition, next, held) in checked {
            let branch = if next.epoch.is_some() && next.offset >= held.0 {
                let probe = match probe.take().map_or_else(|| Probe::open(config), Ok) {
                    Ok(opened) => probe.insert(opened),
                    Err(error) => return Ok(Err(error)),
                };
                probe.branch(partition, next, deadline)?
            } else {
                None
            };
            match within(config, partition, next, held, branch) {
                Ok(position) if position != next => moved.push((partition.clone(), position)),
                Ok(_) => {}
                Err(gap) => return Ok(Err(gap)),
            }
        }
        Ok(Ok(moved))
    })
}

/// Takes note of what librdkafka reports as polled when partitions are assigned.
pub(super) fn note_assigned<C: ConsumerContext, R>(
    consumer: &BaseConsumer<C>,
    lanes: &mut Lanes<R>,
    assigned: &Positions,
) -> KafkaResult<()> {
    for (partition, polled) in brokers::polled(consumer, assigned.iter().map(|(partition, _)| partition))? {
        lanes.polled_before(&partition, polled);
    }
    Ok(())
}

/// Takes note of up to where each partition was polled. Behind its last record there can be transaction markers.
pub(super) fn note_polled<C: ConsumerContext, R>(consumer: &BaseConsumer<C>, lanes: &mut Lanes<R>) {
    match brokers::polled(consumer, lanes.partitions()) {
        Ok(polled) => polled.iter().for_each(|(partition, polled)| lanes.polled(partition, *polled)),
        Err(error) => tracing::debug!(error = %error, "polled positions are unknown"),
    }
}

/// Continues at other positions. After an error librdkafka cannot seek, so the partitions are assigned again.
pub(super) fn continue_at<C: ConsumerContext, R>(
    consumer: &BaseConsumer<C>,
    lanes: &mut Lanes<R>,
    positions: &Positions,
) -> KafkaResult<()> {
    consumer.incremental_unassign(&brokers::list(positions.iter().map(|(partition, _)| partition)))?;
    consumer.incremental_assign(&brokers::list_at(positions)?)?;
    brokers::validate(consumer, positions)?;
    note_assigned(consumer, lanes, positions)
}

/// Retries a request. An outer error of `request` is transient.
fn retry<T>(
    config: &Config,
    stop: &CancellationToken,
    mut request: impl FnMut(Instant) -> Result<Result<T, Error>, KafkaError>,
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
    beginnings: &mut Beginnings,
    deadline: Instant,
) -> Result<Result<Positions, Error>, KafkaError> {
    let timeout = || brokers::request_timeout(deadline);
    let committed = consumer.committed_offsets(assigned.clone(), timeout())?;
    committed.elements().iter().try_for_each(TopicPartitionListElem::error)?;
    let (mut starts, mut uncommitted) = (Positions::new(), Positions::new());
    for (partition, committed) in brokers::positions(&committed) {
        let held = brokers::watermarks(consumer, &partition.topic, partition.partition, timeout)?;
        let is_uncommitted = committed.is_none();
        let next = match committed {
            Some(committed) => committed,
            None => match first_start(consumer, config.start, &partition, beginnings, timeout)? {
                FirstStart::At(offset) => offset.into(),
                FirstStart::End => held.1.into(),
                FirstStart::Oldest => held.0.into(),
            },
        };
        let start = match within(config, &partition, next, held, None) {
            Ok(start) => start,
            Err(gap) => return Ok(Err(gap)),
        };
        if is_uncommitted {
            uncommitted.push((partition.clone(), start));
        }
        starts.push((partition, start));
    }
    let deadline = deadline.min(Instant::now() + COMMIT_TIMEOUT);
    if let Err(error) = commit::confirm(consumer, &uncommitted, beginnings, deadline, || ()) {
        // The group rebalances again. The start is committed like any other position.
        tracing::debug!(error = %error, "start offset not committed yet");
    }
    Ok(Ok(starts))
}

/// Compares a position with what the partition holds, and returns where it continues.
fn within(
    config: &Config,
    partition: &TopicPartition,
    next: Position,
    (oldest, end): (i64, i64),
    branch: Option<Branch>,
) -> Result<Position, Error> {
    let Some(gap) = Gap::find(next, (oldest, end), branch) else { return Ok(next) };
    let (group, topic) = (config.group.clone(), partition.topic.to_string());
    let (partition, committed) = (partition.partition, next.offset);
    let error = match gap {
        Gap::Deleted => Error::Gap { group, topic, partition, committed, oldest, end },
        Gap::Truncated { parts_at } => {
            Error::Truncated { group, topic, partition, committed, epoch: next.epoch.unwrap_or(-1), parts_at }
        }
    };
    match config.on_gap {
        OnGap::Stop => Err(error),
        OnGap::SkipToEarliest => {
            let offset = gap.continues_at(oldest);
            tracing::warn!(error = %error, offset, "skipping to earliest offset");
            Ok(offset.into())
        }
    }
}
