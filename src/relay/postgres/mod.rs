//! The replication client: connect, authenticate, command, stream.
//!
//! ```text
//!   Target --connect--> Session (commands) --start--> Stream (CopyBoth) --finish-->
//!             |
//!             +-------> Ordinary (queries, through tokio-postgres)
//! ```
//!
//! Our own, on `postgres-protocol`: the rules that decide about loss live exactly here. Both kinds of connection go through
//! one door (`connect`), so TLS and authentication have one set of rules. A replication connection streams once and is then
//! closed. `Stream::confirm` takes nothing but a [`crate::relay::ledger::Confirmed`]. Nothing here decides when to retry;
//! [`Error`] says whether it can help.

mod auth;
mod certificate;
mod config;
mod connect;
mod conninfo;
mod error;
mod inbox;
mod message;
mod ordinary;
mod params;
mod passfile;
mod server;
mod service;
mod session;
mod sql;
mod stream;
mod tls;
mod transport;

pub use config::ChannelBinding;
pub use config::Config;
pub use config::Tls;
pub use conninfo::BadConninfo;
pub use conninfo::Found;
pub use conninfo::Host;
pub use conninfo::SslMode;
pub use conninfo::Target;
pub use conninfo::TlsFiles;
pub use error::Error;
pub use ordinary::Ended;
pub use ordinary::Ordinary;
pub use ordinary::connect_ordinary;
pub use ordinary::connect_shared;
pub use ordinary::position;
pub use ordinary::within;
pub use server::NO_SLOT;
pub use server::ServerError;
pub use session::CreatedSlot;
pub use session::Session;
pub use session::SystemIdentity;
pub use sql::literal;
pub use sql::quote;
pub use stream::Stream;

#[cfg(test)]
mod tests;
