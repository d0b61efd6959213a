//! The replication client: connect, authenticate, command, stream.

mod config;

pub use config::ChannelBinding;
pub use config::Config;
pub use config::Tls;
