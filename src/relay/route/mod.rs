//! Rows to records.

mod config;

pub use config::Columns;
pub use config::Config;
pub use config::Header;
pub use config::Preset;
pub use config::Timestamp;
