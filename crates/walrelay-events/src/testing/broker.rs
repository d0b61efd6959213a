//! In-process Kafka: librdkafka's mock cluster. Only this file uses its type.
//!
//! It accepts idempotent producers and serves consumer groups. It does not check sequence numbers. Tests of
//! idempotence, leader changes and restarts need a real broker.

use std::fmt;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::error::Error;

/// An in-process Kafka that ends when it is dropped. It does not support DescribeConfigs: do not set
/// `Config::inbox_retention`.
pub struct Broker(MockCluster<'static, DefaultProducerContext>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.0.bootstrap_servers()).finish()
    }
}

impl Broker {
    /// Starts this many brokers.
    pub fn start(brokers: i32) -> Result<Self, Error> {
        MockCluster::new(brokers).map(Self).map_err(Error::kafka)
    }

    /// Returns the bootstrap servers.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Creates a topic with one replica.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        self.0.create_topic(name, partitions, 1).map_err(Error::kafka)
    }

    /// Disconnects a broker.
    pub fn take_down(&self, broker: i32) -> Result<(), Error> {
        self.0.broker_down(broker).map_err(Error::kafka)
    }

    /// Connects a broker again.
    pub fn put_up(&self, broker: i32) -> Result<(), Error> {
        self.0.broker_up(broker).map_err(Error::kafka)
    }
}
