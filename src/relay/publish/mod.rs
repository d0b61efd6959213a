//! Records to Kafka, delivery reports to the ledger.
//!
//! ```text
//!   accept(record, ticket) --> librdkafka queue --> brokers
//!                                                     |
//!   ledger <-- one step per report -- polling thread -+
//! ```
//!
//! A record is delivered when its own delivery report says so. A failed report, or a fatal error, ends this publisher:
//! its owner drops it, returns to the confirmed position and creates a new one. Nothing is skipped and nothing is
//! retried here; librdkafka retries without a time limit. A dropped publisher is retired: its queue is purged, and the
//! next one waits until its requests are answered ([`Retired`]).

mod config;
mod context;
mod create;
mod error;
mod partitions;
mod probe;
mod properties;
mod settings;
mod statistics;
mod token_command;
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
use crate::relay::record::route::ProducerRecord;
use walrelay_events::internal::Credentials;

pub use config::Compression;
pub use config::Config;
pub use config::Mechanism;
pub use config::Oauth;
pub use config::Sasl;
pub use config::Tls;
use context::PublisherContext;
pub use create::Admin;
pub use create::TopicSize;
pub use error::Error;
pub use error::Failure;
pub use probe::Cluster;
pub use probe::Probe;
pub use probe::probe;
pub use properties::check_properties;
pub use settings::Settings;
pub use settings::clear_token_error;
pub use settings::plaintext_error;
pub use waiting::Stalled;
pub use walrelay_events::internal::Cause;
pub use walrelay_events::internal::PartitionDescription;
pub use walrelay_events::internal::Retired;
pub use walrelay_events::internal::TopicDescription;
pub use walrelay_events::internal::TopicRights;
pub use walrelay_events::internal::TopicSettings;
pub use walrelay_events::internal::Verdict;
pub use walrelay_events::internal::Waiting;

/// The number of topic names whose index is cached.
const REMEMBERED_TOPICS: usize = 1_024;

/// One producer that reports to one ledger.
pub struct Publisher {
    producer: ThreadedProducer<PublisherContext>,
    context: Arc<context::Shared>,
    topics: HashMap<String, u16>,
    last_topic: (String, u16),
    limit_bytes: usize,
    /// Topics that have rejected timestamps, and how far from now a timestamp may be.
    spans: BTreeMap<String, Duration>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("in_flight", &self.producer.in_flight_count()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Creates a producer that reports to this ledger and wakes the relay thread. It connects in the background.
    pub fn new(settings: &Settings, reports: Arc<Reports>, wake: Arc<Notify>, metrics: Metrics) -> Result<Self, Error> {
        let again = settings.clone();
        let credentials = Credentials::new(move || again.connection().ok());
        let config: ClientConfig = settings.client()?;
        let shared = Arc::new(context::Shared::new(reports, wake, metrics, credentials));
        let context = PublisherContext::new(Arc::clone(&shared), settings.tokens()?);
        let producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(|source| Error::Configuration { source })?;
        Ok(Self {
            producer,
            context: shared,
            topics: HashMap::new(),
            last_topic: (String::new(), 0),
            limit_bytes: settings.max_record_bytes(),
            spans: settings.spans().clone(),
        })
    }

    /// Gives the failure that ends this publisher, if there is one.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failure = self.context.failure()?;
        // For a fatal error, or a queue that it purged, the client knows the cause.
        let cause = if failure.is_consequence() { self.producer.client().fatal_error() } else { None };
        Some(cause.map_or(failure, |(code, reason)| Failure::of_producer(code, &reason)))
    }

    /// Gives why records were not acknowledged at the last statistics, which come every few seconds.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.context.waiting()
    }

    /// Purges the queue. The result lives until the brokers have answered.
    #[must_use]
    pub fn retire(self) -> Retired {
        Retired::new(self.producer)
    }

    /// Says whether a record keeps its timestamp. A backlog after an outage is older than some topics allow; the commit
    /// time stays in a header.
    fn keeps_timestamp(&self, topic: &str, millis: i64) -> bool {
        let Some(span) = self.spans.get(topic) else { return true };
        let micros = u64::try_from(millis).unwrap_or_default().saturating_mul(1_000);
        let takes = !span.is_zero() && Duration::from_micros(now_micros().abs_diff(micros)) <= *span;
        if !takes {
            self.context.timestamp_replaced();
        }
        takes
    }

    /// Enqueues one record. librdkafka copies the bytes.
    fn send(&self, record: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), KafkaError> {
        let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, ticket.to_word());
        base.key = record.key;
        base.payload = record.value;
        base.partition = record.partition;
        base.timestamp = record.timestamp_millis.filter(|millis| self.keeps_timestamp(record.topic, *millis));
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let headers =
                record.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value }));
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

    fn accept(&mut self, record: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), Refused> {
        self.context.handed(ticket);
        let mut sent = self.send(record, ticket);
        if is_full(&sent) && self.producer.in_flight_count() == 0 {
            // A delivered record leaves librdkafka's queue a moment later than the ledger.
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
    fn a_record_that_an_empty_queue_rejects_is_too_large() {
        let reports = Ledger::new(Lsn::ZERO).reports();
        let shared =
            Arc::new(context::Shared::new(reports, Arc::default(), Metrics::default(), Credentials::new(|| None)));
        let mut config = ClientConfig::new();
        config.set("queue.buffering.max.kbytes", "1");
        let producer =
            ThreadedProducer::from_config_and_context(&config, PublisherContext::new(Arc::clone(&shared), None))
                .unwrap();
        let (topics, last_topic) = (HashMap::new(), (String::new(), 0));
        let mut publisher =
            Publisher { producer, context: shared, topics, last_topic, limit_bytes: 1_024, spans: BTreeMap::new() };
        let (headers, value) = (Headers::default(), [0; 2_048]);
        let mut offer = |length: usize| {
            let (topic, value) = ("t", value.get(..length));
            let record =
                ProducerRecord { topic, key: None, value, headers: &headers, timestamp_millis: None, partition: None };
            publisher.accept(&record, Ticket::from_word(0))
        };
        // Until librdkafka's first events are polled, its queue does not count as empty.
        let refused = iter::repeat_with(|| offer(2_048)).find(|offered| *offered != Err(Refused::Full));
        assert_eq!(refused, Some(Err(Refused::TooLarge { size: 2_048, limit: 1_024 })));
        assert_eq!(offer(1_000), Ok(()));
        assert_eq!(offer(1_000), Err(Refused::Full), "the queue is not empty");
    }
}
