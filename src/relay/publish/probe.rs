//! Checks that brokers answer, before anything is sent to them.
//!
//! It requests no topic: a client without topics requests the list of brokers, and its statistics show the response.
//! Metadata of all topics of a large cluster takes megabytes, and a request for a topic that the principal may not
//! describe is logged by the brokers as denied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
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
use walrelay_events::internal::TopicDescription;
use walrelay_events::internal::TopicSettings;
use walrelay_events::internal::describe_configs;
use walrelay_events::internal::describe_topics;
use walrelay_events::internal::is_lack_of_rights;
use walrelay_events::internal::is_trouble;
use walrelay_events::internal::without_duration;

use super::error::Error;
use super::error::Failure;
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
    Probe::start(settings, timeout)?.connect(timeout, timeout)
}

/// A client that sends no record and creates nothing. Each of its functions blocks.
pub struct Probe {
    producer: BaseProducer<ProbeContext>,
    tokens: Option<Tokens>,
    brokers: String,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Probe {
    /// Creates the client, which connects in the background. A token must come within `timeout`.
    pub fn start(settings: &Settings, timeout: Duration) -> Result<Self, Error> {
        let mut config = settings.client()?;
        config.set("statistics.interval.ms", INTERVAL_MS);
        // Brokers that expect TLS close the connection, which librdkafka says only in its log.
        config.set("log.connection.close", "true").set_log_level(RDKafkaLogLevel::Info);
        let tokens = settings.tokens()?;
        if let Some(tokens) = &tokens {
            tokens.wait(timeout).map_err(|reason| Error::Token { reason })?;
        }
        let context = ProbeContext { tokens: tokens.clone(), ..ProbeContext::default() };
        let producer = BaseProducer::from_config_and_context(&config, context)
            .map_err(|source| Error::Configuration { source })?;
        Ok(Self { producer, tokens, brokers: config.get("bootstrap.servers").unwrap_or_default().to_owned() })
    }

    /// Waits until brokers answer. After a first failure it waits for another attempt, but not longer than `patience`.
    pub fn connect(&self, timeout: Duration, patience: Duration) -> Result<Cluster, Error> {
        let mut deadline = Instant::now() + timeout;
        let mut has_failed = false;
        while Instant::now() < deadline {
            self.producer.poll(INTERVAL);
            // Brokers that have just lost their controller return an empty list.
            if let brokers @ 1.. = self.producer.context().brokers.load(Relaxed) {
                return Ok(Cluster { id: self.producer.client().fetch_cluster_id(INTERVAL), brokers });
            }
            if !has_failed && self.producer.context().failure().is_some() {
                has_failed = true;
                deadline = deadline.min(Instant::now() + patience);
            }
        }
        Err(self.unreachable())
    }

    fn unreachable(&self) -> Error {
        if let Some(tokens) = self.tokens.as_ref().filter(|tokens| tokens.are_late()) {
            let reason = tokens.failure().unwrap_or_else(|| "it came too late for the client".to_owned());
            return Error::Token { reason };
        }
        let brokers = self.brokers.clone();
        // A response without brokers still has the id of the cluster.
        let has_answered = self.producer.client().fetch_cluster_id(Duration::ZERO).is_some();
        let code =
            if has_answered { RDKafkaErrorCode::BrokerNotAvailable } else { RDKafkaErrorCode::BrokerTransportFailure };
        match self.producer.context().refusal() {
            Some(reason) => Error::Refused { brokers, reason },
            None => Error::Unreachable { brokers, reason: self.producer.context().failure(), code },
        }
    }

    /// Waits for the producer id that idempotence needs; none if no broker answers in time.
    pub fn await_producer_id(&self, timeout: Duration) -> Option<Result<(), Failure>> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            self.producer.poll(INTERVAL);
            if let Some((code, reason)) = self.producer.client().fatal_error() {
                return Some(Err(Failure::of_producer(code, &reason)));
            }
            if self.producer.context().has_producer_id.load(Relaxed) {
                return Some(Ok(()));
            }
        }
        None
    }

    /// Describes each of these topics, and creates none; none if the brokers are too old for that.
    pub fn topics(&self, names: &[String], timeout: Duration) -> Result<Option<Vec<TopicDescription>>, Error> {
        let mut found = match describe_topics(self.producer.client(), names, timeout) {
            Ok(found) => found,
            Err(RDKafkaErrorCode::UnsupportedFeature) => return Ok(None),
            Err(code) => return Err(self.unanswered_with(code)),
        };
        for name in names {
            if !found.iter().any(|topic| topic.name == *name) {
                let error = Some(RDKafkaErrorCode::BadMessage);
                found.push(TopicDescription { name: name.clone(), error, partitions: Vec::new(), rights: None });
            }
        }
        Ok(Some(found))
    }

    /// The error of brokers that gave the list of brokers, and answer no request at the addresses in it.
    pub fn unanswered(&self) -> Error {
        self.unanswered_with(RDKafkaErrorCode::RequestTimedOut)
    }

    fn unanswered_with(&self, code: RDKafkaErrorCode) -> Error {
        let brokers = format!("the addresses that {} advertises", self.brokers);
        Error::Unreachable { brokers, reason: self.producer.context().failure(), code }
    }

    /// Says whether a connection has failed.
    pub fn has_failed(&self) -> bool {
        self.producer.context().failure().is_some()
    }

    /// Reads the settings of topics.
    pub fn settings(&self, names: &[String], timeout: Duration) -> Result<BTreeMap<String, TopicSettings>, KafkaError> {
        describe_configs(self.producer.client(), names, timeout).map_err(KafkaError::AdminOp)
    }
}

/// Collects the number of brokers, and the reason of a failed authentication or connection.
#[derive(Default)]
struct ProbeContext {
    tokens: Option<Tokens>,
    brokers: AtomicUsize,
    has_producer_id: AtomicBool,
    refusal: Mutex<Option<String>>,
    failure: Mutex<Option<String>>,
    repeats: Mutex<Repeats>,
}

impl ProbeContext {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, reason: &str) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(without_duration(reason).to_owned());
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for ProbeContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.tokens.as_ref().ok_or("set kafka.oauth.token_command")?.for_client()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "FAIL" {
            // After the name of a thread.
            self.failed(text.split_once("]: ").map_or(text, |(_, reason)| reason));
        }
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if facility != "CONFWARN" && is_trouble(level) && repeats.is_news(facility, text, now_micros()) {
            tracing::warn!(facility, text, "librdkafka");
        }
    }

    fn stats(&self, statistics: Statistics) {
        // Bootstrap servers have no number.
        let named = statistics.brokers.values().filter(|broker| broker.nodeid >= 0).count();
        self.brokers.store(named, Relaxed);
        self.has_producer_id.store(statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned"), Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(reason, "librdkafka");
        let code = error.rdkafka_error_code();
        // That all brokers are down says less than why one of them is.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.failed(reason);
        }
        if code.is_some_and(is_lack_of_rights) {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(without_duration(reason).to_owned());
        }
    }
}

impl ProducerContext for ProbeContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
