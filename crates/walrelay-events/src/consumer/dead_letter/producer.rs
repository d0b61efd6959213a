//! The producer of dead-letter records.
//!
//! A write succeeds with its delivery report. Until then no offset after the record is committed. A record that is
//! dead-lettered twice, for example because of a crash, is in the topic twice, with the same event id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;

use crate::consumer::dead_letter::provenance::HeaderFormat;
use crate::consumer::dead_letter::provenance::Provenance;
use crate::consumer::dead_letter::provenance::headers;
use crate::consumer::dead_letter::provenance::own_headers;
use crate::consumer::dead_letter::reader::DeadLetter;
use crate::consumer::dead_letter::reader::REDRIVEN;
use crate::consumer::dead_letter::reader::place;
use crate::consumer::record::Record;
use crate::kafka::Brokers;
use crate::kafka::is_connection_property;
use crate::kafka_error::KafkaError;

/// The header of a redriven record: `topic[partition]@offset` of the dead-letter record.
const REDRIVEN_FROM: &str = "redriven_from";
/// The maximum of librdkafka.
const MESSAGE_MAX_BYTES: &str = "1000000000";
/// The timeout of one attempt to deliver a record.
const ATTEMPT_MS: &str = "10000";

/// Writes dead-letter records, and redrives them. Each write waits for its delivery report.
pub struct Producer {
    config: ClientConfig,
    client: Mutex<Arc<ThreadedProducer<DeliveryContext>>>,
}

/// Keeps an authentication error: librdkafka reports it only here, while the write that waits times out.
#[derive(Default)]
struct DeliveryContext {
    authentication_error: Mutex<Option<ClientError>>,
    brokers: Brokers,
}

impl ClientContext for DeliveryContext {
    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(error = %error, reason, "dead-letter producer error");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            *self.authentication_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), ClientError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        // It fails if the write was cancelled.
        let _ = report.send(result.as_ref().map(drop).map_err(|(error, _)| error.clone()));
    }
}

impl Producer {
    /// Creates a producer. It uses those of the librdkafka properties that concern connections.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        for (name, value) in properties.iter().filter(|(name, _)| is_connection_property(name)) {
            client.set(name, value);
        }
        client
            // Not idempotent: an idempotent producer fails for good after an authorization error, this one recovers
            // when the permission is granted. Duplicates are possible anyway. One request in flight keeps the order.
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "1")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.propagation.max.ms", ATTEMPT_MS)
            .set("message.timeout.ms", ATTEMPT_MS)
            .set("linger.ms", "0")
            .set("statistics.interval.ms", "5000")
            // The broker limits the size, not this client.
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let created = ThreadedProducer::from_config_and_context(&client, DeliveryContext::default());
        let created = created.map_err(KafkaError::new)?;
        Ok(Self { config: client, client: Mutex::new(Arc::new(created)) })
    }

    /// Writes a record to a dead-letter topic. Returns after the delivery report.
    pub async fn write_dead_letter(
        &self,
        topic: &str,
        record: &Record,
        provenance: &Provenance,
        format: HeaderFormat,
    ) -> Result<(), KafkaError> {
        let headers = headers(record, provenance, format);
        self.send(topic, None, (record.key(), record.value()), headers).await.map_err(KafkaError::new)
    }

    /// Writes a dead-letter record to a topic again, byte for byte, with the further header `redriven_from`. Then it
    /// marks the record as redriven in the dead-letter topic. After a crash between the two writes, the next redrive
    /// writes it once more.
    ///
    /// If the topic is the one it came from, it gets its former partition, even if that was not chosen by the key. If
    /// the topic has got more partitions since, newer events of the key may be in another one.
    pub async fn redrive(&self, dead_letter: &DeadLetter, topic: &str) -> Result<(), KafkaError> {
        let record = &dead_letter.record;
        let own = own_headers(record).filter(|(name, _)| *name != REDRIVEN_FROM);
        let mut headers: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
        headers.push((REDRIVEN_FROM.to_owned(), Some(record.to_string().into_bytes())));
        let body = (record.key(), record.value());
        let origin = dead_letter.provenance.as_ref().filter(|it| it.topic == topic && it.partition >= 0);
        match self.send(topic, origin.map(|it| it.partition), body, headers.clone()).await {
            // The topic was recreated with fewer partitions.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                self.send(topic, None, body, headers).await.map_err(KafkaError::new)?;
            }
            sent => sent.map_err(KafkaError::new)?,
        }
        let marker = vec![(REDRIVEN.to_owned(), Some(place(record).into_bytes()))];
        self.send(record.topic(), None, (record.key(), None), marker).await.map_err(KafkaError::new)
    }

    /// Returns those of the topics that do not exist. Blocks for at most `timeout` per topic.
    pub(crate) fn missing_topics<'t>(
        &self,
        topics: &'t [String],
        timeout: Duration,
    ) -> Result<Vec<&'t str>, ClientError> {
        let mut missing = Vec::new();
        let client = self.client()?;
        for topic in topics {
            let metadata = client.client().fetch_metadata(Some(topic), timeout)?;
            let exists = metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty());
            if !exists {
                missing.push(topic.as_str());
            }
        }
        Ok(missing)
    }

    /// Returns the last authentication error, once.
    pub(crate) fn take_authentication_error(&self) -> Option<ClientError> {
        let client = self.client().ok()?;
        client.context().authentication_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the client. A client that has lost every broker is replaced.
    fn client(&self) -> Result<Arc<ThreadedProducer<DeliveryContext>>, ClientError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.context().brokers.are_lost() {
            let new = Arc::new(ThreadedProducer::from_config_and_context(&self.config, DeliveryContext::default())?);
            let lost = std::mem::replace(&mut *client, new);
            // Dropping it blocks until it has ended.
            thread::spawn(move || drop(lost));
        }
        Ok(Arc::clone(&client))
    }

    async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<(), ClientError> {
        let (report, delivered) = oneshot::channel();
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(report));
        base.partition = partition;
        base.key = key;
        base.payload = value;
        let empty = OwnedHeaders::new_with_capacity(headers.len());
        let insert = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            all.insert(Header { key, value: value.as_deref() })
        };
        base.headers = Some(headers.iter().fold(empty, insert));
        self.client()?.send(base).map_err(|(error, _)| error)?;
        delivered.await.unwrap_or(Err(ClientError::Canceled))
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}
