//! Leader epochs: of a message, and of the elements of a list of partitions. The epoch says which leader wrote the
//! record before an offset, so that a log that was truncated and has grown again can be recognized (KIP-320).

use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::IsError as _;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaTopicPartition;

/// Returns the epoch of the leader that wrote a message. Brokers of an old version do not report it.
pub(in crate::consumer) fn message_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the message owns what its pointer points to, and is borrowed meanwhile. The function only reads.
    known(unsafe { bindings::rd_kafka_message_leader_epoch(message.ptr()) })
}

/// Returns the leader epoch of each element, in the order of the list.
pub(in crate::consumer) fn epochs(list: &TopicPartitionList) -> Vec<Option<i32>> {
    // SAFETY: the pointer is that of an element of the list, which is borrowed meanwhile. The function only reads.
    let epoch = |element| known(unsafe { bindings::rd_kafka_topic_partition_get_leader_epoch(element) });
    elements(list).map(|element| epoch(element.cast_const())).collect()
}

/// Sets the leader epoch of each element, in the order of the list. Elements without one are validated by no broker.
pub(in crate::consumer) fn set_epochs(list: &mut TopicPartitionList, epochs: impl IntoIterator<Item = Option<i32>>) {
    for (element, epoch) in elements(list).zip(epochs) {
        // SAFETY: the pointer is that of an element of the list, which is borrowed mutably meanwhile.
        unsafe { bindings::rd_kafka_topic_partition_set_leader_epoch(element, epoch.unwrap_or(-1)) };
    }
}

/// Sets the offset of each element to that after the last record or transaction marker that was polled, with its
/// leader epoch. An element from which nothing was polled gets no offset. Nothing is requested from a broker.
pub(in crate::consumer) fn polled_positions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &mut TopicPartitionList,
) -> KafkaResult<()> {
    // SAFETY: the client lives as long as the consumer, and the list is borrowed mutably meanwhile.
    let code = unsafe { bindings::rd_kafka_position(consumer.client().native_ptr(), list.ptr()) };
    if code.is_error() { Err(KafkaError::OffsetFetch(code.into())) } else { Ok(()) }
}

/// Returns a pointer to each element, which is valid as long as the list.
pub(super) fn elements(list: &TopicPartitionList) -> impl Iterator<Item = *mut RDKafkaTopicPartition> {
    // SAFETY: a list owns a structure with an array of as many elements as it counts.
    let first = unsafe { (*list.ptr()).elems };
    // SAFETY: each index is less than that count.
    (0..list.count()).map(move |index| unsafe { first.add(index) })
}

fn known(epoch: i32) -> Option<i32> {
    (epoch >= 0).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use rdkafka::topic_partition_list::Offset;

    use super::*;

    #[test]
    fn an_epoch_is_kept_by_the_element_it_was_set_for() {
        let mut list = TopicPartitionList::new();
        list.add_partition_range("t", 0, 9);
        assert_eq!(epochs(&list), [None; 10]);
        set_epochs(&mut list, (0..10).map(|epoch| (epoch % 2 == 0).then_some(epoch)));
        let set: Vec<Option<i32>> = (0..10).map(|epoch| (epoch % 2 == 0).then_some(epoch)).collect();
        assert_eq!(epochs(&list.clone()), set);
        set_epochs(&mut list, [None]);
        assert_eq!(epochs(&list)[0], None);
        assert_eq!(epochs(&TopicPartitionList::new()), []);
    }

    #[test]
    fn a_partition_that_is_not_assigned_has_no_position() {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new().set("group.id", "g").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 3, Offset::Offset(7)).unwrap();
        polled_positions(&consumer, &mut list).unwrap();
        assert_eq!((list.elements()[0].offset(), epochs(&list)), (Offset::Invalid, vec![None]));
    }
}
