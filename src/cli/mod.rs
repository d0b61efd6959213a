//! One file per verb.

pub mod log;
