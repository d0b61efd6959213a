//! Requests to the brokers, and what their errors mean.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::Offset;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use crate::consumer::error::Error;
use crate::consumer::position::Position;
use crate::consumer::raw;
use crate::consumer::topic_partition::TopicPartition;

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of a seek, which librdkafka answers itself.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
const SEEK_BACKOFF: Duration = Duration::from_millis(20);

/// Returns the error that the consumer must stop with, or none if a retry can help.
pub(super) fn fatal(error: &KafkaError) -> Option<Error> {
    // `rdkafka_error_code` has no code for an error of an admin request.
    let code = if let KafkaError::AdminOp(code) = error { *code } else { error.rdkafka_error_code()? };
    let is_denied = matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
    );
    is_denied.then(|| Error::access_denied(error.clone()))
}

/// The same for a client that may be unable to log in because its token came late. It tries again.
pub(super) fn fatal_without_token(error: &KafkaError) -> Option<Error> {
    let is_of_token = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::Authentication)
    );
    fatal(error).filter(|_| !is_of_token)
}

/// Requests the oldest offset and the end offset of a partition.
///
/// librdkafka 2.12 sometimes returns the end offset for both, after a request failed during a rebalance. A new group
/// would skip every record. Therefore a partition counts as empty only if two consecutive answers say so.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    timeout: impl Fn() -> Duration,
) -> KafkaResult<(i64, i64)> {
    let request = || consumer.fetch_watermarks(topic, partition, timeout());
    let mut answer = request()?;
    while answer.0 >= answer.1 {
        let again = request()?;
        if again == answer {
            break;
        }
        answer = again;
    }
    Ok(answer)
}

/// Returns the timeout of one request if all must be answered by a deadline.
pub(super) fn request_timeout(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).min(REQUEST_TIMEOUT)
}

/// Builds librdkafka's list of partitions.
pub(super) fn list<'p>(partitions: impl IntoIterator<Item = &'p TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Builds librdkafka's list of partitions with a position each.
pub(super) fn list_at<'p>(
    positions: impl IntoIterator<Item = &'p (TopicPartition, Position)>,
) -> KafkaResult<TopicPartitionList> {
    let (mut list, mut epochs) = (TopicPartitionList::new(), Vec::new());
    for (partition, position) in positions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(position.offset))?;
        epochs.push(position.epoch);
    }
    raw::set_epochs(&mut list, epochs);
    Ok(list)
}

/// Reads the positions of a list; none means that a partition has no offset.
pub(super) fn positions(list: &TopicPartitionList) -> Vec<(TopicPartition, Option<Position>)> {
    let position = |element: &TopicPartitionListElem<'_>, epoch| match element.offset() {
        Offset::Offset(offset) => Some(Position { offset, epoch }),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    };
    let elements = list.elements().into_iter().zip(raw::epochs(list));
    elements
        .map(|(element, epoch)| (TopicPartition::new(element.topic(), element.partition()), position(&element, epoch)))
        .collect()
}

/// Returns up to where partitions were polled; none means that nothing was. Nothing is requested from a broker.
pub(super) fn polled<'p, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: impl IntoIterator<Item = &'p TopicPartition>,
) -> KafkaResult<Vec<(TopicPartition, Option<Position>)>> {
    let mut list = list(partitions);
    raw::polled_positions(consumer, &mut list)?;
    Ok(positions(&list))
}

/// Makes librdkafka validate the leader epochs of assigned partitions before it fetches (KIP-320). An assignment alone
/// validates nothing.
pub(super) fn validate<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: &[(TopicPartition, Position)],
) -> KafkaResult<()> {
    let with_epoch: Vec<_> = positions.iter().filter(|(_, position)| position.epoch.is_some()).collect();
    if with_epoch.is_empty() { Ok(()) } else { seek(consumer, with_epoch) }
}

/// Fetches assigned partitions from positions on, after their leader epochs were validated.
pub(super) fn seek<'p, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: impl IntoIterator<Item = &'p (TopicPartition, Position)>,
) -> KafkaResult<()> {
    let list = list_at(positions)?;
    let deadline = Instant::now() + SEEK_TIMEOUT;
    loop {
        let answer = consumer.seek_partitions(list.clone(), SEEK_TIMEOUT)?;
        let answer = answer.elements().iter().try_for_each(TopicPartitionListElem::error);
        // A partition that was just revoked and assigned again starts a moment later.
        let is_starting = matches!(&answer, Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State));
        if !is_starting || Instant::now() >= deadline {
            return answer;
        }
        thread::sleep(SEEK_BACKOFF);
    }
}

/// Reads librdkafka's list of partitions.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let partition =
        |element: &TopicPartitionListElem<'_>| TopicPartition::new(Arc::from(element.topic()), element.partition());
    list.elements().iter().map(partition).collect()
}
