//! What librdkafka's polling thread calls: one atomic step per report, never a wait, never a panic.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
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

use crate::relay::ledger::Completed;
use crate::relay::ledger::Reports;
use crate::relay::ledger::Ticket;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::record::route::printable;
use walrelay_events::internal::Brokers;

use super::Failure;
use super::Waiting;
use super::error::is_lack_of_rights;
use super::partitions::Changed;
use super::partitions::Partitions;
use super::repeats::Repeats;
use super::statistics;
use super::waiting;

/// What the polling thread and the relay thread share.
pub(super) struct Shared {
    reports: Arc<Reports>,
    wake: Arc<Notify>,
    metrics: Metrics,
    failure: Mutex<Option<Failure>>,
    repeats: Mutex<Repeats>,
    /// It was told that all brokers are away, and not yet that one is back.
    all_away: AtomicBool,
    /// Whom librdkafka still knows.
    brokers: Brokers,
    /// How many partitions topics have.
    partitions: Mutex<Partitions>,
    /// What records wait for.
    waiting: Mutex<Option<Waiting>>,
    /// How many requests of this producer have been counted as sent again.
    retries: AtomicU64,
}

impl Shared {
    pub(super) fn new(reports: Arc<Reports>, wake: Arc<Notify>, metrics: Metrics) -> Self {
        Self {
            reports,
            wake,
            metrics,
            failure: Mutex::default(),
            repeats: Mutex::default(),
            all_away: AtomicBool::default(),
            brokers: Brokers::default(),
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

    /// Notes the first failure; what follows it (a purged queue) says nothing new.
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
            tracing::warn!("there are so many topics that further ones are counted together");
        }
        indexed.index
    }

    /// Notes when a record is handed over; before it is, for its report may come at once.
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
                "the number of partitions changed: keys move, and their events are in order only within each partition"
            );
        }
    }

    /// No broker is there. Nothing is on the way, perhaps, and then nobody else would notice.
    fn all_brokers_away(&self, reason: &str) {
        if !self.all_away.swap(true, Relaxed) {
            self.metrics.kafka.lost(Loss::Failed);
            tracing::warn!(reason, "no broker of Kafka is there");
        }
    }

    fn broker_there(&self) {
        if self.all_away.swap(false, Relaxed) {
            tracing::info!("a broker of Kafka is there again");
        }
        // One that is there and takes nothing is told by whoever waits for it.
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

/// Finds the event's id among the headers of a record that came back.
fn event_id(message: &BorrowedMessage<'_>) -> Option<String> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == "event_id")?.value.map(printable)
}

pub(super) struct Context(pub(super) Arc<Shared>);

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, word: usize) {
        self.0.report(result, Ticket::from_word(word));
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "CONFWARN" {
            // It warns of our own settings, which are meant.
            return;
        }
        // What nobody sees must not hold back what somebody should.
        if is_trouble(level) && self.0.is_news(facility, text) {
            tracing::warn!(facility, text, "librdkafka");
        } else {
            tracing::debug!(facility, text, "librdkafka");
        }
    }

    /// Comes every few seconds: nothing else tells that a broker is back while nothing is sent.
    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.0.broker_there();
        }
        self.0.brokers.note(&statistics);
        if self.0.brokers.are_forgotten() {
            self.0.reports.failed();
            self.0.end_with(Failure::forgotten());
        }
        *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting::find(&statistics);
        self.0.learn_partitions(&statistics);
        self.0.metrics.producer.set(Some(statistics::view(&statistics)));
        let retries = statistics.brokers.values().map(|broker| broker.txretries).sum();
        let counted = self.0.retries.swap(retries, Relaxed);
        self.0.metrics.produce_retries.add(retries.saturating_sub(counted));
    }

    /// Called twice for each error event. Only a fatal one ends the publisher; librdkafka goes on trying after the others.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::Fatal) {
            tracing::warn!(reason, "the producer met a fatal error");
            self.0.reports.failed();
            self.0.fail(&error, None, None);
        } else if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.all_brokers_away(reason);
        } else if code.is_some_and(is_lack_of_rights) && self.0.is_news("RIGHTS", reason) {
            tracing::warn!(code = "WR-6731", reason, "a broker of Kafka does not let us in");
        }
    }
}

/// Says whether a line of librdkafka tells of something that is wrong.
pub(super) const fn is_trouble(level: RDKafkaLogLevel) -> bool {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => true,
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => false,
    }
}
