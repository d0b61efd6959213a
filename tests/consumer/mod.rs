//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod away;
mod dlq;
mod failing;
mod group;
mod guarded;
mod inbox;
mod letters;
pub mod stage;
mod starting;
