//! librdkafka's producer as its statistics report it.

/// One set of statistics. A new producer counts from 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProducerView {
    /// Records in its queue and in flight.
    pub queued_records: u64,
    /// The bytes of those records.
    pub queued_bytes: u64,
    /// The brokers whose number is known.
    pub brokers: Vec<BrokerView>,
}

/// One broker in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerView {
    /// `node.id`.
    pub number: i32,
    /// Whether a connection is up.
    pub is_up: bool,
    /// Requests sent.
    pub requests: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Requests that could not be sent.
    pub errors: u64,
    /// Requests that timed out.
    pub timeouts: u64,
    /// From a request to its response, over the last seconds.
    pub round_trip: Option<Quantiles>,
    /// The time of a record in the queue, over the last seconds.
    pub queue_wait: Option<Quantiles>,
    /// Throttling by the broker's quota, over the last seconds.
    pub throttle: Option<Quantiles>,
}

/// Quantiles of a duration, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quantiles {
    /// The median.
    pub p50_micros: u64,
    /// The 99th percentile.
    pub p99_micros: u64,
}
