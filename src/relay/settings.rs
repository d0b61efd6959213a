//! The relay's options: `[relay]`, `[source]`, `[delivery]` and `[shutdown]`, and those of its rooms together.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::relay::error::Error;
use crate::relay::postgres;
use crate::relay::publish;
use crate::relay::record::route;
use crate::relay::record::route::Route;
use crate::units;

/// All options of the relay, by room.
#[derive(Clone, Debug)]
pub struct Settings {
    pub relay: Config,
    pub source: SourceOptions,
    pub postgres: postgres::Config,
    /// `[[outbox]]`
    pub outboxes: Vec<route::Config>,
    pub kafka: publish::Config,
    pub delivery: DeliveryOptions,
    pub shutdown: ShutdownOptions,
}

impl Settings {
    /// Creates the routes of all outbox tables.
    pub fn routes(&self) -> Result<Vec<Route>, Error> {
        let make = match self.source.mode {
            Mode::Wal => Route::new,
            Mode::Poll => Route::for_polling,
        };
        let route = |config: &route::Config| {
            make(config).map_err(|source| Error::Outbox { table: config.table.clone(), source })
        };
        self.outboxes.iter().map(route).collect()
    }
}

/// The identity of this relay.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The relay's name: Kafka's `client.id`, PostgreSQL's `application_name`, and a label of its metrics.
    pub name: String,
}

/// The source of events.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// How the outbox is read.
    pub mode: Mode,
    /// The replication slot. `setup` creates it, `run` never does.
    pub slot: String,
    /// The publication. `setup` creates it, `run` never does.
    pub publication: String,
    /// Whether `setup` creates a failover slot (PostgreSQL 17 and later).
    pub failover: Failover,
    /// The time without an acknowledgement from Kafka after which the relay disconnects from PostgreSQL, so that a
    /// shutdown of the server does not wait for it; at most `wal_sender_timeout`.
    #[serde(with = "units::duration")]
    pub disconnect_on_stall_after: Duration,
    /// How long a relay waits before it publishes after another one without an orderly stop: requests of that one must
    /// be answered by then, or an old record of a key could follow newer ones.
    #[serde(with = "units::duration")]
    pub takeover_delay: Duration,
    /// Store the confirmed position in a row of the source database.
    pub store_position: bool,
    /// The estimated time until the slot may be invalidated below which a warning is logged; 0 s logs none.
    #[serde(with = "units::duration")]
    pub warn_before_invalidation: Duration,
    /// The options of mode `poll`.
    pub poll: PollOptions,
}

/// The options of mode `poll`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PollOptions {
    /// The pause between two polls without further rows.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The number of rows of one batch, which is one transaction.
    pub max_batch_rows: u32,
    /// The timeout of the acknowledgement of a batch, after which its transaction is rolled back.
    #[serde(with = "units::duration")]
    pub batch_timeout: Duration,
}

/// How the outbox is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From the write-ahead log, by logical replication.
    #[default]
    Wal,
    /// From the table, by queries, for roles without REPLICATION.
    Poll,
}

/// Whether the slot survives a failover.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Failover {
    /// If the server supports it.
    #[default]
    Auto,
    /// Always; an older server is an error.
    On,
    /// Never.
    Off,
}

/// The in-flight limit, and what happens to an event that cannot become a record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryOptions {
    /// The memory of records in flight. At this limit the WAL is not read.
    #[serde(with = "units::bytes")]
    pub max_in_flight_bytes: u64,
    /// What happens to an event that cannot become a record.
    pub on_poison: OnPoison,
}

/// What happens to an event that cannot become a record.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPoison {
    /// The relay stops with exit code 68 and names the event.
    #[default]
    Halt,
}

/// How the relay stops.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownOptions {
    /// How long a stop may wait for acknowledgements. After it the exit code is 75.
    #[serde(with = "units::duration")]
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: "walrelay".to_owned() }
    }
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            slot: "walrelay".to_owned(),
            publication: "walrelay".to_owned(),
            failover: Failover::default(),
            disconnect_on_stall_after: Duration::from_secs(30),
            takeover_delay: Duration::from_secs(4),
            store_position: true,
            warn_before_invalidation: Duration::from_secs(3_600),
            poll: PollOptions::default(),
        }
    }
}

impl Default for PollOptions {
    fn default() -> Self {
        Self { interval: Duration::from_millis(100), max_batch_rows: 1_000, batch_timeout: Duration::from_secs(10) }
    }
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { max_in_flight_bytes: 32 << 20, on_poison: OnPoison::default() }
    }
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self { drain: Duration::from_secs(20) }
    }
}
