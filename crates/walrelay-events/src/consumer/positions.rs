//! Where each partition starts, and whether what is next in it is still there.
//!
//! A partition starts at what is committed, else where the options say; then that place is committed too before any record is
//! taken, so that it is the same one at the next assignment. Partitions come in the middle of whatever the brokers are doing,
//! so what they do not answer at once they are asked again for a while. No gap is passed unless the options say so.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::config::OnGap;
use crate::consumer::config::Start;
use crate::consumer::error::Error;
use crate::consumer::kafka;
use crate::consumer::kafka::Context;
use crate::consumer::lanes::Partition;

/// How long brokers are asked altogether, and the pause in between. The group waits for the answer meanwhile, so it is at most
/// a third of `max.poll.interval.ms`.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// Partitions, and in each the offset of a record.
pub(super) type Places = Vec<(Partition, i64)>;

/// Finds where partitions start; none if it is to stop before that is known.
pub(super) fn find(
    consumer: &BaseConsumer<Context>,
    config: &Config,
    given: &TopicPartitionList,
    stop: &CancellationToken,
) -> Result<Option<Places>, Error> {
    patiently(config, stop, |until| starts(consumer, config, given, until))
}

/// Finds the partitions that no longer hold what is next in them, and where they go on if the options say so.
pub(super) fn gaps(
    consumer: &BaseConsumer<Context>,
    config: &Config,
    next: &Places,
    stop: &CancellationToken,
) -> Result<Option<Places>, Error> {
    patiently(config, stop, |until| {
        let mut moved = Places::new();
        for (partition, next) in next {
            let held = kafka::watermarks(consumer, &partition.topic, partition.number, || kafka::left(until))?;
            match within(config, partition, *next, held) {
                Ok(offset) if offset != *next => moved.push((partition.clone(), offset)),
                Ok(_) => {}
                Err(gap) => return Ok(Err(gap)),
            }
        }
        Ok(Ok(moved))
    })
}

/// Asks until there is an answer: an outer error of `ask` is one that may pass.
fn patiently<T>(
    config: &Config,
    stop: &CancellationToken,
    ask: impl Fn(Instant) -> Result<Result<T, Error>, KafkaError>,
) -> Result<Option<T>, Error> {
    let until = Instant::now() + PATIENCE.min(kafka::poll_interval(config) / 3);
    loop {
        let error = match ask(until) {
            Ok(answer) => return answer.map(Some),
            Err(error) => error,
        };
        if let Some(refusal) = kafka::judge(&error) {
            return Err(refusal);
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
        if Instant::now() >= until {
            return Err(Error::Failed(error));
        }
        tracing::warn!(error = %error, "Kafka does not say where partitions start; it is asked again");
        thread::sleep(PAUSE);
    }
}

fn starts(
    consumer: &BaseConsumer<Context>,
    config: &Config,
    given: &TopicPartitionList,
    until: Instant,
) -> Result<Result<Places, Error>, KafkaError> {
    let committed = consumer.committed_offsets(given.clone(), kafka::left(until))?;
    let (mut starts, mut fresh) = (Places::new(), Places::new());
    for element in committed.elements() {
        element.error()?;
        let partition = Partition { topic: element.topic().into(), number: element.partition() };
        let held = kafka::watermarks(consumer, &partition.topic, partition.number, || kafka::left(until))?;
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
                fresh.push((partition.clone(), start));
                start
            }
        };
        starts.push((partition, start));
    }
    if let Err(error) = commit::for_good(consumer, &fresh, until.min(Instant::now() + commit::SETTLED)) {
        // The group is settling again: it is committed like any other position.
        tracing::debug!(error = %error, "where the group begins is not committed yet");
    }
    Ok(Ok(starts))
}

/// Compares the offset that is next with what the topic holds.
fn within(config: &Config, partition: &Partition, next: i64, held: (i64, i64)) -> Result<i64, Error> {
    let (oldest, end) = held;
    if (oldest..=end).contains(&next) {
        return Ok(next);
    }
    let gap = Error::Gap {
        group: config.group.clone(),
        topic: partition.topic.to_string(),
        partition: partition.number,
        committed: next,
        oldest,
        end,
    };
    match config.on_gap {
        OnGap::Stop => Err(gap),
        OnGap::GoOn => {
            tracing::warn!(error = %gap, "going on at the oldest record");
            Ok(oldest)
        }
    }
}
