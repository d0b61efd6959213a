//! A producer that sends nothing new, and is kept until its brokers have answered.
//!
//! Brokers do not link two producers: a request of the first that lies unread may be appended behind what the second has
//! written, and a key would read an old record behind newer ones. So whoever makes the second producer waits here first. A
//! request that is not answered is given up by librdkafka with its connection (`socket.timeout.ms`); then it is over as well.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;
use std::thread;
use std::time::Duration;

use rdkafka::producer::Producer as _;
use rdkafka::producer::PurgeConfig;
use rdkafka::producer::ThreadedProducer;

use super::context::PublisherContext;

/// How often the queue is purged: librdkafka puts a request that was not answered back into it, and would send it again.
const PURGE_INTERVAL: Duration = Duration::from_millis(20);

/// A producer whose requests may be out. It ends by itself once they are answered, whoever looks.
#[derive(Debug)]
pub struct Retired {
    is_answered: Arc<AtomicBool>,
}

impl Retired {
    pub(super) fn new(producer: ThreadedProducer<PublisherContext>) -> Self {
        let is_answered = Arc::new(AtomicBool::new(false));
        let answered = Arc::clone(&is_answered);
        let purge = move || {
            // Not on the relay thread: librdkafka's own threads may be held up by a resolver.
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
            // The producer went with the closure: it has purged everything, answered or not.
            tracing::warn!(error = %error, "cannot start a thread for the previous producer");
            is_answered.store(true, Release);
        }
        Self { is_answered }
    }

    /// Says whether no request is out any more.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.is_answered.load(Acquire)
    }
}
