//! The options of `[postgres]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::units;
use crate::units::SecretRef;

/// The value of `root_cert` for the certificate authorities that this machine trusts.
pub(super) const SYSTEM: &str = "system";

/// The connection to PostgreSQL.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A libpq connection URI or key/value string. Missing parameters come from the `PG*` variables, then from libpq's
    /// defaults.
    pub url: String,
    /// The source of the password, if it is not in the URL, `PGPASSWORD` or the password file. It is read at each
    /// connect.
    pub password: Option<SecretRef>,
    /// The timeout for connecting and authenticating.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// The walsender terminates a connection that sends nothing for this long.
    #[serde(with = "units::duration")]
    pub wal_sender_timeout: Duration,
    /// The memory of the walsender for decoding before it spills to disk.
    #[serde(with = "units::bytes")]
    pub logical_decoding_work_mem: u64,
    /// Accept a server that requests the password in clear text or as MD5.
    pub allow_weak_auth: bool,
    /// The largest row.
    #[serde(with = "units::bytes")]
    pub max_row_bytes: u64,
    /// TLS to PostgreSQL.
    pub tls: Tls,
}

/// TLS to PostgreSQL; `sslmode` is part of the URL, as in libpq.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `"system"`, or a PEM file with the certificate authorities to trust.
    pub root_cert: String,
    /// The client's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// The client's private key, PEM.
    pub key: Option<PathBuf>,
    /// `"require"`, `"prefer"` or `"disable"`: bind the SCRAM exchange to the TLS session.
    pub channel_binding: ChannelBinding,
}

/// Whether the SCRAM exchange is bound to the TLS session.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Whenever the server offers it.
    Prefer,
    /// Always, for SCRAM over TLS: the default.
    #[default]
    Require,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "postgres:///".to_owned(),
            password: None,
            connect_timeout: Duration::from_secs(10),
            wal_sender_timeout: Duration::from_secs(60),
            logical_decoding_work_mem: 64 << 20,
            allow_weak_auth: false,
            max_row_bytes: 32 << 20,
            tls: Tls::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { root_cert: SYSTEM.to_owned(), cert: None, key: None, channel_binding: ChannelBinding::default() }
    }
}
