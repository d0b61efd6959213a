//! The options of `[http]`.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::Serialize;

/// Where `/metrics`, `/livez`, `/readyz` and `/status` are served.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address to listen on. Anyone who can reach it can read the names of database, brokers and topics, lag, WAL
    /// positions and the last error.
    pub listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7430)) }
    }
}
