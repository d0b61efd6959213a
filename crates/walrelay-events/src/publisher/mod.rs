//! Publishes events to Kafka without an outbox, and reports for each one whether it was delivered.
//!
//! ```text
//!   publish(topic, key, &event) --> room in bytes --> queue --> client --> brokers
//!            ^                                          ^         |
//!            +------------ result ----------------------+---------+ delivery report
//! ```
//!
//! Use it for events that belong to no database transaction: readings, clicks, progress. If an event describes a change
//! in PostgreSQL, use the module `outbox` instead: the process can end between a commit and a `publish`, and then one
//! of the two is missing.
//!
//! Records have the headers that the relay writes, and go to the same partitions. A consumer cannot distinguish them.
//! The client is idempotent and waits for all in-sync replicas. A client that fails is replaced, and what is not
//! acknowledged is sent again in its order. So an event can be in a topic twice, with the same event id, and events of
//! a key are never swapped.
//!
//! Deliberately absent: transactions, creation of topics, and retries without a limit of time.
//!
//! ```no_run
//! use walrelay_events::publisher::{Config, Publisher};
//!
//! #[derive(serde::Serialize)]
//! #[serde(tag = "event_type")]
//! enum MeterEvent {
//!     MeterRead { watts: u64 },
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), walrelay_events::publisher::Error> {
//! let publisher = Publisher::new(Config::new("localhost:9092", "meters"))?;
//! let published = publisher.publish("meter-events", "m-1", &MeterEvent::MeterRead { watts: 230 }).await?;
//! println!("{} is at offset {}", published.event_id, published.offset);
//! publisher.close().await
//! # }
//! ```

mod client;
mod config;
mod core;
mod error;
mod outgoing;
mod pending;
mod properties;
mod publish;
mod queue;
mod record;
mod supervisor;

pub use config::Config;
pub use error::Error;
pub use error::ErrorKind;
pub use error::Undelivered;
pub use outgoing::Published;
pub use pending::Pending;
pub use publish::Publisher;

pub use crate::signal::shutdown_signal;
