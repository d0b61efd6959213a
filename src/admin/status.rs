//! The relay's state as `/status` gives it. Field names are stable.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::lsn::Lsn;
use crate::measure::Gauge;
use crate::metrics::Build;
use crate::metrics::Sources;
use crate::relay;
use crate::relay::metrics::Invalidation;
use crate::relay::metrics::Role;
use crate::relay::metrics::SlotView;
use crate::relay::metrics::State;
use crate::relay::metrics::WalStatus;
use crate::relay::metrics::now_micros;
use crate::relay::metrics::unsigned;

/// Without a tick for so long the relay counts as dead. Its loop ticks at least once a second.
pub const MAX_STANDSTILL: Duration = Duration::from_secs(30);

/// The relay at one moment. An unknown value is `null`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The name of the relay.
    pub name: String,
    /// The version of walrelay.
    pub version: &'static str,
    /// The versions of the program and its libraries.
    pub build: Build,
    pub state: &'static str,
    /// When it entered that state, RFC 3339.
    pub state_since: Option<String>,
    /// The time since the relay thread last moved.
    pub since_tick_seconds: f64,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// `active` or `standby`.
    pub role: Option<&'static str>,
    /// `wal` or `poll`.
    pub mode: &'static str,
    /// The configured slot; none in mode `poll`.
    pub slot: Option<String>,
    /// The configured publication; none in mode `poll`.
    pub publication: Option<String>,
    /// The database with its servers, as the configuration names them.
    pub database: Option<String>,
    /// The bootstrap servers of Kafka.
    pub brokers: Vec<String>,
    /// Which peers are connected.
    pub connected: Connected,
    /// The WAL position received so far.
    pub received_lsn: Option<Lsn>,
    /// The WAL position confirmed to the server.
    pub confirmed_lsn: Option<Lsn>,
    /// How long a position has been waiting to be stored, if one is.
    pub position_wait_seconds: Option<f64>,
    /// The end of the server's WAL.
    pub server_wal_end_lsn: Option<Lsn>,
    /// The relay's lag.
    pub lag: Lag,
    /// Unpublished rows, in mode `poll`.
    pub unpublished: Option<u64>,
    /// What is in flight.
    pub in_flight: InFlight,
    /// When a broker last acknowledged an event.
    pub last_delivery: Option<String>,
    /// Acknowledged events by topic.
    pub published: BTreeMap<String, Published>,
    pub last_error: Option<LastError>,
    /// The slot's state.
    pub slot_view: Option<Slot>,
}

/// Which peers are connected.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Connected {
    /// PostgreSQL.
    pub postgres: bool,
    pub kafka: bool,
}

/// The relay's lag.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lag {
    /// WAL not received.
    pub receive_bytes: Option<u64>,
    /// WAL not confirmed.
    pub deliver_bytes: Option<u64>,
    /// The age of the last transaction when it was received.
    pub receive_seconds: Option<f64>,
    /// The age of the oldest event that is not acknowledged.
    pub deliver_seconds: Option<f64>,
}

/// What is enqueued in librdkafka and not acknowledged.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InFlight {
    pub records: u64,
    pub bytes: u64,
    /// The limit of those bytes.
    pub max_bytes: u64,
}

/// Acknowledged events of one topic.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Published {
    /// Events acknowledged by a broker.
    pub events: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// The stable code.
    pub code: String,
    /// The error with its causes.
    pub text: String,
    /// The next step.
    pub help: Option<String>,
    /// When, RFC 3339.
    pub at: Option<String>,
}

/// The slot's state in `pg_replication_slots`.
#[derive(Clone, Debug, Serialize)]
pub struct Slot {
    /// When it was queried.
    pub polled_at: Option<String>,
    /// Whether a walsender uses it.
    pub active: bool,
    /// The process of that walsender.
    pub active_pid: Option<i32>,
    /// The server retains WAL from here.
    pub restart_lsn: Option<Lsn>,
    /// The position that the slot has confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// The WAL retained because of it.
    pub retained_wal_bytes: u64,
    /// WAL that can be written before it may be lost.
    pub safe_wal_bytes: Option<i64>,
    /// The used share of max_slot_wal_keep_size.
    pub wal_limit_used_ratio: Option<f64>,
    /// PostgreSQL's `wal_status`.
    pub wal_status: Option<&'static str>,
    /// PostgreSQL's `invalidation_reason` (17 and later).
    pub invalidation_reason: Option<&'static str>,
    /// The growth of the retained WAL.
    pub retained_wal_growth_bytes_per_second: Option<f64>,
    /// The estimated time until the slot may be invalidated.
    pub seconds_to_invalidation: Option<f64>,
}

impl Status {
    /// PostgreSQL's connection in words.
    pub(super) const fn postgres_word(&self) -> &'static str {
        if self.connected.postgres { "connected" } else { "not connected" }
    }

    /// Kafka's connection in words. Brokers can be up and acknowledge nothing, for example while a topic is missing.
    pub(super) fn kafka_word(&self) -> &'static str {
        match self.connected.kafka {
            true => "connected",
            false if self.state == State::SinkBlocked.word() => "no record is acknowledged",
            false => "not connected",
        }
    }

    /// Reads what is true now.
    pub(super) fn of(sources: &Sources) -> Self {
        let relay = &sources.relay;
        let state = relay.state.load();
        Self {
            name: sources.name.clone(),
            version: sources.build.version,
            build: sources.build.clone(),
            state: state.word(),
            state_since: time(unsigned(&relay.state_since_micros)),
            since_tick_seconds: relay.since_tick().as_secs_f64(),
            ready: relay.is_ready(),
            role: state.role().map(Role::word),
            mode: if sources.slot.is_some() { "wal" } else { "poll" },
            slot: sources.slot.clone(),
            publication: sources.publication.clone(),
            database: sources.database.clone(),
            brokers: sources.brokers.clone(),
            connected: Connected { postgres: relay.postgres.is_up(), kafka: relay.kafka.is_up() },
            received_lsn: position(&relay.received_lsn),
            confirmed_lsn: position(&relay.flushed_lsn),
            position_wait_seconds: Some(relay.position_wait().as_secs_f64()).filter(|seconds| *seconds > 0.0),
            server_wal_end_lsn: position(&relay.server_wal_end_lsn),
            lag: lag(relay),
            unpublished: (unsigned(&relay.unpublished_counted_micros) != 0).then(|| unsigned(&relay.unpublished)),
            in_flight: InFlight {
                records: unsigned(&relay.in_flight_records),
                bytes: unsigned(&relay.in_flight_bytes),
                max_bytes: unsigned(&relay.max_in_flight_bytes),
            },
            last_delivery: time(unsigned(&relay.last_delivery_micros)),
            published: published(relay),
            last_error: last_error(relay, sources.complete_help),
            slot_view: relay.slot.load().as_ref().map(Slot::of),
        }
    }
}

impl Slot {
    /// Gives the state of a slot, as `/status` does.
    #[must_use]
    pub fn of(view: &SlotView) -> Self {
        Self {
            polled_at: time(view.polled_micros),
            active: view.active,
            active_pid: view.active_pid,
            restart_lsn: view.restart,
            confirmed_flush_lsn: view.confirmed,
            retained_wal_bytes: view.retained_wal_bytes,
            safe_wal_bytes: view.safe_wal_bytes,
            wal_limit_used_ratio: view.limit_used_ratio(),
            wal_status: view.wal_status.map(WalStatus::word),
            invalidation_reason: view.invalidation.map(Invalidation::word),
            retained_wal_growth_bytes_per_second: view.growth_bytes_per_second,
            seconds_to_invalidation: view.seconds_to_invalidation,
        }
    }
}

fn lag(relay: &relay::Metrics) -> Lag {
    let relay::metrics::Lag { receive_bytes, deliver_bytes, receive_seconds, deliver_seconds } =
        relay.lag(now_micros());
    Lag { receive_bytes, deliver_bytes, receive_seconds, deliver_seconds }
}

fn published(relay: &relay::Metrics) -> BTreeMap<String, Published> {
    let topics = relay.topics.published_by_topic().into_iter();
    topics.map(|each| (each.topic, Published { events: each.events, bytes: each.bytes })).collect()
}

fn last_error(relay: &relay::Metrics, complete: fn(&str) -> String) -> Option<LastError> {
    let last = relay.failures.last()?;
    let help = last.help.as_deref().map(complete);
    Some(LastError { code: last.code.to_string(), text: last.text, help, at: time(last.at_micros) })
}

fn position(gauge: &Gauge) -> Option<Lsn> {
    Some(relay::metrics::lsn(gauge)).filter(|lsn| !lsn.is_zero())
}

/// Formats a time; none for 0 and for a year above 9999.
fn time(micros: u64) -> Option<String> {
    const YEAR_10_000_MICROS: u64 = 253_402_300_800_000_000;
    if micros == 0 || YEAR_10_000_MICROS <= micros {
        return None;
    }
    Some(humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(micros)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_null_for_unknown_values() {
        let sources = Sources::new("orders", "s", "p", relay::Metrics::default());
        let json = serde_json::to_value(Status::of(&sources)).unwrap();
        assert_eq!((&json["state"], &json["role"]), (&"starting".into(), &serde_json::Value::Null));
        assert_eq!(json["received_lsn"], serde_json::Value::Null);

        let relay = &sources.relay;
        relay.heard("16/B374D848".parse().unwrap(), "16/B374D850".parse().unwrap(), 1, 1_700_000_000_000_000);
        relay.delivered(relay.topics.index("t").index, 5, 1, 1_700_000_000_000_000);
        let json = serde_json::to_value(Status::of(&sources)).unwrap();
        assert_eq!(json["received_lsn"], "16/B374D848");
        assert_eq!(json["lag"]["receive_bytes"], 8);
        assert_eq!(json["published"]["t"]["events"], 1);
        assert_eq!(json["last_delivery"], "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_none() {
        assert_eq!(time(0), None);
        assert_eq!(time(u64::MAX), None);
        assert_eq!(time(1_500_000).as_deref(), Some("1970-01-01T00:00:01.500Z"));
    }
}
