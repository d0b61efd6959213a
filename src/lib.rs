//! The program `walrelay`: a transactional outbox from PostgreSQL into Kafka.
//!
//! ```text
//!   outbox table --WAL--> postgres -> decode -> record -> publish --> Kafka
//!                            ^                              |
//!                            +-- feedback <- ledger <-------+  delivery reports
//! ```
//!
//! This crate is the program's inside, not an interface: applications use the library `walrelay-events`. `ARCHITECTURE.md` is
//! the map.

pub mod cursor;
pub mod lsn;
pub mod measure;
pub mod units;

pub mod relay;

pub mod metrics;

pub mod admin;
pub mod cli;
pub mod config;
pub mod log;
