//! `/metrics`, `/livez`, `/readyz`, `/status` and one small page, on a thread of their own.

mod config;

pub use config::Config;
