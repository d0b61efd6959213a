//! walrelay: a transactional outbox out of PostgreSQL into Kafka, and the application's half of it.
//!
//! ```text
//!   application                                                                     application
//!   outbox --insert, in the caller's transaction--> table --WAL--> relay --> Kafka --> consumer --> handler + inbox
//! ```
//!
//! Each half stands alone behind a cargo feature; an application that only writes events builds neither librdkafka nor
//! OpenSSL:
//!
//! | feature | gives |
//! |---|---|
//! | `outbox` | typed events into the outbox table, on tokio-postgres |
//! | `sqlx` | the same, on sqlx |
//! | `consumer` | Kafka to handlers: lanes, retries, dead letters, inbox |
//! | `otel` | the trace context of the current span into the outbox, and a linked span around each handler |
//! | `testing` | throwaway servers and a harness, for applications' own tests |
//! | `relay` | PostgreSQL to Kafka, and the program `walrelay` around it |
//!
//! `docs/library.md` is the way in for an application, `docs/events.md` for whoever defines events.

#[cfg(feature = "event")]
pub mod event;
pub mod fault;

#[cfg(feature = "consumer")]
mod kafka;

#[cfg(feature = "relay")]
pub mod cursor;
#[cfg(feature = "relay")]
pub mod lsn;
#[cfg(feature = "relay")]
pub mod measure;
#[cfg(feature = "relay")]
pub mod secret;
#[cfg(feature = "relay")]
pub mod units;

#[cfg(feature = "relay")]
pub mod relay;

#[cfg(any(feature = "outbox", feature = "sqlx"))]
pub mod outbox;

#[cfg(feature = "consumer")]
pub mod consumer;

#[cfg(feature = "relay")]
pub mod metrics;

#[cfg(feature = "relay")]
pub mod admin;
#[cfg(feature = "relay")]
pub mod cli;
#[cfg(feature = "relay")]
pub mod config;
#[cfg(feature = "relay")]
pub mod log;
#[cfg(feature = "testing")]
pub mod testing;

/// The page about the library; its examples are compiled, and run where they need no server.
#[cfg(all(doctest, feature = "outbox", feature = "consumer", feature = "testing"))]
#[doc = include_str!("../docs/library.md")]
mod page {}
