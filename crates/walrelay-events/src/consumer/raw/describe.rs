//! What brokers say about topics: their partitions, what the principal may do with them, and their settings. A request
//! creates no topic.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::client::Client;
use rdkafka::client::ClientContext;
use rdkafka::error::IsError as _;
use rdkafka::types::RDKafkaErrorCode;

/// A topic as its brokers describe it.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// As in the request.
    pub name: String,
    /// Why the brokers do not describe it.
    pub error: Option<RDKafkaErrorCode>,
    /// Its partitions, by their number.
    pub partitions: Vec<PartitionDescription>,
    /// None if the brokers are too old to say it.
    pub rights: Option<TopicRights>,
}

/// A partition as its brokers describe it.
#[derive(Clone, Copy, Debug)]
pub struct PartitionDescription {
    /// A broker leads it.
    pub has_leader: bool,
    /// The number of its replicas.
    pub replicas: usize,
    /// The number of those that are in sync.
    pub in_sync: usize,
}

/// What the principal may do with a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicRights {
    /// It may produce.
    pub can_write: bool,
    /// It may read the topic's settings.
    pub can_describe_configs: bool,
}

/// The settings of a topic, by name; or why the brokers do not give them.
pub type TopicSettings = Result<BTreeMap<String, String>, RDKafkaErrorCode>;

/// Describes topics. Blocks for at most a second longer than `timeout`.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, RDKafkaErrorCode> {
    let names = c_names(names);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the array has as many names as are given, and the function copies them.
    let topics = unsafe { bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    // SAFETY: the collection is destroyed once, after the request that borrows it.
    let topics = Guard(topics, |topics| unsafe { bindings::rd_kafka_TopicCollection_destroy(topics) });
    let op = bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = bindings::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT;
    let event = request(client, (op, answer), timeout, |options, queue| {
        // SAFETY: client, collection, options and queue live until the answer.
        unsafe { bindings::rd_kafka_DescribeTopics(client.native_ptr(), topics.0, options, queue) }
    })?;
    let mut count = 0;
    // SAFETY: the event is of this kind, and owns the result and its array.
    let found = unsafe {
        let result = bindings::rd_kafka_event_DescribeTopics_result(event.0);
        bindings::rd_kafka_DescribeTopics_result_topics(result, &raw mut count)
    };
    Ok(elements(found.cast_const(), count).into_iter().map(description).collect())
}

/// Reads the settings of topics. Blocks for at most a second longer than `timeout`.
pub fn describe_configs<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, TopicSettings>, RDKafkaErrorCode> {
    let kind = bindings::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    let resources: Vec<_> = c_names(names)
        .iter()
        .filter_map(|name| {
            // SAFETY: the function copies the name.
            let resource = unsafe { bindings::rd_kafka_ConfigResource_new(kind, name.as_ptr()) };
            // SAFETY: the resource is destroyed once, after the request that borrows it.
            let free = |resource| unsafe { bindings::rd_kafka_ConfigResource_destroy(resource) };
            // librdkafka would read a null pointer in the request.
            (!resource.is_null()).then(|| Guard(resource, free))
        })
        .collect();
    if resources.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut pointers: Vec<_> = resources.iter().map(|resource| resource.0).collect();
    let op = bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    let answer = bindings::RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT;
    let event = request(client, (op, answer), timeout, |options, queue| {
        let (first, count) = (pointers.as_mut_ptr(), pointers.len());
        // SAFETY: client, resources, options and queue live until the answer.
        unsafe { bindings::rd_kafka_DescribeConfigs(client.native_ptr(), first, count, options, queue) }
    })?;
    let mut count = 0;
    // SAFETY: the event is of this kind, and owns the result and its array.
    let found = unsafe {
        let result = bindings::rd_kafka_event_DescribeConfigs_result(event.0);
        bindings::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count)
    };
    Ok(elements(found.cast_const(), count).into_iter().map(settings).collect())
}

/// Gives the names that a topic can have: librdkafka refuses a whole request because of an empty one.
fn c_names(names: &[String]) -> Vec<CString> {
    let names = names.iter().filter(|name| !name.is_empty());
    names.filter_map(|name| CString::new(name.as_str()).ok()).collect()
}

/// Sends a request, and waits for its answer, which is of the given kind.
fn request<C: ClientContext>(
    client: &Client<C>,
    (op, answer): (bindings::rd_kafka_admin_op_t, c_int),
    timeout: Duration,
    submit: impl FnOnce(*const bindings::rd_kafka_AdminOptions_t, *mut bindings::rd_kafka_queue_t),
) -> Result<Guard<bindings::rd_kafka_event_t, impl Fn(*mut bindings::rd_kafka_event_t)>, RDKafkaErrorCode> {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX / 2);
    // SAFETY: the client lives longer than its options.
    let options = unsafe { bindings::rd_kafka_AdminOptions_new(client.native_ptr(), op) };
    // SAFETY: the options are destroyed once, after the request that copies them.
    let options = Guard(options, |options| unsafe { bindings::rd_kafka_AdminOptions_destroy(options) });
    // SAFETY: the options are alive, and no text of an error is asked for.
    let refused = unsafe {
        bindings::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        bindings::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1)
    };
    if !refused.is_null() {
        // SAFETY: the error of an option that this request does not have is destroyed once.
        unsafe { bindings::rd_kafka_error_destroy(refused) };
    }
    // SAFETY: the client lives longer than the queue.
    let queue = unsafe { bindings::rd_kafka_queue_new(client.native_ptr()) };
    // SAFETY: the queue is destroyed once; librdkafka holds its own reference for an answer that comes late.
    let queue = Guard(queue, |queue| unsafe { bindings::rd_kafka_queue_destroy(queue) });
    submit(options.0, queue.0);
    // SAFETY: the queue is alive. What it gives belongs to the caller.
    let event = unsafe { bindings::rd_kafka_queue_poll(queue.0, millis + 1_000) };
    if event.is_null() {
        return Err(RDKafkaErrorCode::RequestTimedOut);
    }
    // SAFETY: the event is destroyed once, after what it owns has been read.
    let event = Guard(event, |event| unsafe { bindings::rd_kafka_event_destroy(event) });
    // SAFETY: the event is alive. The functions only read.
    let (kind, code) = unsafe { (bindings::rd_kafka_event_type(event.0), bindings::rd_kafka_event_error(event.0)) };
    match code.is_error() {
        true => Err(code.into()),
        false if kind == answer => Ok(event),
        false => Err(RDKafkaErrorCode::BadMessage),
    }
}

fn description(topic: *const bindings::rd_kafka_TopicDescription_t) -> TopicDescription {
    let (mut partition_count, mut operation_count) = (0, 0);
    // SAFETY: the topic belongs to an event that is alive. The functions only read, and an error may be null.
    let (name, code, partitions, operations) = unsafe {
        (
            bindings::rd_kafka_TopicDescription_name(topic),
            bindings::rd_kafka_error_code(bindings::rd_kafka_TopicDescription_error(topic)),
            bindings::rd_kafka_TopicDescription_partitions(topic, &raw mut partition_count),
            bindings::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut operation_count),
        )
    };
    let rights = (!operations.is_null()).then(|| {
        // SAFETY: the topic owns an array of as many numbers, and a number is read whatever it is.
        let operations = unsafe { slice::from_raw_parts(operations.cast::<u32>(), operation_count) };
        let may = |operation: bindings::rd_kafka_AclOperation_t| operations.contains(&(operation as u32));
        TopicRights {
            can_write: may(bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
            can_describe_configs: may(bindings::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS),
        }
    });
    TopicDescription {
        name: text(name).unwrap_or_default(),
        error: code.is_error().then(|| code.into()),
        partitions: elements(partitions.cast_const(), partition_count).into_iter().map(partition).collect(),
        rights,
    }
}

fn partition(partition: *const bindings::rd_kafka_TopicPartitionInfo_t) -> PartitionDescription {
    let (mut replicas, mut in_sync) = (0, 0);
    // SAFETY: the partition belongs to an event that is alive. The functions only read.
    let leader = unsafe {
        bindings::rd_kafka_TopicPartitionInfo_replicas(partition, &raw mut replicas);
        bindings::rd_kafka_TopicPartitionInfo_isr(partition, &raw mut in_sync);
        bindings::rd_kafka_TopicPartitionInfo_leader(partition)
    };
    // SAFETY: a leader that is not null belongs to the partition.
    let has_leader = !leader.is_null() && unsafe { bindings::rd_kafka_Node_id(leader) } >= 0;
    PartitionDescription { has_leader, replicas, in_sync }
}

fn settings(resource: *const bindings::rd_kafka_ConfigResource_t) -> (String, TopicSettings) {
    let mut count = 0;
    // SAFETY: the resource belongs to an event that is alive. The functions only read.
    let (name, code, entries) = unsafe {
        (
            bindings::rd_kafka_ConfigResource_name(resource),
            bindings::rd_kafka_ConfigResource_error(resource),
            bindings::rd_kafka_ConfigResource_configs(resource, &raw mut count),
        )
    };
    let entry = |entry: *const bindings::rd_kafka_ConfigEntry_t| {
        // SAFETY: the entry belongs to the resource. The functions only read.
        let (name, value) =
            unsafe { (bindings::rd_kafka_ConfigEntry_name(entry), bindings::rd_kafka_ConfigEntry_value(entry)) };
        Some((text(name)?, text(value)?))
    };
    let settings = if code.is_error() {
        Err(code.into())
    } else {
        Ok(elements(entries.cast_const(), count).into_iter().filter_map(entry).collect())
    };
    (text(name).unwrap_or_default(), settings)
}

/// Copies the pointers of an array of an event that is alive. What a response omits is null there.
fn elements<T>(first: *const *const T, count: usize) -> Vec<*const T> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the event owns an array of as many pointers as it counts.
    let pointers = unsafe { slice::from_raw_parts(first, count) };
    pointers.iter().copied().filter(|pointer| !pointer.is_null()).collect()
}

/// Copies a text of an event that is alive.
fn text(text: *const c_char) -> Option<String> {
    // SAFETY: a text that is not null ends with a zero byte.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What librdkafka has given, and how it is given back.
struct Guard<T, F: Fn(*mut T)>(*mut T, F);

impl<T, F: Fn(*mut T)> Drop for Guard<T, F> {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::BaseProducer;
    use rdkafka::producer::Producer as _;

    use super::*;

    #[test]
    fn a_name_that_no_topic_can_have_is_not_requested() {
        let producer: BaseProducer = ClientConfig::new().create().unwrap();
        let client = producer.client();
        let names = [String::new(), "a\0b".to_owned()];
        assert!(describe_topics(client, &names, Duration::ZERO).unwrap().is_empty());
        assert!(describe_configs(client, &names, Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn what_a_response_omits_is_left_out() {
        let (topic, other) = (1_u8, 2_u8);
        let found = [ptr::null(), &raw const topic, ptr::null(), &raw const other];
        assert_eq!(elements(found.as_ptr(), found.len()), [&raw const topic, &raw const other]);
        assert!(elements(ptr::null::<*const u8>(), 0).is_empty());
    }
}
