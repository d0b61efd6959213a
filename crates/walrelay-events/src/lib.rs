//! The application's half of walrelay: appends typed events to a transactional outbox, and runs handlers on events from
//! Kafka.
//!
//! ```text
//!   application                                                                     application
//!   outbox --insert, in the caller's transaction--> table --WAL--> relay --> Kafka --> consumer --> handler + inbox
//! ```
//!
//! The relay between the two is the program `walrelay`. Without features the library contains only events. An
//! application that only writes events builds neither librdkafka nor OpenSSL.
//!
//! | feature | adds |
//! |---|---|
//! | `outbox` | appending events to the outbox table, on tokio-postgres |
//! | `sqlx` | the same, on sqlx |
//! | `publisher` | publishing events to Kafka without an outbox |
//! | `consumer` | Kafka to handlers: lanes, retries, dead-letter topics, inbox |
//! | `prometheus` | metrics of the consumer for Prometheus |
//! | `tower` | tower layers and services around and as handlers, with `consumer` |
//! | `otel` | the trace context of the current span into the outbox, and a linked span for each handler call |
//! | `testing` | throwaway servers and, with `consumer`, a harness, for tests of applications |
//! | `vendored` | OpenSSL built from source instead of the system's |
//!
//! The manual is `docs/library.md` in the repository. `docs/events.md` describes how to define and change events.

#![warn(missing_docs)]

pub mod event;
pub mod fault;
#[cfg(any(feature = "consumer", feature = "outbox", feature = "sqlx"))]
mod table;

#[cfg(any(feature = "outbox", feature = "sqlx"))]
pub mod outbox;

#[cfg(any(feature = "consumer", feature = "publisher"))]
pub mod oauth;

#[cfg(feature = "publisher")]
pub mod publisher;

#[cfg(feature = "consumer")]
pub mod consumer;

#[cfg(any(feature = "consumer", feature = "publisher"))]
mod kafka;
#[cfg(any(feature = "consumer", feature = "publisher", feature = "testing"))]
mod kafka_error;
#[cfg(any(feature = "consumer", feature = "publisher"))]
mod signal;
#[cfg(any(feature = "consumer", feature = "outbox", feature = "sqlx"))]
mod sqlstate;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(any(feature = "consumer", feature = "publisher", feature = "testing"))]
pub use kafka_error::KafkaError;

// Crates whose types are in the public interface, in the version that this library uses.
#[cfg(feature = "prometheus")]
pub use prometheus;
#[cfg(feature = "sqlx")]
pub use sqlx;
#[cfg(any(feature = "consumer", feature = "outbox"))]
pub use tokio_postgres;
pub use uuid;

#[cfg(any(feature = "consumer", feature = "publisher"))]
#[doc(hidden)]
pub mod internal;

/// The page about the library; its examples are compiled, and run where they need no server.
#[cfg(all(doctest, feature = "outbox", feature = "publisher", feature = "prometheus", feature = "testing"))]
#[cfg(feature = "tower")]
#[doc = include_str!("../../../docs/library.md")]
mod page {}

/// The page about tokens; its example is compiled.
#[cfg(all(doctest, feature = "publisher"))]
#[doc = include_str!("../../../docs/authentication.md")]
mod authentication {}
