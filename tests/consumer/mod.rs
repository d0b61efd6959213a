//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod dead_letters;
mod dlq;
mod failing;
mod group;
mod harness;
mod inbox;
mod outage;
mod paused;
mod permissions;
pub mod stage;
mod starting;
