//! A producer that sends nothing new and lives until its brokers have answered.
//!
//! Brokers do not order the requests of two producers: a broker may append a request of the first after records of the
//! second, and an old record of a key would follow newer ones. So a second producer is created only after the first is
//! answered. librdkafka gives up a request without a response with its connection (`socket.timeout.ms`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;
use std::thread;
use std::time::Duration;

use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::PurgeConfig;
use rdkafka::producer::ThreadedProducer;

/// How often the queue is purged: librdkafka puts a request that failed back into it, and would retry it.
const PURGE_INTERVAL: Duration = Duration::from_millis(20);

/// A producer that may have requests in flight. It ends when they are answered.
#[derive(Debug)]
pub struct Retired {
    is_answered: Arc<AtomicBool>,
}

impl Retired {
    /// Purges the producer's queue again and again until the brokers have answered, on a thread of its own.
    pub fn new<C: ProducerContext + 'static>(producer: ThreadedProducer<C>) -> Self {
        let is_answered = Arc::new(AtomicBool::new(false));
        let answered = Arc::clone(&is_answered);
        let purge = move || {
            // Not on the caller's thread: a resolver may block librdkafka's threads.
            loop {
                producer.purge(PurgeConfig::default().queue().non_blocking());
                if producer.in_flight_count() == 0 {
                    break;
                }
                thread::sleep(PURGE_INTERVAL);
            }
            answered.store(true, Release);
            drop(producer);
        };
        if let Err(error) = thread::Builder::new().name("retired".to_owned()).spawn(purge) {
            // The producer was dropped with the closure, with requests in flight or not.
            tracing::warn!(error = %error, "cannot start the thread of the previous producer");
            is_answered.store(true, Release);
        }
        Self { is_answered }
    }

    /// Returns whether no request is in flight. Then every delivery report was processed.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.is_answered.load(Acquire)
    }
}
