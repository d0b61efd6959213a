//! The replication client: connect, authenticate, command, stream.
//!
//! ```text
//!   Target --connect--> Session (commands) --start--> Stream (CopyBoth) --finish-->
//! ```
//!
//! Our own, on `postgres-protocol`: the rules that decide about loss live exactly here. A connection streams once and is
//! then closed. Ordinary queries go through `tokio-postgres`, under the same TLS and authentication rules. `Stream::confirm`
//! takes nothing but a [`crate::relay::ledger::Confirmed`].

mod auth;
mod config;
mod conninfo;
mod error;
mod message;
mod ordinary;
mod session;
mod stream;
mod tls;
mod transport;

pub use config::ChannelBinding;
pub use config::Config;
pub use config::Tls;
pub use conninfo::BadConninfo;
pub use conninfo::Host;
pub use conninfo::SslMode;
pub use conninfo::Target;
pub use error::Error;
pub use error::ServerError;
pub use ordinary::Ordinary;
pub use ordinary::connect_ordinary;
pub use session::CreatedSlot;
pub use session::Session;
pub use session::SystemIdentity;
pub use stream::Stream;
