//! A producer that sends nothing new, and is kept until its brokers have answered.
//!
//! Brokers do not link two producers: a request of the first that lies unread may be appended behind what the second has
//! written, and a key would read an old record behind newer ones. So whoever makes the second producer waits here first. A
//! request that is not answered is given up by librdkafka with its connection (`socket.timeout.ms`); then it is over as well.

use std::fmt;

use rdkafka::producer::Producer as _;
use rdkafka::producer::PurgeConfig;
use rdkafka::producer::ThreadedProducer;

use super::context::Context;

/// A producer whose requests are still out.
pub struct Retired {
    producer: ThreadedProducer<Context>,
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").field("in_flight", &self.producer.in_flight_count()).finish()
    }
}

impl Retired {
    pub(super) fn new(producer: ThreadedProducer<Context>) -> Self {
        let retired = Self { producer };
        retired.is_answered();
        retired
    }

    /// Says whether no request is out any more. What librdkafka would send again meanwhile is purged: ask often.
    pub fn is_answered(&self) -> bool {
        self.producer.purge(PurgeConfig::default().queue());
        self.producer.in_flight_count() == 0
    }
}
