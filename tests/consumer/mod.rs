//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod failing;
mod inbox;
mod letters;
mod paused;
mod stage;
mod starting;
