//! One file per verb.

pub mod demo;
pub mod log;
