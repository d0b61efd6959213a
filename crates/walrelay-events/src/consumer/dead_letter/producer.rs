//! The producer of dead-letter records.
//!
//! A write succeeds with its delivery report. Until then no offset after the record is committed. A record that is
//! dead-lettered twice, for example because of a crash, is in the topic twice, with the same event id.
//!
//! A record that came in compressed can be larger than the limit of a topic. It is written uncompressed first, because
//! every broker and every reader knows that. If the topic refuses it for its size, it is compressed. The payload that
//! consumers read is the same.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::Producer as _;

use crate::consumer::dead_letter::client::Client;
use crate::consumer::dead_letter::client::Headers;
use crate::consumer::dead_letter::provenance::Extent;
use crate::consumer::dead_letter::provenance::HeaderFormat;
use crate::consumer::dead_letter::provenance::Provenance;
use crate::consumer::dead_letter::provenance::headers;
use crate::consumer::record::Record;
use crate::consumer::write_error;
use crate::consumer::write_error::TooLarge;
use crate::consumer::write_error::WriteError;
use crate::kafka::Tokens;
use crate::kafka::is_connection_property;
use crate::kafka_error::KafkaError;

/// The maximum of librdkafka.
const MESSAGE_MAX_BYTES: &str = "1000000000";
/// The timeout of one attempt to deliver a record.
const ATTEMPT_MS: &str = "10000";
/// The level of zstd: strong, because only records that are too large otherwise are compressed.
const COMPRESSION_LEVEL: &str = "12";
/// The timeout of a request for the settings of a topic.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A key and a value.
pub(super) type Body<'r> = (Option<&'r [u8]>, Option<&'r [u8]>);

/// Writes dead-letter records. Each write waits for its delivery report.
pub struct Producer {
    brokers: String,
    config: ClientConfig,
    tokens: Option<Tokens>,
    plain: Client,
    /// Created for the first record that needs it.
    compressing: OnceLock<Client>,
}

impl Producer {
    /// Creates a producer. It uses those of the librdkafka properties that concern connections.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        Self::with_tokens(properties, None)
    }

    pub(crate) fn with_tokens(
        properties: &BTreeMap<String, String>,
        tokens: Option<Tokens>,
    ) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        for (name, value) in properties.iter().filter(|(name, _)| is_connection_property(name)) {
            config.set(name, value);
        }
        config
            // Not idempotent: an idempotent producer fails for good after an authorization error, this one recovers
            // when the permission is granted. Duplicates are possible anyway. Records of one key wait for each other.
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "5")
            // A topic refuses whole batches: a record must not be refused for the size of others.
            .set("batch.num.messages", "1")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.propagation.max.ms", ATTEMPT_MS)
            .set("message.timeout.ms", ATTEMPT_MS)
            .set("linger.ms", "0")
            .set("statistics.interval.ms", "5000")
            // The broker limits the size, not this client.
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let plain = Client::new(config.clone(), tokens.clone()).map_err(KafkaError::new)?;
        let brokers = properties.get("bootstrap.servers").cloned().unwrap_or_default();
        Ok(Self { brokers, config, tokens, plain, compressing: OnceLock::new() })
    }

    /// Writes a record to a dead-letter topic. Returns after the delivery report. If the topic refuses the record for
    /// its size, first the reason is cut, then every header is dropped that a redrive does not need.
    pub async fn write_dead_letter(
        &self,
        topic: &str,
        record: &Record,
        provenance: &Provenance,
        format: HeaderFormat,
    ) -> Result<(), WriteError> {
        let body = (record.key(), record.value());
        for extent in [Extent::Full, Extent::ShortReason, Extent::Least] {
            match self.send(topic, None, body, &headers(record, provenance, format, extent)).await {
                Err(error) if write_error::is_about_size(&error) => {}
                Err(error) => return Err(WriteError::new(error, topic, &self.brokers)),
                Ok(()) => return Ok(()),
            }
        }
        Err(self.too_large(topic, body, &headers(record, provenance, format, Extent::Full)).await)
    }

    /// Returns whether it may be unable to log in because its token came late.
    pub(crate) fn lacks_token(&self) -> bool {
        self.plain.lacks_token()
    }

    /// Returns those of the topics that do not exist. Blocks for at most `timeout` per topic.
    pub(crate) fn missing_topics<'t>(
        &self,
        topics: &'t [String],
        timeout: Duration,
    ) -> Result<Vec<&'t str>, ClientError> {
        let mut missing = Vec::new();
        let client = self.plain.current()?;
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
        self.plain.take_authentication_error()
    }

    /// Writes a record: uncompressed, or compressed if that is too large.
    pub(super) async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        body: Body<'_>,
        headers: &Headers,
    ) -> Result<(), ClientError> {
        let too_large = match self.plain.send(topic, partition, body, headers).await {
            Err(error) if write_error::is_about_size(&error) => error,
            sent => return sent,
        };
        match self.compressing()?.send(topic, partition, body, headers).await {
            Err(error) if write_error::is_about_compression(&error) => Err(too_large),
            sent => sent,
        }
    }

    /// Describes a record that the topic refused for its size, and the limit.
    pub(super) async fn too_large(&self, topic: &str, (key, value): Body<'_>, headers: &Headers) -> WriteError {
        let header_bytes = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        WriteError::TooLarge(Box::new(TooLarge {
            topic: topic.to_owned(),
            brokers: self.brokers.clone(),
            key_bytes: length(key.map_or(0, <[u8]>::len)),
            value_bytes: length(value.map_or(0, <[u8]>::len)),
            header_bytes: length(header_bytes),
            max_message_bytes: self.max_message_bytes(topic).await,
        }))
    }

    pub(super) fn failed(&self, error: ClientError, topic: &str) -> WriteError {
        WriteError::new(error, topic, &self.brokers)
    }

    fn compressing(&self) -> Result<&Client, ClientError> {
        if let Some(client) = self.compressing.get() {
            return Ok(client);
        }
        let mut config = self.config.clone();
        config.set("compression.type", "zstd").set("compression.level", COMPRESSION_LEVEL);
        let client = Client::new(config, self.tokens.clone())?;
        Ok(self.compressing.get_or_init(|| client))
    }

    /// Requests `max.message.bytes` of a topic. None if the principal lacks the permission.
    async fn max_message_bytes(&self, topic: &str) -> Option<u64> {
        let admin: AdminClient<DefaultClientContext> = self.config.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(DESCRIBE_TIMEOUT));
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        let resource = described.into_iter().next()?.ok()?;
        resource.entry_map().get("max.message.bytes")?.value.as_deref()?.parse().ok()
    }
}

fn length(bytes: usize) -> u64 {
    bytes as u64
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}
