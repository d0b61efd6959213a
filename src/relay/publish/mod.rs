//! Records to Kafka, delivery reports to the ledger.
//!
//! ```text
//!   accept(record, ticket) --> librdkafka queue --> brokers
//!                                                     |
//!   ledger <-- one step per report -- polling thread -+
//! ```
//!
//! Only a successful delivery report of that very record means delivered. A failed one, or a fatal error, ends this
//! publisher: its owner drops it, goes back to the confirmed position and makes a new one. Nothing is skipped and nothing
//! is retried here; librdkafka retries what can be retried, without a time limit. A publisher that goes is retired: its queue
//! is purged, and the next one waits until its requests are answered ([`Retired`]).

mod config;
mod context;
mod error;
mod partitions;
mod probe;
mod properties;
mod repeats;
mod retired;
mod settings;
mod statistics;
mod waiting;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use tokio::sync::Notify;

use crate::relay::ledger::Completed;
use crate::relay::ledger::Reports;
use crate::relay::ledger::Ticket;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::now_micros;
use crate::relay::pipeline::Refused;
use crate::relay::pipeline::Sink;
use crate::relay::record::route::Record;

pub use config::Compression;
pub use config::Config;
pub use config::Mechanism;
pub use config::Sasl;
pub use config::Tls;
use context::Context;
pub use error::Error;
pub use error::Failure;
pub use error::Verdict;
pub use probe::Cluster;
pub use probe::probe;
pub use properties::check_properties;
pub use retired::Retired;
pub use settings::Settings;
pub use settings::refuses_plaintext;
pub use waiting::Cause;
pub use waiting::Stalled;
pub use waiting::Waiting;

/// How many topic names are remembered by their index; beyond it each record asks the metrics.
const REMEMBERED_TOPICS: usize = 1_024;

/// One producer and what it owes to one ledger.
pub struct Publisher {
    producer: ThreadedProducer<Context>,
    context: Arc<context::Shared>,
    topics: HashMap<String, u16>,
    last_topic: (String, u16),
    limit_bytes: usize,
    /// Topics that have refused timestamps, and how far from now they may be.
    spans: BTreeMap<String, Duration>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("in_flight", &self.producer.in_flight_count()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Makes a producer that reports to this ledger and wakes its relay. It connects by itself, whenever it can.
    pub fn new(settings: &Settings, reports: Arc<Reports>, wake: Arc<Notify>, metrics: Metrics) -> Result<Self, Error> {
        let config: ClientConfig = settings.client()?;
        let shared = Arc::new(context::Shared::new(reports, wake, metrics));
        let producer = ThreadedProducer::from_config_and_context(&config, Context(Arc::clone(&shared)))
            .map_err(|source| Error::Configuration { source })?;
        Ok(Self {
            producer,
            context: shared,
            topics: HashMap::new(),
            last_topic: (String::new(), 0),
            limit_bytes: settings.record_bytes_max(),
            spans: settings.spans().clone(),
        })
    }

    /// Tells why this publisher must go, if it must.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failure = self.context.failure()?;
        // A fatal error, or a queue that was purged for it, says only that; its cause stands beside it.
        let cause = if failure.is_consequence() { self.producer.client().fatal_error() } else { None };
        Some(cause.map_or(failure, |(code, reason)| Failure::of_producer(code, &reason)))
    }

    /// Says what records waited for when that was last looked at, which is every few seconds.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.context.waiting()
    }

    /// Purges what is queued, and gives what is kept until the brokers have answered.
    #[must_use]
    pub fn retire(self) -> Retired {
        Retired::new(self.producer)
    }

    /// Says whether a record keeps its timestamp. A backlog after an outage is older than some topics take; the time of the
    /// event stands in a header all the same.
    fn takes_timestamp(&self, topic: &str, millis: i64) -> bool {
        let Some(span) = self.spans.get(topic) else { return true };
        let micros = u64::try_from(millis).unwrap_or_default().saturating_mul(1_000);
        let takes = !span.is_zero() && Duration::from_micros(now_micros().abs_diff(micros)) <= *span;
        if !takes {
            self.context.timestamp_replaced();
        }
        takes
    }

    /// Sends one record. The one place that hands bytes to librdkafka, which copies them.
    fn send(&self, record: &Record<'_>, ticket: Ticket) -> Result<(), KafkaError> {
        let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, ticket.to_word());
        base.key = record.key;
        base.payload = record.value;
        base.partition = record.partition;
        base.timestamp = record.timestamp_millis.filter(|millis| self.takes_timestamp(record.topic, *millis));
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let headers = record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
            base.headers = Some(headers);
        }
        self.producer.send(base).map_err(|(error, _)| error)
    }
}

impl Sink for Publisher {
    fn topic_index(&mut self, topic: &str) -> u16 {
        if self.last_topic.0 == topic {
            return self.last_topic.1;
        }
        let index = match self.topics.get(topic) {
            Some(index) => *index,
            None => self.context.index_topic(topic),
        };
        if self.topics.len() < REMEMBERED_TOPICS {
            self.topics.insert(topic.to_owned(), index);
        }
        topic.clone_into(&mut self.last_topic.0);
        self.last_topic.1 = index;
        index
    }

    fn accept(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused> {
        self.context.handed(ticket);
        let mut sent = self.send(record, ticket);
        if is_full(&sent) && self.producer.in_flight_count() == 0 {
            // What was delivered leaves the queue a moment later than the ledger: it may be empty only now.
            sent = self.send(record, ticket);
            if is_full(&sent) {
                return Err(Refused::TooLarge { size: record.size(), limit: self.limit_bytes });
            }
        }
        match sent {
            Ok(()) => Ok(()),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => Err(Refused::Full),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                Err(Refused::TooLarge { size: record.size(), limit: self.limit_bytes })
            }
            Err(error) => {
                self.context.fail(&error, Some(record.topic), None);
                match record.partition {
                    Some(partition) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                        Err(Refused::NoPartition(partition))
                    }
                    Some(_) | None => Err(Refused::Broken),
                }
            }
        }
    }

    fn completed(&mut self, completed: Completed) {
        self.context.observe(completed);
    }

    fn aged(&mut self, age: Duration) {
        self.context.aged(age);
    }
}

const fn is_full(sent: &Result<(), KafkaError>) -> bool {
    matches!(sent, Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::lsn::Lsn;
    use crate::relay::ledger::Ledger;
    use crate::relay::record::route::Headers;

    #[test]
    fn what_an_empty_queue_refuses_is_refused_for_good() {
        let shared =
            Arc::new(context::Shared::new(Ledger::new(Lsn::ZERO).reports(), Arc::default(), Metrics::default()));
        let mut config = ClientConfig::new();
        config.set("queue.buffering.max.kbytes", "1");
        let producer = ThreadedProducer::from_config_and_context(&config, Context(Arc::clone(&shared))).unwrap();
        let (topics, last_topic) = (HashMap::new(), (String::new(), 0));
        let mut publisher =
            Publisher { producer, context: shared, topics, last_topic, limit_bytes: 1_024, spans: BTreeMap::new() };
        let (headers, value) = (Headers::default(), [0; 2_048]);
        let mut offer = |length: usize| {
            let (topic, value) = ("t", value.get(..length));
            let record = Record { topic, key: None, value, headers: &headers, timestamp_millis: None, partition: None };
            publisher.accept(&record, Ticket::from_word(0))
        };
        // Until librdkafka's first events are heard, its queue does not count as empty.
        let refused = iter::repeat_with(|| offer(2_048)).find(|offered| *offered != Err(Refused::Full));
        assert_eq!(refused, Some(Err(Refused::TooLarge { size: 2_048, limit: 1_024 })));
        assert_eq!(offer(1_000), Ok(()));
        assert_eq!(offer(1_000), Err(Refused::Full), "there is something in the queue, which may leave it");
    }
}
