//! A server to connect to: its hosts, the role and the rules of TLS.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::units::Secret;

use super::config::ChannelBinding;
use super::config::SYSTEM;
use super::config::Tls;

/// The servers, the role and the database.
#[derive(Clone, Debug)]
pub struct Target {
    /// The servers to try, in this order.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// How TLS is used.
    pub ssl_mode: SslMode,
    /// Only a primary is suitable. This is the default for several hosts, since the primary may change;
    /// `target_session_attrs=any` overrides it.
    pub needs_read_write: bool,
    /// `sslrootcert`, `sslcert` and `sslkey`, if given.
    pub tls_files: TlsFiles,
    /// A password from the connection string or `PGPASSWORD`.
    pub password: Option<Secret>,
    /// The passwords of the password file for each server; it is not read if there is a password already.
    pub file_passwords: Vec<(Host, Secret)>,
    /// `channel_binding`, if given.
    pub channel_binding: Option<ChannelBinding>,
    /// Further `options` of the session.
    pub options: Option<String>,
    /// `connect_timeout`, if given.
    pub connect_timeout: Option<Duration>,
}

impl Target {
    /// Gives the same target with only the server of an established connection.
    #[must_use]
    pub fn only(&self, found: &Found) -> Self {
        let host = match &found.host {
            Host::Tcp { name, port, .. } => Host::Tcp { name: name.clone(), address: found.address, port: *port },
            Host::Unix { .. } => found.host.clone(),
        };
        let kept = self.file_passwords.iter().find(|(kept, _)| *kept == found.host);
        let file_passwords = kept.map(|(_, password)| (host.clone(), password.clone())).into_iter().collect();
        Self { hosts: vec![host], file_passwords, ..self.clone() }
    }

    /// Names the database and its servers, for people.
    #[must_use]
    pub fn database_on_servers(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        format!("{} on {}", self.dbname, hosts.join(", "))
    }

    /// Gives the password for one server.
    #[must_use]
    pub fn password_for(&self, host: &Host) -> Option<&Secret> {
        let of_file = || self.file_passwords.iter().find(|(kept, _)| kept == host).map(|(_, password)| password);
        self.password.as_ref().or_else(of_file)
    }

    /// Says whether the server's certificate would be verified with the authorities of this machine, but not its name.
    /// libpq rejects that too.
    #[must_use]
    pub fn accepts_any_server(&self, options: &Tls) -> bool {
        let of_url = self.tls_files.root_cert.as_deref().unwrap_or(SYSTEM);
        let roots = if options.root_cert == SYSTEM { of_url } else { &options.root_cert };
        let is_named = self.tls_files.root_cert.is_some();
        roots == SYSTEM && (self.ssl_mode == SslMode::VerifyCa || is_named && self.ssl_mode == SslMode::Require)
    }
}

/// One server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    /// A name or address, and a port.
    Tcp {
        /// The name, which the server's certificate must contain.
        name: String,
        /// The address, if it is given separately.
        address: Option<IpAddr>,
        port: u16,
    },
    /// A directory with a Unix socket.
    Unix {
        directory: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

impl Host {
    pub(super) fn is_here(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { name, address, .. } => address
                .or_else(|| name.parse().ok())
                .map_or(name == "localhost", |address: IpAddr| address.is_loopback()),
        }
    }
}

/// The server of an established connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The server as the target names it.
    pub host: Host,
    /// Its address; none for a Unix socket.
    pub address: Option<IpAddr>,
}

/// How TLS is used, with libpq's meanings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server supports it; the server is not authenticated.
    Prefer,
    /// Always; the server is authenticated only if a root certificate is given.
    Require,
    /// Always; the server's certificate must come from a trusted authority.
    VerifyCa,
    /// Always; the certificate must also contain the host name.
    VerifyFull,
}

/// The files for TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// The authorities to trust.
    pub root_cert: Option<String>,
    /// The client's certificate chain.
    pub cert: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}
