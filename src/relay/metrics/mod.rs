//! The relay's counters and gauges, readable from any thread at any time.
//!
//! The relay thread writes and a scrape reads; neither blocks the other for longer than a copy takes. Times are
//! microseconds since 1970 by the clock of this machine, unless a field names the server's clock. Positions are LSNs; 0
//! means "not yet". Ages and lags are computed when they are read, so that they keep growing when the relay hangs.
//!
//! Names, labels and units of the exposition belong to the level above.

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
pub use slot::Invalidation;
pub use slot::SlotView;
pub use slot::WalStatus;
pub use state::Role;
pub use state::State;
pub use state::StateCell;
pub use topics::Indexed;
pub use topics::Published;
pub use topics::Topics;

/// A position that is not stored for longer makes the relay not ready: the server retains more WAL each second.
pub const MAX_POSITION_WAIT: Duration = Duration::from_secs(30);

/// All metrics of the relay. Clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The current state.
    pub state: StateCell,
    /// When that state was entered.
    pub state_since_micros: Gauge,
    /// The connection to PostgreSQL.
    pub postgres: Link,
    /// The connection to Kafka.
    pub kafka: Link,
    /// Errors by code, and the last one.
    pub failures: Failures,

    /// The WAL position received so far.
    pub received_lsn: Gauge,
    /// The WAL position confirmed to the server (flush).
    pub flushed_lsn: Gauge,
    /// The end of the server's WAL, as last reported.
    pub server_wal_end_lsn: Gauge,
    /// How late the server sent the last transaction, by the server's clock alone; 0 once caught up.
    pub receive_lag_micros: Gauge,
    /// The commit time of the oldest event in flight, by the server's clock; 0 if none is.
    pub oldest_in_flight_micros: Gauge,
    /// The commit time of the last event received, by the server's clock.
    pub last_event_commit_micros: Gauge,
    /// When a broker last acknowledged an event.
    pub last_delivery_micros: Gauge,
    /// When the server's last message arrived.
    pub last_server_message_micros: Gauge,
    /// The server's clock in that message.
    pub server_clock_micros: Gauge,

    /// The slot's state at the last query.
    pub slot: Latest<SlotView>,
    /// Queries of the slot's state that failed.
    pub slot_poll_errors: Counter,

    /// Unpublished rows at the last count, in mode `poll`.
    pub unpublished: Gauge,
    /// The time of that count; 0 before the first one.
    pub unpublished_counted_micros: Gauge,

    /// Events read from the source.
    pub events_received: Counter,
    /// Those of them that an earlier producer of this process had enqueued already.
    pub events_replayed: Counter,
    /// Events acknowledged by a broker, by topic.
    pub topics: Topics,
    /// Transactions with at least one event, read to their end.
    pub transactions: Counter,
    /// Keepalives received.
    pub keepalives: Counter,
    /// Messages of the protocol without an event.
    pub messages_skipped: Counter,
    /// Records in flight: enqueued in librdkafka and not acknowledged.
    pub in_flight_records: Gauge,
    /// The bytes of those records.
    pub in_flight_bytes: Gauge,
    /// The limit of those bytes.
    pub max_in_flight_bytes: Gauge,
    /// Time in which the WAL was not read because librdkafka's queue was full.
    pub backpressure_kafka_micros: Counter,
    /// Time in which the WAL was not read because the in-flight limit was reached.
    pub backpressure_in_flight_micros: Counter,
    /// Records sent with the current time because their topic rejects the commit time.
    pub timestamps_replaced: Counter,
    /// Requests to brokers that librdkafka has retried.
    pub produce_retries: Counter,
    /// librdkafka's last statistics.
    pub producer: Latest<ProducerView>,
    /// Reads and writes of the stored position that failed.
    pub position_store_errors: Counter,
    /// From the commit in PostgreSQL to the broker's acknowledgement.
    pub commit_to_ack: Histogram,
    /// From a row's `created_at` to its reception, by the server's clock; only if rows have that column.
    pub outbox_age: Histogram,
    /// From the enqueueing of a transaction's last event to the acknowledgement that completes it.
    pub publish_duration: Histogram,

    /// The time since `epoch` from which a position has been waiting to be stored; 0 if none is.
    position_waits_micros: Gauge,
    /// The time since `epoch` of the last tick: unlike the wall clock it does not jump.
    ticked_micros: Gauge,
    epoch: Instant,
}

/// Why the WAL is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backpressure {
    /// librdkafka's queue is full.
    Kafka,
    /// The in-flight limit is reached.
    InFlight,
}

/// How far the relay is behind the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// WAL that the server has written and the relay has not received; absent before anything was received.
    pub receive_bytes: Option<u64>,
    /// WAL that the server has written and the relay has not confirmed; absent before anything was confirmed.
    pub deliver_bytes: Option<u64>,
    /// The age of a transaction when it is received; absent before the first message, and on standby.
    pub receive_seconds: Option<f64>,
    /// The age of the oldest event that is not acknowledged; absent as above.
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
            oldest_in_flight_micros: Gauge::default(),
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
            in_flight_records: Gauge::default(),
            in_flight_bytes: Gauge::default(),
            max_in_flight_bytes: Gauge::default(),
            backpressure_kafka_micros: Counter::default(),
            backpressure_in_flight_micros: Counter::default(),
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
    /// Shows that the loop is alive. Must be called at least once a second, whatever PostgreSQL and Kafka do.
    pub fn tick(&self) {
        self.ticked_micros.set(micros(self.epoch.elapsed()));
    }

    pub fn enter(&self, state: State) {
        if self.state.replace(state) != state || self.state_since_micros.value() == 0 {
            self.state_since_micros.set(now_micros());
        }
    }

    /// Records a message of the server: the position received, the end of the WAL, and the server's clock.
    pub fn heard(&self, received: Lsn, wal_end: Lsn, server_clock_micros: u64, now_micros: u64) {
        self.received_lsn.set(received.to_wire());
        self.wal_end(wal_end);
        self.server_clock_micros.set(server_clock_micros);
        self.last_server_message_micros.set(now_micros);
    }

    /// Records the end of the server's WAL. It does not go back while the timeline is the same.
    pub fn wal_end(&self, wal_end: Lsn) {
        let known = self.server_wal_end_lsn.value();
        if i64::try_from(wal_end.to_wire()).unwrap_or(i64::MAX) > known {
            self.server_wal_end_lsn.set(wal_end.to_wire());
        }
    }

    /// Resets the positions before another server or timeline is read.
    pub fn forget_positions(&self) {
        for position in [&self.received_lsn, &self.flushed_lsn, &self.server_wal_end_lsn, &self.receive_lag_micros] {
            position.set(0);
        }
    }

    /// Records a transaction with events: its commit time and when the server sent it, both by the server's clock.
    pub fn begun(&self, commit_micros: u64, sent_micros: u64) {
        self.last_event_commit_micros.set(commit_micros);
        self.receive_lag_micros.set(sent_micros.saturating_sub(commit_micros));
    }

    /// Records a keepalive: the server has sent everything it has.
    pub fn caught_up(&self) {
        self.keepalives.increment();
        self.receive_lag_micros.set(0);
    }

    /// Records how much is in flight, and the commit time of the oldest event.
    pub fn in_flight(&self, records: u64, bytes: u64, oldest_commit_micros: Option<u64>) {
        self.in_flight_records.set(records);
        self.in_flight_bytes.set(bytes);
        self.oldest_in_flight_micros.set(oldest_commit_micros.unwrap_or(0));
    }

    /// Records one event acknowledged by a broker. `topic` is an index of [`Topics::index`].
    pub fn delivered(&self, topic: u16, bytes: u64, commit_micros: u64, now_micros: u64) {
        self.topics.published(topic, bytes);
        self.last_delivery_micros.set(now_micros);
        self.commit_to_ack.observe(Duration::from_micros(now_micros.saturating_sub(commit_micros)));
    }

    /// Records for how long the WAL was not read.
    pub fn held_back(&self, cause: Backpressure, duration: Duration) {
        match cause {
            Backpressure::Kafka => self.backpressure_kafka_micros.add(micros(duration)),
            Backpressure::InFlight => self.backpressure_in_flight_micros.add(micros(duration)),
        }
    }

    /// Records an error, where it is handled.
    pub fn failed(&self, component: Component, error: &dyn Diagnose) {
        self.failures.note(component, error, now_micros());
    }

    /// Says whether the relay is ready: it streams and Kafka is connected, or it is a standby.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state.load() {
            State::Streaming => self.kafka.is_up() && self.position_wait() < MAX_POSITION_WAIT,
            State::Standby => true,
            State::Starting | State::Draining | State::SinkBlocked | State::SourceReconnecting | State::Stopped => {
                false
            }
        }
    }

    /// Starts the wait of a position to be stored, unless one is waiting already.
    pub fn position_waits(&self) {
        if self.position_waits_micros.value() == 0 {
            self.position_waits_micros.set(micros(self.epoch.elapsed()).max(1));
        }
    }

    /// Ends that wait.
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

    /// Gives the time since the last tick, or since the start if there was none.
    #[must_use]
    pub fn since_tick(&self) -> Duration {
        let ticked = Duration::from_micros(unsigned(&self.ticked_micros));
        self.epoch.elapsed().saturating_sub(ticked)
    }

    /// Computes the lag.
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

    /// While PostgreSQL is not connected, nothing is known about later commits: the time without a message counts as
    /// lag.
    fn receive_lag(&self, now_micros: u64) -> Option<u64> {
        let heard = unsigned(&self.last_server_message_micros);
        if heard == 0 || self.state.load() == State::Standby {
            return None;
        }
        let lag = unsigned(&self.receive_lag_micros);
        Some(if self.postgres.is_up() { lag } else { lag.max(now_micros.saturating_sub(heard)) })
    }

    /// Compares the commit time with the server's clock, advanced by the time since its last message.
    fn oldest_wait(&self, now_micros: u64) -> u64 {
        match unsigned(&self.oldest_in_flight_micros) {
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
