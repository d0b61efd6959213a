//! PostgreSQL to Kafka.
//!
//! ```text
//!   wal --> frame -> pgoutput -> transaction -> row -> route --> publish --> Kafka
//!    ^            (pure; pipeline walks them)                       |
//!    |                                                              v
//!    +---- feedback <---- Confirmed ---- ledger <---- delivery reports
//!              ^
//!   position (keeper's own thread and connection): persist, then flush
//! ```
//!
//! Where the right to replicate is refused, `poll` reads the table itself, and shares route, publish and all that waits.
//!
//! `follow` is the loop over one connection, the only place where reading, deciding and publishing meet; `supervise` says
//! what comes after a connection: wait, start again, park, or stop with an error that a person must act on. `run` creates
//! nothing in either server and skips nothing.

// In the order in which data meets them.
pub mod wal;

pub mod frame;
pub mod pgoutput;
pub mod transaction;

pub mod row;

pub mod route;

pub mod ledger;

pub mod pipeline;

pub mod publish;

// And back.
pub mod feedback;
pub mod position;
pub mod resume;

// The other source.
pub mod poll;

pub mod contract;
pub mod coverage;
pub mod keeper;
pub mod metrics;
pub mod setup;

mod advance;
mod backoff;
mod catalog_watch;
mod coalesce;
mod config;
mod error;
mod examine;
mod follow;
mod holder;
mod lookout;
mod noting;
mod patience;
mod recurrence;
mod silence;
mod stall_report;
mod stalls;
mod supervise;
mod synchronous;

use tokio_util::sync::CancellationToken;

use crate::relay::route::Route;

pub use config::Config;
pub use config::Delivery;
pub use config::Failover;
pub use config::Mode;
pub use config::OnPoison;
pub use config::Poll;
pub use config::Shutdown;
pub use config::Source;
pub use error::Error;
pub use metrics::Metrics;
pub use metrics::State;

/// All options of the relay, by room.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[relay]`
    pub relay: Config,
    /// `[source]`
    pub source: Source,
    /// `[postgres]`
    pub postgres: wal::Config,
    /// `[[outbox]]`
    pub outboxes: Vec<route::Config>,
    /// `[kafka]`
    pub kafka: publish::Config,
    /// `[delivery]`
    pub delivery: Delivery,
    /// `[shutdown]`
    pub shutdown: Shutdown,
}

impl Settings {
    /// Makes the routes of all outbox tables.
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

/// Relays until `stop` is cancelled and everything on the way has been delivered and confirmed, or until an error that a
/// person must act on. Everything else is waited for.
pub async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    match settings.source.mode {
        Mode::Wal => Box::pin(supervise::run(settings, metrics, stop)).await,
        Mode::Poll => poll::run(settings, metrics, stop).await,
    }
}
