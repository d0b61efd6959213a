//! One file per verb.

pub mod healthcheck;
pub mod log;
