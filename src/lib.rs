//! walrelay: a transactional outbox out of PostgreSQL into Kafka.

pub mod cursor;
pub mod fault;
pub mod lsn;
pub mod measure;
pub mod units;

pub mod relay;

pub mod metrics;

pub mod admin;
pub mod cli;
pub mod config;
pub mod testing;
