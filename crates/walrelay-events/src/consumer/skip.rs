//! Continues after an error about offsets while the consumer runs: behind records that were deleted, or where a log was
//! truncated to.

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaResult;
use tokio_util::sync::CancellationToken;

use crate::consumer::brokers;
use crate::consumer::config::Config;
use crate::consumer::error::Error;
use crate::consumer::lanes::Lanes;
use crate::consumer::position::Position;
use crate::consumer::positions;
use crate::consumer::positions::Positions;
use crate::consumer::topic_partition::TopicPartition;

/// What was found after an error about offsets.
pub(super) enum Skipped {
    /// The partitions continue, those with a gap behind it.
    Continued {
        /// Whether a cause was found.
        is_explained: bool,
    },
    /// The consumer stops.
    Nothing,
}

/// Looks for the cause in all assigned partitions, because the error names none, and has them continue as the options
/// say.
pub(super) fn gaps<C: ConsumerContext, R>(
    consumer: &BaseConsumer<C>,
    lanes: &mut Lanes<R>,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Skipped, Error> {
    let next = next_positions(consumer, lanes).map_err(Error::client_failed)?;
    let Some(moved) = positions::gaps(consumer, config, &next, stop)? else { return Ok(Skipped::Nothing) };
    if moved.is_empty() {
        // The errors of several partitions arrive one by one. The first one had all of them continue.
        positions::continue_at(consumer, lanes, &next).map_err(Error::client_failed)?;
        return Ok(Skipped::Continued { is_explained: false });
    }
    let is_back =
        |(it, to): &(TopicPartition, Position)| next.iter().any(|(of, next)| of == it && next.offset > to.offset);
    let (back, forward): (Positions, Positions) = moved.into_iter().partition(is_back);
    let back = move_back(consumer, lanes, back).map_err(Error::client_failed)?;
    positions::continue_at(consumer, lanes, &[forward, back].concat()).map_err(Error::client_failed)?;
    Ok(Skipped::Continued { is_explained: true })
}

/// Drops what is buffered of partitions whose log is another one from an offset on: a truncated log, or that of a
/// recreated topic. Returns where they continue, which is not after a record that is not done.
fn move_back<C: ConsumerContext, R>(
    consumer: &BaseConsumer<C>,
    lanes: &mut Lanes<R>,
    moved: Positions,
) -> KafkaResult<Positions> {
    let mut starts = Positions::new();
    for (partition, to) in moved {
        let done = lanes.position(&partition).filter(|done| done.offset < to.offset);
        let start = done.unwrap_or(to);
        lanes.assign(partition.clone());
        lanes.begin(&partition, start);
        starts.push((partition, start));
    }
    // Their buffered records were dropped, so they need not be paused.
    consumer.resume(&brokers::list(starts.iter().map(|(partition, _)| partition)))?;
    Ok(starts)
}

/// Returns the position after what was polled of each assigned partition.
fn next_positions<C: ConsumerContext, R>(consumer: &BaseConsumer<C>, lanes: &Lanes<R>) -> KafkaResult<Positions> {
    let next = |(partition, polled): (TopicPartition, Option<Position>)| {
        let next = lanes.next(&partition, polled)?;
        Some((partition, next))
    };
    Ok(brokers::polled(consumer, lanes.partitions())?.into_iter().filter_map(next).collect())
}
