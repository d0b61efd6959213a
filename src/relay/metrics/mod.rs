//! What the relay knows about itself, as numbers that others may read at any moment.
//!
//! The relay thread writes, the scrape reads; nothing here waits for the other side for longer than a copy takes. Times are
//! microseconds since 1970 by the clock of this machine, unless a field says that it is the server's; positions are the
//! numbers of the log; 0 means "not yet". Ages and lags are not stored but derived when somebody asks, so that they go on
//! growing when the relay hangs.
//!
//! Names, labels and units of the exposition are not decided here: see the level above.

mod failures;
mod latest;
mod link;
mod producer;
mod slot;
mod state;
mod topics;

use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::lsn::Lsn;
use crate::measure::Counter;
use crate::measure::Gauge;
use crate::measure::Histogram;
use walrelay_events::fault::Diagnose;

pub use failures::Component;
pub use failures::Failure;
pub use failures::FailureCount;
pub use failures::Failures;
pub use latest::Latest;
pub use link::Link;
pub use link::Loss;
pub use producer::BrokerView;
pub use producer::ProducerView;
pub use producer::Quantiles;
pub use slot::SlotView;
pub use slot::WalStatus;
pub use state::Role;
pub use state::State;
pub use state::StateCell;
pub use topics::Indexed;
pub use topics::Published;
pub use topics::Topics;

/// A position that waits longer to be stored is a reason not to be ready: the server keeps its log, and more of it each second.
pub const POSITION_WAIT_MAX: Duration = Duration::from_secs(30);

/// Everything the relay measures. A clone is another hand on the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What the relay is doing.
    pub state: StateCell,
    /// When it began to do that.
    pub state_since_micros: Gauge,
    /// The link to PostgreSQL's walsender.
    pub postgres: Link,
    /// The link to Kafka.
    pub kafka: Link,
    /// What went wrong, by code, and what went wrong last.
    pub failures: Failures,

    /// Up to where the log has been received.
    pub received_lsn: Gauge,
    /// Up to where the log has been confirmed to the server.
    pub flushed_lsn: Gauge,
    /// The end of the server's log, as last heard.
    pub server_wal_end_lsn: Gauge,
    /// How late the server sent the last transaction, by the server's clock alone; 0 once caught up.
    pub receive_lag_micros: Gauge,
    /// The commit time of the oldest event on its way to Kafka, by the server's clock; 0 if none is.
    pub oldest_inflight_micros: Gauge,
    /// The commit time of the last event received, by the server's clock.
    pub last_event_commit_micros: Gauge,
    /// When a broker last acknowledged an event.
    pub last_delivery_micros: Gauge,
    /// When the server's last message arrived.
    pub last_server_message_micros: Gauge,
    /// What the server's clock said in that message.
    pub server_clock_micros: Gauge,

    /// The slot as last polled.
    pub slot: Latest<SlotView>,
    /// Polls of the slot that failed.
    pub slot_poll_errors: Counter,

    /// Rows not published when they were last counted, where an outbox is polled.
    pub unpublished: Gauge,
    /// When they were last counted; 0 if never.
    pub unpublished_counted_micros: Gauge,

    /// Events read from the log.
    pub events_received: Counter,
    /// Those of them that this process had handed to a producer before, which it had to give up.
    pub events_replayed: Counter,
    /// Events acknowledged by a broker, by topic.
    pub topics: Topics,
    /// Transactions with at least one event, read to their end.
    pub transactions: Counter,
    /// Keepalives received.
    pub keepalives: Counter,
    /// Messages of the protocol that are known to be irrelevant and were passed over.
    pub messages_skipped: Counter,
    /// Events handed to the producer and not yet acknowledged.
    pub inflight_messages: Gauge,
    /// The bytes of those events.
    pub inflight_bytes: Gauge,
    /// The most events that may be on the way; 0 if only bytes are limited.
    pub inflight_limit_messages: Gauge,
    /// The most bytes that may be on the way.
    pub inflight_limit_bytes: Gauge,
    /// Time in which the log was not read because the producer took nothing more.
    pub backpressure_kafka_micros: Counter,
    /// Time in which the log was not read because the in-flight budget was used up.
    pub backpressure_inflight_micros: Counter,
    /// Records sent with the time of sending, because their topic refuses timestamps like theirs.
    pub timestamps_replaced: Counter,
    /// Requests to brokers that librdkafka has sent again.
    pub produce_retries: Counter,
    /// The producer as librdkafka's statistics showed it last.
    pub producer: Latest<ProducerView>,
    /// Failed reads and writes of the stored position.
    pub position_store_errors: Counter,
    /// From the commit in PostgreSQL to the broker's acknowledgement.
    pub commit_to_ack: Histogram,
    /// From the making of a row to its arrival here, by the server's clock; only where rows say when they were made.
    pub outbox_age: Histogram,
    /// From the hand-over of a transaction's last event to the acknowledgement that completes it.
    pub publish_duration: Histogram,

    /// Since when a position has been waiting to be stored, as time since `epoch`; 0 if none is.
    position_waits_micros: Gauge,
    /// When the loop last went round, as time since `epoch`: the wall clock may jump, this may not.
    ticked_micros: Gauge,
    epoch: Instant,
}

/// Why the log is not being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The producer's queue is full.
    Kafka,
    /// The in-flight budget is used up.
    Inflight,
}

/// How far the relay is behind the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Log the server has and the relay has not received; absent before anything was received.
    pub receive_bytes: Option<u64>,
    /// Log the server has and the relay has not confirmed; absent before anything was confirmed.
    pub deliver_bytes: Option<u64>,
    /// How old the news is that arrives; absent while nothing was heard, or on standby.
    pub receive_seconds: Option<f64>,
    /// How long the oldest event that is not in Kafka has waited; absent as above.
    pub deliver_seconds: Option<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            state: StateCell::default(),
            state_since_micros: Gauge::default(),
            postgres: Link::default(),
            kafka: Link::default(),
            failures: Failures::default(),
            received_lsn: Gauge::default(),
            flushed_lsn: Gauge::default(),
            server_wal_end_lsn: Gauge::default(),
            receive_lag_micros: Gauge::default(),
            oldest_inflight_micros: Gauge::default(),
            last_event_commit_micros: Gauge::default(),
            last_delivery_micros: Gauge::default(),
            last_server_message_micros: Gauge::default(),
            server_clock_micros: Gauge::default(),
            slot: Latest::default(),
            slot_poll_errors: Counter::default(),
            unpublished: Gauge::default(),
            unpublished_counted_micros: Gauge::default(),
            events_received: Counter::default(),
            events_replayed: Counter::default(),
            topics: Topics::default(),
            transactions: Counter::default(),
            keepalives: Counter::default(),
            messages_skipped: Counter::default(),
            inflight_messages: Gauge::default(),
            inflight_bytes: Gauge::default(),
            inflight_limit_messages: Gauge::default(),
            inflight_limit_bytes: Gauge::default(),
            backpressure_kafka_micros: Counter::default(),
            backpressure_inflight_micros: Counter::default(),
            timestamps_replaced: Counter::default(),
            produce_retries: Counter::default(),
            producer: Latest::default(),
            position_store_errors: Counter::default(),
            commit_to_ack: Histogram::default(),
            outbox_age: Histogram::default(),
            publish_duration: Histogram::default(),
            position_waits_micros: Gauge::default(),
            ticked_micros: Gauge::default(),
            epoch: Instant::now(),
        }
    }
}

impl Metrics {
    /// Notes that the loop went round. To be called at least once a second, whatever PostgreSQL and Kafka do.
    pub fn tick(&self) {
        self.ticked_micros.set(micros(self.epoch.elapsed()));
    }

    /// Notes what the relay does from now on.
    pub fn enter(&self, state: State) {
        if self.state.replace(state) != state || self.state_since_micros.value() == 0 {
            self.state_since_micros.set(now_micros());
        }
    }

    /// Notes a message of the server: up to where the log has been received, where it ends, and the server's clock.
    pub fn heard(&self, received: Lsn, wal_end: Lsn, server_clock_micros: u64, now_micros: u64) {
        self.received_lsn.set(received.to_wire());
        self.wal_end(wal_end);
        self.server_clock_micros.set(server_clock_micros);
        self.last_server_message_micros.set(now_micros);
    }

    /// Notes where the server's log ends, from whatever source; it never goes back within a run on one timeline.
    pub fn wal_end(&self, wal_end: Lsn) {
        let known = self.server_wal_end_lsn.value();
        if i64::try_from(wal_end.to_wire()).unwrap_or(i64::MAX) > known {
            self.server_wal_end_lsn.set(wal_end.to_wire());
        }
    }

    /// Forgets where the log was, before another server or timeline is read.
    pub fn forget_positions(&self) {
        for position in [&self.received_lsn, &self.flushed_lsn, &self.server_wal_end_lsn, &self.receive_lag_micros] {
            position.set(0);
        }
    }

    /// Notes a transaction with events: when it was committed and when the server sent it, both by the server's clock.
    pub fn begun(&self, commit_micros: u64, sent_micros: u64) {
        self.last_event_commit_micros.set(commit_micros);
        self.receive_lag_micros.set(sent_micros.saturating_sub(commit_micros));
    }

    /// Notes a keepalive: the server has nothing to send that it has not sent.
    pub fn caught_up(&self) {
        self.keepalives.increment();
        self.receive_lag_micros.set(0);
    }

    /// Notes what is on its way to Kafka, and when the oldest of it was committed.
    pub fn in_flight(&self, messages: u64, bytes: u64, oldest_commit_micros: Option<u64>) {
        self.inflight_messages.set(messages);
        self.inflight_bytes.set(bytes);
        self.oldest_inflight_micros.set(oldest_commit_micros.unwrap_or(0));
    }

    /// Notes one event acknowledged by a broker. `topic` is an index of [`Topics::index`].
    pub fn delivered(&self, topic: u16, bytes: u64, commit_micros: u64, now_micros: u64) {
        self.topics.published(topic, bytes);
        self.last_delivery_micros.set(now_micros);
        self.commit_to_ack.observe(Duration::from_micros(now_micros.saturating_sub(commit_micros)));
    }

    /// Notes that the log was not read for a while.
    pub fn held_back(&self, cause: Cause, duration: Duration) {
        match cause {
            Cause::Kafka => self.backpressure_kafka_micros.add(micros(duration)),
            Cause::Inflight => self.backpressure_inflight_micros.add(micros(duration)),
        }
    }

    /// Notes a failure, where it is consumed.
    pub fn failed(&self, component: Component, error: &dyn Diagnose) {
        self.failures.note(component, error, now_micros());
    }

    /// Says whether the relay does its duty: events flow from end to end, or it waits for its turn.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state.load() {
            State::Streaming => self.kafka.is_up() && self.position_wait() < POSITION_WAIT_MAX,
            State::Standby => true,
            State::Starting | State::Draining | State::SinkBlocked | State::SourceReconnecting | State::Stopped => {
                false
            }
        }
    }

    /// Notes that a position waits to be stored, unless one has been waiting already.
    pub fn position_waits(&self) {
        if self.position_waits_micros.value() == 0 {
            self.position_waits_micros.set(micros(self.epoch.elapsed()).max(1));
        }
    }

    /// Notes that the position is stored that was waiting.
    pub fn position_is_stored(&self) {
        self.position_waits_micros.set(0);
    }

    /// Gives how long a position has been waiting to be stored.
    #[must_use]
    pub fn position_wait(&self) -> Duration {
        match unsigned(&self.position_waits_micros) {
            0 => Duration::ZERO,
            since => self.epoch.elapsed().saturating_sub(Duration::from_micros(since)),
        }
    }

    /// Gives the time since the loop last went round, or since the start if it never did.
    #[must_use]
    pub fn since_tick(&self) -> Duration {
        let ticked = Duration::from_micros(unsigned(&self.ticked_micros));
        self.epoch.elapsed().saturating_sub(ticked)
    }

    /// Derives how far the relay is behind.
    #[must_use]
    pub fn lag(&self, now_micros: u64) -> Lag {
        let behind = |position: Lsn| (!position.is_zero()).then(|| lsn(&self.server_wal_end_lsn).bytes_since(position));
        let receive = self.receive_lag(now_micros);
        Lag {
            receive_bytes: behind(lsn(&self.received_lsn)),
            deliver_bytes: behind(lsn(&self.flushed_lsn)),
            receive_seconds: receive.map(seconds),
            deliver_seconds: receive.map(|receive| seconds(receive.max(self.oldest_wait(now_micros)))),
        }
    }

    /// While the link is down nobody knows what was committed since, so the silence itself counts.
    fn receive_lag(&self, now_micros: u64) -> Option<u64> {
        let heard = unsigned(&self.last_server_message_micros);
        if heard == 0 || self.state.load() == State::Standby {
            return None;
        }
        let told = unsigned(&self.receive_lag_micros);
        Some(if self.postgres.is_up() { told } else { told.max(now_micros.saturating_sub(heard)) })
    }

    /// Compares the server's commit time with the server's clock, carried on by the time since it was last heard.
    fn oldest_wait(&self, now_micros: u64) -> u64 {
        match unsigned(&self.oldest_inflight_micros) {
            0 => 0,
            oldest => {
                let silence = now_micros.saturating_sub(unsigned(&self.last_server_message_micros));
                (unsigned(&self.server_clock_micros) + silence).saturating_sub(oldest)
            }
        }
    }
}

/// Gives the time of this machine in microseconds since 1970.
#[must_use]
pub fn now_micros() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Reads a gauge that holds a position.
#[must_use]
pub fn lsn(gauge: &Gauge) -> Lsn {
    Lsn::from_wire(unsigned(gauge))
}

/// Reads a gauge that is never below zero.
#[must_use]
pub fn unsigned(gauge: &Gauge) -> u64 {
    u64::try_from(gauge.value()).unwrap_or(0)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn heard(metrics: &Metrics) {
        metrics.postgres.connected();
        metrics.heard(Lsn::from_wire(100), Lsn::from_wire(150), 1_000 * SECOND, 5_000 * SECOND);
    }

    #[test]
    fn lag_in_bytes_is_the_distance_to_the_servers_end() {
        let metrics = Metrics::default();
        assert_eq!(metrics.lag(0).deliver_bytes, None, "nothing was confirmed yet");
        heard(&metrics);
        metrics.flushed_lsn.set(70);
        let lag = metrics.lag(5_000 * SECOND);
        assert_eq!((lag.receive_bytes, lag.deliver_bytes), (Some(50), Some(80)));
        metrics.wal_end(Lsn::from_wire(10));
        assert_eq!(metrics.lag(5_000 * SECOND).receive_bytes, Some(50), "an older end was believed");
    }

    #[test]
    fn lag_in_seconds_does_not_depend_on_the_skew_of_the_two_clocks() {
        let metrics = Metrics::default();
        heard(&metrics);
        metrics.begun(998 * SECOND, 1_000 * SECOND);
        metrics.in_flight(1, 10, Some(998 * SECOND));
        let lag = metrics.lag(5_003 * SECOND);
        assert_eq!(lag.receive_seconds, Some(2.0));
        assert_eq!(lag.deliver_seconds, Some(5.0));
    }

    #[test]
    fn an_idle_relay_that_has_caught_up_has_no_lag() {
        let metrics = Metrics::default();
        heard(&metrics);
        metrics.begun(1, 2 * SECOND);
        metrics.in_flight(0, 0, None);
        metrics.caught_up();
        let lag = metrics.lag(5_600 * SECOND);
        assert_eq!((lag.receive_seconds, lag.deliver_seconds), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn silence_counts_as_lag_while_the_link_is_down() {
        let metrics = Metrics::default();
        assert_eq!(metrics.lag(SECOND).receive_seconds, None, "nothing was heard yet");
        heard(&metrics);
        metrics.postgres.lost(Loss::Failed);
        assert_eq!(metrics.lag(5_007 * SECOND).deliver_seconds, Some(7.0));
        metrics.enter(State::Standby);
        assert_eq!(metrics.lag(5_007 * SECOND).deliver_seconds, None);
    }

    #[test]
    fn the_age_of_the_last_tick_starts_at_the_beginning() {
        let metrics = Metrics::default();
        std::thread::sleep(Duration::from_millis(3));
        assert!(metrics.since_tick() >= Duration::from_millis(3));
        metrics.tick();
        assert!(metrics.since_tick() < Duration::from_secs(5));
    }
}
