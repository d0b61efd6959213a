//! Kafka inside this process: librdkafka's mock cluster. The one place that knows its type.
//!
//! It takes idempotent produces and serves consumers. It does not check sequence numbers and keeps little: what must be
//! shown of idempotence, leaders and restarts needs a real broker.

use std::fmt;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::Error;

/// A Kafka that lives as long as this value. It does not tell how long it keeps records: leave `inbox_keeps` out there.
pub struct Broker(MockCluster<'static, DefaultProducerContext>);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Broker").field(&self.0.bootstrap_servers()).finish()
    }
}

impl Broker {
    /// Starts so many brokers.
    pub fn start(brokers: i32) -> Result<Self, Error> {
        MockCluster::new(brokers).map(Self).map_err(Error::Kafka)
    }

    /// Gives where to start from.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        self.0.create_topic(name, partitions, 1).map_err(Error::Kafka)
    }

    /// Takes a broker off the network.
    pub fn take_down(&self, broker: i32) -> Result<(), Error> {
        self.0.broker_down(broker).map_err(Error::Kafka)
    }

    /// Puts a broker back.
    pub fn put_up(&self, broker: i32) -> Result<(), Error> {
        self.0.broker_up(broker).map_err(Error::Kafka)
    }
}
