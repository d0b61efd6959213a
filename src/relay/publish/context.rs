//! The callbacks of librdkafka's polling thread: one atomic step per delivery report, no blocking, no panic.

use std::error::Error;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::client::OAuthToken;
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

use crate::relay::ledger::Completed;
use crate::relay::ledger::Reports;
use crate::relay::ledger::Ticket;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::record::route::printable;
use walrelay_events::internal::Brokers;
use walrelay_events::internal::Credentials;
use walrelay_events::internal::Repeats;
use walrelay_events::internal::Tokens;
use walrelay_events::internal::Waiting;
use walrelay_events::internal::is_lack_of_rights;
use walrelay_events::internal::is_trouble;

use super::error::Failure;
use super::partitions::Changed;
use super::partitions::Partitions;
use super::statistics;

/// What the polling thread and the relay thread share.
pub(super) struct Shared {
    reports: Arc<Reports>,
    wake: Arc<Notify>,
    metrics: Metrics,
    failure: Mutex<Option<Failure>>,
    repeats: Mutex<Repeats>,
    /// All brokers are down, and none is up again yet.
    all_down: AtomicBool,
    /// The brokers that librdkafka knows.
    brokers: Brokers,
    /// The number of partitions of each topic.
    partitions: Mutex<Partitions>,
    /// Why records are not acknowledged.
    waiting: Mutex<Option<Waiting>>,
    /// The retries of this producer that are already counted.
    retries: AtomicU64,
}

impl Shared {
    pub(super) fn new(reports: Arc<Reports>, wake: Arc<Notify>, metrics: Metrics, credentials: Credentials) -> Self {
        Self {
            reports,
            wake,
            metrics,
            failure: Mutex::default(),
            repeats: Mutex::default(),
            all_down: AtomicBool::default(),
            brokers: Brokers::new(credentials),
            partitions: Mutex::default(),
            waiting: Mutex::default(),
            retries: AtomicU64::default(),
        }
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the first failure; its consequences, such as a purged queue, add nothing.
    pub(super) fn fail(&self, error: &KafkaError, topic: Option<&str>, event_id: Option<String>) {
        self.end_with(Failure::new(error, topic, event_id));
    }

    fn end_with(&self, found: Failure) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|earlier| earlier.is_vaguer_than(&found)) {
            *failure = Some(found);
        }
        drop(failure);
        self.wake.notify_one();
    }

    pub(super) fn index_topic(&self, topic: &str) -> u16 {
        let indexed = self.metrics.topics.index(topic);
        if indexed.is_first_overflow {
            tracing::warn!("too many topics: further ones are counted together as __other__");
        }
        indexed.index
    }

    /// Records the time of enqueueing, before it happens: the report may come at once.
    pub(super) fn handed(&self, ticket: Ticket) {
        self.reports.handed(ticket, i64::try_from(now_micros()).unwrap_or_default());
    }

    pub(super) fn observe(&self, completed: Completed) {
        let now = now_micros();
        let since = |micros: i64| Duration::from_micros(now.saturating_sub(u64::try_from(micros).unwrap_or_default()));
        self.metrics.commit_to_ack.observe(since(completed.committed_micros));
        if completed.handed_micros > 0 {
            self.metrics.publish_duration.observe(since(completed.handed_micros));
        }
    }

    pub(super) fn aged(&self, age: Duration) {
        self.metrics.outbox_age.observe(age);
    }

    pub(super) fn timestamp_replaced(&self) {
        self.metrics.timestamps_replaced.increment();
    }

    fn is_news(&self, facility: &str, text: &str) -> bool {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).is_news(facility, text, now_micros())
    }

    fn learn_partitions(&self, statistics: &Statistics) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for Changed { topic, before, now } in partitions.learn(statistics) {
            tracing::warn!(
                code = "WR-6936",
                topic,
                before,
                now,
                "number of partitions changed: keys move to other partitions, and their events are ordered only within \
                 each"
            );
        }
    }

    /// All brokers are down. If nothing is in flight, nothing else notices that.
    fn all_brokers_down(&self, reason: &str) {
        if !self.all_down.swap(true, Relaxed) {
            self.metrics.kafka.lost(Loss::Failed);
            tracing::warn!(reason, "all brokers are down");
        }
    }

    fn brokers_up(&self) {
        if self.all_down.swap(false, Relaxed) {
            tracing::info!("brokers are up");
        }
        // A broker that is up and acknowledges nothing is a stall, which the relay thread reports.
        if self.metrics.state.load() == State::Streaming {
            self.metrics.kafka.connected();
        }
    }

    fn report(&self, result: &DeliveryResult<'_>, ticket: Ticket) {
        match result {
            Ok(_) => {
                self.metrics.topics.published(ticket.topic(), ticket.bytes());
                let delivered = self.reports.delivered(ticket);
                if let Some(completed) = delivered.completed {
                    self.observe(completed);
                }
                if delivered.wake {
                    self.wake.notify_one();
                }
            }
            Err((error, message)) => {
                self.reports.failed();
                let mut failure = Failure::new(error, Some(message.topic()), event_id(message));
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) {
                    failure.lacks(message.topic(), message.partition(), message.key());
                }
                self.end_with(failure);
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.metrics.producer.set(None);
    }
}

/// Finds the event's id in the headers of a record that failed.
fn event_id(message: &BorrowedMessage<'_>) -> Option<String> {
    let headers = message.headers()?;
    let named = headers.iter().find(|header| header.key == "event_id");
    // The preset debezium sends it first, as "id".
    let id = || headers.iter().next().filter(|header| header.key == "id");
    named.or_else(id)?.value.map(printable)
}

pub(super) struct PublisherContext(Arc<Shared>, Option<Tokens>);

impl PublisherContext {
    pub(super) const fn new(shared: Arc<Shared>, tokens: Option<Tokens>) -> Self {
        Self(shared, tokens)
    }
}

impl ProducerContext for PublisherContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, word: usize) {
        self.0.report(result, Ticket::from_word(word));
    }
}

impl ClientContext for PublisherContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.1.as_ref().ok_or("set kafka.oauth.token_command")?.for_client()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "CONFWARN" {
            // It warns about settings that walrelay uses on purpose.
            return;
        }
        // A line that is not logged must not suppress one that is.
        if is_trouble(level) && self.0.is_news(facility, text) {
            tracing::warn!(facility, text, "librdkafka");
        } else {
            tracing::debug!(facility, text, "librdkafka");
        }
    }

    /// Called every few seconds. While nothing is sent, only the statistics show that a broker is up again.
    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.0.brokers_up();
        }
        self.0.brokers.note(&statistics);
        if let Some(reason) = self.0.brokers.lost() {
            self.0.reports.failed();
            self.0.end_with(Failure::of_client(reason));
        }
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::find(&statistics);
        self.0.learn_partitions(&statistics);
        self.0.metrics.producer.set(Some(statistics::view(&statistics)));
        let retries = statistics.brokers.values().map(|broker| broker.txretries).sum();
        let counted = self.0.retries.swap(retries, Relaxed);
        self.0.metrics.produce_retries.add(retries.saturating_sub(counted));
    }

    /// Called twice for each error event. Only a fatal error ends the publisher; after the others librdkafka retries.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            tracing::warn!(reason, "producer failed with a fatal error");
            self.0.reports.failed();
            self.0.fail(&error, None, None);
        } else if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.all_brokers_down(reason);
        } else if code.is_some_and(is_lack_of_rights) && self.0.is_news("RIGHTS", reason) {
            tracing::warn!(code = "WR-6731", reason, "kafka authentication failed");
        }
    }
}
