//! One file per verb.

pub mod demo;
pub mod healthcheck;
pub mod log;
