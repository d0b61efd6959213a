//! Converts rows to Kafka records: columns to roles by name, roles to topic, key, value, headers and partition.
//!
//! Pure: no lookups, and no value is rewritten to make it valid.

pub mod route;
pub mod row;
