//! The program `walrelay`: a transactional outbox from PostgreSQL into Kafka.
//!
//! ```text
//!   outbox table --WAL--> postgres -> decode -> record -> publish --> Kafka
//!                            ^                              |
//!                            +-- feedback <- ledger <-------+  delivery reports
//! ```
//!
//! This crate is the program's inside, not an interface: applications use the library `walrelay-events`.
//! `ARCHITECTURE.md` is the map.

#![allow(missing_docs, reason = "nothing here is an interface: a comment says more than a name does, or is not there")]

pub mod cursor;
pub mod lsn;
pub mod measure;
pub mod secret;
pub mod shell;
pub mod units;

pub mod relay;

pub mod metrics;

pub mod admin;
pub mod cli;
pub mod config;
pub mod explain;
pub mod log;
