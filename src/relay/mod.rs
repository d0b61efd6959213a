//! PostgreSQL to Kafka: the loop, the only place where reading, deciding and publishing meet.

// In the order in which data meets them.
pub mod wal;

pub mod frame;
pub mod pgoutput;
pub mod transaction;

pub mod row;

pub mod route;

pub mod publish;

pub mod ledger;

pub mod feedback;
pub mod resume;

pub mod contract;
pub mod keeper;
pub mod position;

pub mod metrics;

pub mod pipeline;

mod config;

pub use config::Config;
pub use config::Delivery;
pub use config::Failover;
pub use config::Mode;
pub use config::OnPoison;
pub use config::Shutdown;
pub use config::Source;
