//! PostgreSQL to Kafka.
//!
//! ```text
//!   postgres --> decode --> record --> publish --> Kafka
//!       ^      (pure; pipeline walks them) |
//!       |                                  v
//!       +---- feedback <-- Confirmed -- ledger <-- delivery reports
//!                ^
//!   position (keeper's own thread and connection): persist, then flush
//! ```
//!
//! For a role without REPLICATION, `poll` reads the table itself, and uses the same record, publish and retry.
//!
//! `stream/follow` is the loop over one connection, where reading, deciding and publishing meet; `stream/supervise`
//! decides what follows a connection: wait, connect again, or stop with an error that an operator must act on. `run`
//! creates nothing in either server and skips nothing.

// In the order in which data meets them.
pub mod postgres;

pub mod decode;

pub mod record;

pub mod ledger;

pub mod pipeline;

pub mod publish;

// What drives them: the source that reads the WAL, and the one that reads the table.
pub mod stream;

pub mod poll;

pub mod catalog;
pub mod inspect;
pub mod metrics;
pub mod peek;
pub mod setup;
pub mod teardown;

// What asks all of them, and changes nothing.
pub mod check;

mod error;
mod kafka_commands;
mod retry;
mod settings;

use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use metrics::Metrics;
pub use metrics::State;
pub use settings::Config;
pub use settings::DeliveryOptions;
pub use settings::Failover;
pub use settings::Mode;
pub use settings::OnPoison;
pub use settings::PollOptions;
pub use settings::Settings;
pub use settings::ShutdownOptions;
pub use settings::SourceOptions;

/// Relays until `stop` is cancelled and everything in flight is acknowledged and confirmed, or until a fatal error.
/// Transient errors are retried.
pub async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    match settings.source.mode {
        Mode::Wal => Box::pin(stream::supervise::run(settings, metrics, stop)).await,
        Mode::Poll => poll::run(settings, metrics, stop).await,
    }
}
