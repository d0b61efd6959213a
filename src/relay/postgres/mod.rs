//! The replication client: connect, authenticate, command, stream.
//!
//! ```text
//!   Target --connect--> Session (commands) --start--> Stream (CopyBoth) --finish-->
//!             |
//!             +-------> Ordinary (queries, through tokio-postgres)
//! ```
//!
//! Written for walrelay, on `postgres-protocol`: the rules that prevent loss are in this room. Both kinds of connection
//! are established by `connect`, with the same rules for TLS and authentication. A replication connection streams once
//! and is then closed. `Stream::confirm` accepts only a [`crate::relay::ledger::Confirmed`]. Nothing here decides when
//! to retry: [`Error`] says whether a retry can help.

mod auth;
mod certificate;
mod config;
mod connect;
mod conninfo;
mod error;
mod message;
mod ordinary;
mod params;
mod passfile;
mod read_buffer;
mod server;
mod service;
mod session;
mod sql;
mod stream;
mod target;
mod tls;
mod transport;

pub use config::ChannelBinding;
pub use config::Config;
pub use config::Tls;
pub use error::Error;
pub use ordinary::Ended;
pub use ordinary::Ordinary;
pub use ordinary::connect_ordinary;
pub use ordinary::connect_shared;
pub use ordinary::position;
pub use ordinary::within;
pub use params::BadConninfo;
pub use params::has_password;
pub use server::NO_SLOT;
pub use server::ServerError;
pub use session::CreatedSlot;
pub use session::Session;
pub use session::SystemIdentity;
pub use sql::dollar_quote;
pub use sql::literal;
pub use sql::quote;
pub use sql::quote_table;
pub use stream::Stream;
pub use target::Found;
pub use target::Host;
pub use target::SslMode;
pub use target::Target;
pub use target::TlsFiles;

#[cfg(test)]
mod tests;
