//! Rows to Kafka records: columns to roles by name, roles to topic, key, value, headers and partition.
//!
//! Pure: nothing is looked up, and nothing is rewritten to make it fit.

pub mod route;
pub mod row;
