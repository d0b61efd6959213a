//! Logging: `[log]`, and the subscriber that writes to standard error.

use serde::Deserialize;
use serde::Serialize;

/// What is logged, and how it looks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How a line looks.
    pub format: Format,
    /// The least level, or a filter such as `"info,walrelay::relay=debug"`.
    pub level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `pretty` on a terminal, `json` otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::default(), level: "info".to_owned() }
    }
}
