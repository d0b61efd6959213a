//! The metadata of committed offsets. Any client may have written it, so it need not be UTF-8.

use rdkafka::TopicPartitionList;
use rdkafka::types::RDKafkaTopicPartition;

use super::epoch::elements;

/// Returns the metadata of each element, in the order of the list.
pub(in crate::consumer) fn metadata(list: &TopicPartitionList) -> Vec<&[u8]> {
    let bytes = |element: *const RDKafkaTopicPartition| -> &[u8] {
        // SAFETY: the pointer is that of an element of the list, which is borrowed for as long as what is returned.
        let element = unsafe { &*element };
        if element.metadata.is_null() || element.metadata_size == 0 {
            return &[];
        }
        // SAFETY: an element owns as many bytes as its size says, and nothing changes them while the list is borrowed.
        unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }
    };
    elements(list).map(|element| bytes(element.cast_const())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_it_was_set() {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        list.add_partition("t", 1).set_metadata("of one");
        assert_eq!(metadata(&list), [b"".as_slice(), b"of one"]);
    }
}
