//! The integration tests: one binary, against real servers. They need PostgreSQL's server programs on this machine.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod relay;
