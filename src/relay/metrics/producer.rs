//! librdkafka's producer as its statistics show it.

/// The producer at one moment. A new producer counts from 0 again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProducerView {
    /// Records in its queue and on their way.
    pub queued_messages: u64,
    /// The bytes of those records.
    pub queued_bytes: u64,
    /// Each broker it knows by number.
    pub brokers: Vec<BrokerView>,
}

/// One broker at that moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerView {
    /// Its number in the cluster.
    pub number: i32,
    /// Whether a connection stands.
    pub is_up: bool,
    /// Requests sent.
    pub requests: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Requests that failed to be sent.
    pub errors: u64,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// From a request to its answer, over the last seconds.
    pub round_trip: Option<Quantiles>,
    /// What a record waits in the queue, over the last seconds.
    pub queue_wait: Option<Quantiles>,
    /// What the broker holds requests back for by its quota, over the last seconds.
    pub throttle: Option<Quantiles>,
}

/// How long something took, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quantiles {
    /// Half took no longer.
    pub p50_micros: u64,
    /// 99 of 100 took no longer.
    pub p99_micros: u64,
}
