//! One client of librdkafka: sends records, and passes on what its polling thread reports.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::message::Header;
use rdkafka::message::Message as _;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ProducerContext;
use rdkafka::producer::ThreadedProducer;
use rdkafka::statistics::Statistics;

use crate::kafka::Brokers;
use crate::kafka::Repeats;
use crate::kafka::Retired;
use crate::kafka::Tokens;
use crate::kafka::Waiting;
use crate::kafka::is_lack_of_rights;
use crate::kafka::is_trouble;
use crate::kafka::smaller_batch;
use crate::kafka::without_duration;
use crate::publisher::record::Record;

/// Receives what a client reports, on its polling thread.
pub(super) trait Reports: Send + Sync + 'static {
    /// A record has its delivery report: partition and offset, or why it failed.
    fn report(&self, number: usize, result: Result<(i32, i64), ClientError>);

    /// The client cannot deliver any more.
    fn broken(&self, why: &str);
}

/// What every client of a publisher is created from.
pub(super) struct Setup {
    pub(super) config: ClientConfig,
    pub(super) tokens: Option<Tokens>,
}

impl Setup {
    /// Halves the batch size.
    pub(super) fn shrink_batches(&mut self) {
        let now = self.config.get("batch.size").and_then(|bytes| bytes.parse().ok());
        self.config.set("batch.size", smaller_batch(now).to_string());
    }
}

/// A producer of librdkafka.
pub(super) struct Client(ThreadedProducer<Callbacks>);

impl Client {
    /// Creates a client. It connects in the background.
    pub(super) fn new(setup: &Setup, reports: Arc<dyn Reports>) -> Result<Self, ClientError> {
        let callbacks = Callbacks {
            reports,
            tokens: setup.tokens.clone(),
            brokers: Brokers::of(&setup.config),
            are_all_down: AtomicBool::default(),
            repeats: Mutex::default(),
            waiting: Mutex::default(),
            authentication: Mutex::default(),
        };
        ThreadedProducer::from_config_and_context(&setup.config, callbacks).map(Self)
    }

    /// Enqueues a record. librdkafka copies the bytes.
    pub(super) fn send(&self, record: &Record, number: usize) -> Result<(), ClientError> {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(empty, |headers, (key, text)| headers.insert(Header { key, value: Some(text.as_bytes()) }));
        let mut base = BaseRecord::<str, str, usize>::with_opaque_to(&record.topic, number)
            .payload(&record.value)
            .headers(headers)
            .timestamp(record.timestamp_millis);
        base.key = record.key.as_deref();
        self.0.send(base).map_err(|(error, _)| error)
    }

    /// Returns whether it has no record.
    pub(super) fn is_idle(&self) -> bool {
        self.0.in_flight_count() == 0
    }

    /// Returns why records are not acknowledged, as far as it is known.
    pub(super) fn waiting(&self) -> Option<String> {
        let callbacks = self.0.context();
        let authentication = lock(&callbacks.authentication).clone();
        authentication.or_else(|| lock(&callbacks.waiting).as_ref().map(ToString::to_string))
    }

    /// Purges the queue. The result lives until the brokers have answered.
    pub(super) fn retire(self) -> Retired {
        Retired::new(self.0)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// The callbacks of the polling thread. None waits for anything but short locks.
struct Callbacks {
    reports: Arc<dyn Reports>,
    tokens: Option<Tokens>,
    brokers: Brokers,
    are_all_down: AtomicBool,
    repeats: Mutex<Repeats>,
    waiting: Mutex<Option<Waiting>>,
    /// Why the last authentication failed. librdkafka retries it.
    authentication: Mutex<Option<String>>,
}

impl Callbacks {
    fn is_news(&self, facility: &str, text: &str) -> bool {
        lock(&self.repeats).is_news(facility, text, now_micros())
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let result = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.reports.report(number, result);
    }
}

impl ClientContext for Callbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.as_ref().ok_or("set Config::token_provider")?.for_client()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // It warns about settings that walrelay uses on purpose.
        if facility == "CONFWARN" {
            return;
        }
        if is_trouble(level) && self.is_news(facility, text) {
            tracing::warn!(facility, text, "librdkafka");
        } else {
            tracing::debug!(facility, text, "librdkafka");
        }
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            *lock(&self.authentication) = None;
            if self.are_all_down.swap(false, Relaxed) {
                tracing::info!("brokers are up");
            }
        }
        self.brokers.note(&statistics);
        if let Some(reason) = self.brokers.lost() {
            self.reports.broken(reason);
        }
        *lock(&self.waiting) = Waiting::find(&statistics);
    }

    /// Called twice for each error event. Only a fatal error ends the client; after the others librdkafka retries.
    fn error(&self, error: ClientError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            self.reports.broken(reason);
        } else if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            if !self.are_all_down.swap(true, Relaxed) {
                tracing::warn!(reason, "all brokers are down");
            }
        } else if code.is_some_and(is_lack_of_rights) {
            if self.is_news("RIGHTS", reason) {
                tracing::warn!(reason, "kafka authentication failed");
            }
            *lock(&self.authentication) = Some(without_duration(reason).to_owned());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time of the Unix clock.
pub(super) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
