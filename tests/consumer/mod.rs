//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod dlq;
mod failing;
mod group;
mod harness;
mod inbox;
mod letters;
mod paused;
pub mod stage;
mod starting;
