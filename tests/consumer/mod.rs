//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod away;
mod dlq;
mod failing;
mod group;
mod guarded;
mod harness;
mod inbox;
mod letters;
mod paused;
pub mod stage;
mod starting;
