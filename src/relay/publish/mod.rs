//! Records to Kafka, delivery reports to the ledger.

mod config;

pub use config::Compression;
pub use config::Config;
pub use config::Mechanism;
pub use config::Sasl;
pub use config::Tls;
