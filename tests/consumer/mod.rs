//! The consumer runtime on a real Kafka, its inbox in a real PostgreSQL.

mod control;
mod dead_letters;
mod dlq;
mod environment;
mod failing;
mod group;
mod handlers;
mod harness;
mod inbox;
mod joining;
mod long;
mod outage;
mod paused;
mod permissions;
mod positions;
mod revoked;
mod runs;
mod sqlx;
pub mod stage;
mod starting;
mod stopping;
mod tokens;
mod truncated;
