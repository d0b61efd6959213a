//! Asks the brokers who they are, before anything is sent to them.
//!
//! No topic is asked for: a client that connects and has no topic asks by itself for the list of brokers, and its statistics show
//! what the answer was. An answer about all topics of a large cluster takes megabytes, and to ask for one that the principal may
//! not describe leaves a denial in the brokers' log.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

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

use super::context::is_trouble;
use super::error::Error;
use super::error::is_lack_of_rights;
use super::repeats::Repeats;
use super::repeats::said;
use super::settings::Settings;

/// How often the client is asked what it has heard.
const INTERVAL: Duration = Duration::from_millis(10);
const INTERVAL_MS: &str = "10";

/// What a probe found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// The cluster's id, if the brokers name it.
    pub id: Option<String>,
    /// How many brokers there are.
    pub brokers: usize,
}

/// Asks the brokers who they are. Blocks for at most `timeout`.
pub fn probe(settings: &Settings, timeout: Duration) -> Result<Cluster, Error> {
    let mut config = settings.client()?;
    config.set("statistics.interval.ms", INTERVAL_MS);
    let producer = BaseProducer::from_config_and_context(&config, Asking::default())
        .map_err(|source| Error::Configuration { source })?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        producer.poll(INTERVAL);
        // Brokers that have just lost their controller name none.
        if let brokers @ 1.. = producer.context().brokers.load(Relaxed) {
            return Ok(Cluster { id: producer.client().fetch_cluster_id(INTERVAL), brokers });
        }
    }
    let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
    // An answer without brokers has the id of the cluster all the same.
    let has_answered = producer.client().fetch_cluster_id(Duration::ZERO).is_some();
    let code =
        if has_answered { RDKafkaErrorCode::BrokerNotAvailable } else { RDKafkaErrorCode::BrokerTransportFailure };
    Err(match producer.context().refusal() {
        Some(reason) => Error::Refused { brokers, reason },
        None => Error::Unreachable { brokers, source: KafkaError::MetadataFetch(code) },
    })
}

/// Hears which brokers an answer named, and whether a broker refused the login.
#[derive(Default)]
struct Asking {
    brokers: AtomicUsize,
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

    fn stats(&self, statistics: Statistics) {
        // Those of `kafka.brokers` have no number of their own.
        let named = statistics.brokers.values().filter(|broker| broker.nodeid >= 0).count();
        self.brokers.store(named, Relaxed);
    }

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
