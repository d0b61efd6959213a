//! Asking the brokers who they are, before anything is sent to them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::BaseProducer;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::Statistics;

use crate::relay::metrics::now_micros;

use super::Error;
use super::Settings;
use super::context::is_trouble;
use super::error::is_lack_of_rights;
use super::repeats::Repeats;
use super::repeats::said;

/// What a probe found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// The cluster's id, if the brokers tell it.
    pub id: Option<String>,
    /// How many brokers there are.
    pub brokers: usize,
    /// The names of the topics that we may see.
    pub topics: Vec<String>,
}

/// Asks the brokers who they are. Blocks for at most `timeout`.
pub fn probe(settings: &Settings, timeout: Duration) -> Result<Cluster, Error> {
    let config = settings.client()?;
    let producer = BaseProducer::from_config_and_context(&config, Asking::default())
        .map_err(|source| Error::Configuration { source })?;
    let named = producer.client().fetch_metadata(None, timeout).and_then(|metadata| {
        // Brokers that have just lost their controller name none.
        let is_empty = metadata.brokers().is_empty();
        if is_empty { Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable)) } else { Ok(metadata) }
    });
    match named {
        Ok(metadata) => {
            let topics = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
            Ok(Cluster { id: producer.client().fetch_cluster_id(timeout), brokers: metadata.brokers().len(), topics })
        }
        Err(source) => {
            let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
            // Only now is it told what librdkafka has met meanwhile.
            producer.poll(DRAIN);
            Err(match producer.context().refusal() {
                Some(reason) => Error::Refused { brokers, reason },
                None => Error::Unreachable { brokers, source },
            })
        }
    }
}

/// How long what librdkafka has to tell is listened to. It lies ready.
const DRAIN: Duration = Duration::from_millis(10);

/// Hears what the answer to the question itself does not tell: that a broker did not let us in, or why it cannot be reached.
#[derive(Default)]
struct Asking {
    refusal: Mutex<Option<String>>,
    repeats: Mutex<Repeats>,
}

impl Asking {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if facility != "CONFWARN" && is_trouble(level) && repeats.is_news(facility, text, now_micros()) {
            tracing::warn!(facility, text, "librdkafka");
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(reason, "librdkafka");
        if error.rdkafka_error_code().is_some_and(is_lack_of_rights) {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(said(reason).to_owned());
        }
    }
}

impl ProducerContext for Asking {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
