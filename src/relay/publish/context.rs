//! What librdkafka's polling thread calls: one atomic step per report, never a wait, never a panic.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::message::DeliveryResult;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::Statistics;
use tokio::sync::Notify;

use crate::relay::ledger::Reports;
use crate::relay::ledger::Ticket;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::now_micros;

use super::Failure;

/// How long the same kind of log line of librdkafka is kept back after one was written.
const LOG_PAUSE_MICROS: u64 = 30_000_000;

/// What the polling thread and the relay thread share.
pub(super) struct Shared {
    reports: Arc<Reports>,
    wake: Arc<Notify>,
    metrics: Metrics,
    failure: Mutex<Option<Failure>>,
    logged_micros: AtomicU64,
}

impl Shared {
    pub(super) fn new(reports: Arc<Reports>, wake: Arc<Notify>, metrics: Metrics) -> Self {
        Self { reports, wake, metrics, failure: Mutex::new(None), logged_micros: AtomicU64::new(0) }
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the first failure; what follows it (a purged queue) says nothing new.
    pub(super) fn fail(&self, error: &KafkaError, topic: Option<&str>, event_id: Option<String>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Failure::new(error, topic, event_id);
        if failure.as_ref().is_none_or(|earlier| earlier.is_vaguer_than(&found)) {
            *failure = Some(found);
        }
        drop(failure);
        self.wake.notify_one();
    }

    pub(super) fn index_topic(&self, topic: &str) -> u16 {
        let indexed = self.metrics.topics.index(topic);
        if indexed.is_first_overflow {
            tracing::warn!("there are so many topics that further ones are counted together");
        }
        indexed.index
    }

    pub(super) fn observe(&self, committed_micros: i64) {
        let since = now_micros().saturating_sub(u64::try_from(committed_micros).unwrap_or_default());
        self.metrics.commit_to_ack.observe(Duration::from_micros(since));
    }

    fn report(&self, result: &DeliveryResult<'_>, ticket: Ticket) {
        match result {
            Ok(_) => {
                self.metrics.topics.published(ticket.topic(), ticket.bytes());
                let delivered = self.reports.delivered(ticket);
                if let Some(committed_micros) = delivered.completed {
                    self.observe(committed_micros);
                }
                if delivered.wake {
                    self.wake.notify_one();
                }
            }
            Err((error, message)) => {
                self.reports.failed();
                self.fail(error, Some(message.topic()), event_id(message));
            }
        }
    }
}

/// Finds the event's id among the headers of a record that came back.
fn event_id(message: &BorrowedMessage<'_>) -> Option<String> {
    let headers = message.headers()?;
    let value = headers.iter().find(|header| header.key == "event_id")?.value?;
    Some(String::from_utf8_lossy(value).chars().take(64).flat_map(char::escape_default).collect())
}

pub(super) struct Context(pub(super) Arc<Shared>);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, word: usize) {
        self.0.report(result, Ticket::from_word(word));
    }
}

impl ClientContext for Context {
    /// With brokers away librdkafka repeats itself several times a second: one line in a while says as much.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "CONFWARN" {
            // It warns of our own settings, which are meant.
            return;
        }
        let now = now_micros();
        let last = self.0.logged_micros.load(Relaxed);
        if now.saturating_sub(last) < LOG_PAUSE_MICROS {
            tracing::debug!(facility, text, "librdkafka");
            return;
        }
        self.0.logged_micros.store(now, Relaxed);
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, text, "librdkafka"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, text, "librdkafka");
            }
        }
    }

    fn stats(&self, _: Statistics) {}

    /// Called twice for each error event. Only a fatal one ends the publisher; the rest shows in the log above.
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::warn!(reason, "the producer met a fatal error");
            self.0.reports.failed();
            self.0.fail(&error, None, None);
        }
    }
}
