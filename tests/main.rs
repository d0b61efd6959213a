//! The integration tests: one binary, against real servers. They need PostgreSQL's server programs on this machine.

mod relay;
