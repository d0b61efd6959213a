//! PostgreSQL to Kafka: the loop, the only place where reading, deciding and publishing meet.

pub mod wal;

pub mod route;

pub mod ledger;

pub mod publish;

pub mod metrics;

mod config;

pub use config::Config;
pub use config::Delivery;
pub use config::Failover;
pub use config::Mode;
pub use config::OnPoison;
pub use config::Shutdown;
pub use config::Source;
pub use metrics::Metrics;
pub use metrics::State;
