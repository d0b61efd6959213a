//! Requests to the brokers, and what their errors mean.

use std::sync::Arc;
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
use crate::consumer::topic_partition::TopicPartition;

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Builds librdkafka's list of partitions with an offset each.
pub(super) fn list_at(offsets: &[(TopicPartition, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

/// Reads librdkafka's list of partitions.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let partition =
        |element: &TopicPartitionListElem<'_>| TopicPartition::new(Arc::from(element.topic()), element.partition());
    list.elements().iter().map(partition).collect()
}
