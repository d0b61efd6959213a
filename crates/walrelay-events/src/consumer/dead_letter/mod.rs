//! Dead letters: where events go that no handler will take.
//!
//! A letter counts as delivered only by its delivery report; until then nothing behind it in its partition is committed. A record that
//! is given up twice is there twice, under the same event id.

mod letter;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;
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

use crate::consumer::record::Record;
use crate::kafka::Brokers;
use crate::kafka::is_of_connections;

pub use letter::Names;
pub use letter::Provenance;
pub use read::Letter;
pub use read::read;

/// The header of a record that was brought back from a dead-letter topic: `topic[partition]@offset` of the letter.
const FROM: &str = "redriven_from";
/// The most that librdkafka takes.
const RECORD_BYTES_MAX: &str = "1000000000";
/// One attempt to deliver a letter.
const ATTEMPT_MS: &str = "10000";

/// Brings records to topics, one delivery report each.
pub struct Producer {
    config: ClientConfig,
    client: Mutex<Arc<ThreadedProducer<Context>>>,
}

/// Keeps why brokers refuse us: librdkafka tells it in passing, and whoever waits only hears that nobody answers.
#[derive(Default)]
struct Context {
    refused: Mutex<Option<KafkaError>>,
    brokers: Brokers,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "the producer of dead letters");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.brokers.note(&statistics);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, asked: Self::DeliveryOpaque) {
        // Whoever asked may have left.
        let _ = asked.send(result.as_ref().map(drop).map_err(|(error, _)| error.clone()));
    }
}

impl Producer {
    /// Makes a producer; of these librdkafka properties it takes those that say how brokers are reached.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        for (name, value) in properties.iter().filter(|(name, _)| is_of_connections(name)) {
            client.set(name, value);
        }
        client
            // Not idempotent: such a producer is done for once it was refused, and this one goes on when the rights are there. A
            // letter may be there twice anyway. One request at a time keeps the order of letters.
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "1")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.propagation.max.ms", ATTEMPT_MS)
            .set("message.timeout.ms", ATTEMPT_MS)
            .set("linger.ms", "0")
            .set("statistics.interval.ms", "5000")
            // What fitted into a topic once fits again: the broker decides, not this client.
            .set("message.max.bytes", RECORD_BYTES_MAX);
        let made = ThreadedProducer::from_config_and_context(&client, Context::default())?;
        Ok(Self { config: client, client: Mutex::new(Arc::new(made)) })
    }

    /// Gives the client; a new one where the last has forgotten every broker.
    fn client(&self) -> Result<Arc<ThreadedProducer<Context>>, KafkaError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.context().brokers.are_forgotten() {
            let new = Arc::new(ThreadedProducer::from_config_and_context(&self.config, Context::default())?);
            let lost = std::mem::replace(&mut *client, new);
            // Its end is waited for, and not here.
            thread::spawn(move || drop(lost));
        }
        Ok(Arc::clone(&client))
    }

    /// Brings a record to the dead-letter topic. Returns when a broker has it.
    pub async fn bury(
        &self,
        topic: &str,
        record: &Record,
        provenance: &Provenance,
        names: Names,
    ) -> Result<(), KafkaError> {
        self.send(topic, None, (record.key(), record.value()), letter::headers(record, provenance, names)).await
    }

    /// Brings a letter back to a topic, as it was; a further header says that it comes from here. In the topic it came from it
    /// goes to its partition, whatever had chosen that; if partitions were added since, newer events of its key may be in
    /// another one. Then notes in the dead-letter topic that this was done. A crash between the two brings it back once more.
    pub async fn redrive(&self, letter: &Letter, topic: &str) -> Result<(), KafkaError> {
        let record = &letter.record;
        let own = letter::own_headers(record).filter(|(name, _)| *name != FROM);
        let mut headers: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
        headers.push((FROM.to_owned(), Some(record.to_string().into_bytes())));
        let body = (record.key(), record.value());
        let home = letter.provenance.as_ref().filter(|it| it.topic == topic && it.partition >= 0);
        let home = home.map(|it| it.partition);
        match self.send(topic, home, body, headers.clone()).await {
            // The topic was made anew with fewer.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                self.send(topic, None, body, headers).await?;
            }
            sent => sent?,
        }
        let note = vec![(read::REDRIVEN.to_owned(), Some(read::place(record).into_bytes()))];
        self.send(record.topic(), None, (record.key(), None), note).await
    }

    async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Vec<(String, Option<Vec<u8>>)>,
    ) -> Result<(), KafkaError> {
        let (asked, answer) = oneshot::channel();
        let mut base = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(asked));
        base.partition = partition;
        base.key = key;
        base.payload = value;
        let empty = OwnedHeaders::new_with_capacity(headers.len());
        let insert = |all: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            all.insert(Header { key, value: value.as_deref() })
        };
        base.headers = Some(headers.iter().fold(empty, insert));
        self.client()?.send(base).map_err(|(error, _)| error)?;
        answer.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Tells why brokers refuse us, if they have since this was last asked.
    pub(super) fn refused(&self) -> Option<KafkaError> {
        let client = self.client().ok()?;
        client.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says whether topics are there, asking brokers for at most `limit` each. Blocks.
    pub fn missing<'t>(&self, topics: &'t [String], limit: Duration) -> Result<Vec<&'t str>, KafkaError> {
        let mut missing = Vec::new();
        let client = self.client()?;
        for topic in topics {
            let metadata = client.client().fetch_metadata(Some(topic), limit)?;
            let is_there =
                metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty());
            if !is_there {
                missing.push(topic.as_str());
            }
        }
        Ok(missing)
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}
