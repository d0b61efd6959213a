//! The integration tests: one binary, against real servers. They need PostgreSQL's server programs, Java and Kafka's
//! jars on this machine; `make test` provides them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(missing_docs, unreachable_pub, reason = "the tests are one program of their own")]

mod adopter;
mod architecture;
mod cli;
mod consumer;
mod deploy;
mod outbox;
mod prose;
mod publisher;
mod relay;
mod support;
