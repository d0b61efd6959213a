//! Checks that brokers answer, before anything is sent to them.
//!
//! It requests no topic: a client without topics requests the list of brokers, and its statistics show the response.
//! Metadata of all topics of a large cluster takes megabytes, and a request for a topic that the principal may not
//! describe is logged by the brokers as denied.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::client::OAuthToken;
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
use walrelay_events::internal::Repeats;
use walrelay_events::internal::Tokens;
use walrelay_events::internal::is_lack_of_rights;
use walrelay_events::internal::is_trouble;
use walrelay_events::internal::without_duration;

use super::error::Error;
use super::settings::Settings;

/// How often the client is polled.
const INTERVAL: Duration = Duration::from_millis(10);
const INTERVAL_MS: &str = "10";

/// The result of a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// The cluster's id, if it is known.
    pub id: Option<String>,
    /// The number of brokers.
    pub brokers: usize,
}

/// Requests the list of brokers. Blocks for at most `timeout`.
pub fn probe(settings: &Settings, timeout: Duration) -> Result<Cluster, Error> {
    let mut config = settings.client()?;
    config.set("statistics.interval.ms", INTERVAL_MS);
    let tokens = settings.tokens()?;
    if let Some(tokens) = &tokens {
        tokens.wait(timeout).map_err(|reason| Error::Token { reason })?;
    }
    let context = ProbeContext { tokens: tokens.clone(), ..ProbeContext::default() };
    let producer =
        BaseProducer::from_config_and_context(&config, context).map_err(|source| Error::Configuration { source })?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        producer.poll(INTERVAL);
        // Brokers that have just lost their controller return an empty list.
        if let brokers @ 1.. = producer.context().brokers.load(Relaxed) {
            return Ok(Cluster { id: producer.client().fetch_cluster_id(INTERVAL), brokers });
        }
    }
    if let Some(tokens) = tokens.filter(Tokens::are_late) {
        let reason = tokens.failure().unwrap_or_else(|| "it came too late for the client".to_owned());
        return Err(Error::Token { reason });
    }
    let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
    // A response without brokers still has the id of the cluster.
    let has_answered = producer.client().fetch_cluster_id(Duration::ZERO).is_some();
    let code =
        if has_answered { RDKafkaErrorCode::BrokerNotAvailable } else { RDKafkaErrorCode::BrokerTransportFailure };
    Err(match producer.context().refusal() {
        Some(reason) => Error::Refused { brokers, reason },
        None => Error::Unreachable { brokers, source: KafkaError::MetadataFetch(code) },
    })
}

/// Collects the number of brokers, and the reason of a failed authentication.
#[derive(Default)]
struct ProbeContext {
    tokens: Option<Tokens>,
    brokers: AtomicUsize,
    refusal: Mutex<Option<String>>,
    repeats: Mutex<Repeats>,
}

impl ProbeContext {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for ProbeContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.tokens.as_ref().ok_or("set kafka.oauth.token_command")?.for_client()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if facility != "CONFWARN" && is_trouble(level) && repeats.is_news(facility, text, now_micros()) {
            tracing::warn!(facility, text, "librdkafka");
        }
    }

    fn stats(&self, statistics: Statistics) {
        // Bootstrap servers have no number.
        let named = statistics.brokers.values().filter(|broker| broker.nodeid >= 0).count();
        self.brokers.store(named, Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(reason, "librdkafka");
        if error.rdkafka_error_code().is_some_and(is_lack_of_rights) {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(without_duration(reason).to_owned());
        }
    }
}

impl ProducerContext for ProbeContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
