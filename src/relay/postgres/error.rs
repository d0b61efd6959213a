//! Errors of connections to PostgreSQL, classified by what happens next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use openssl::error::ErrorStack;

use crate::cursor::Malformed;
use crate::units::SecretError;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

use super::params::BadConninfo;
use super::server::Kind;
use super::server::ServerError;

/// A connection to PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection string cannot be used.
    #[error("cannot parse postgres.url")]
    Conninfo(#[from] BadConninfo),
    /// The password cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The operating system or the network failed.
    #[error("{action}")]
    Io {
        /// What failed, as in "could not connect to db:5432".
        action: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The connection was not established in time.
    #[error("connection to {host} timed out after {limit:.1?}")]
    Timeout {
        /// The server.
        host: String,
        limit: Duration,
    },
    /// A query on an established connection took too long.
    #[error("query timed out after {limit:.1?}")]
    NoAnswer { limit: Duration },
    /// Every host failed.
    #[error("connection to every host failed: {}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    NoHost(Vec<Error>),
    /// A certificate or key cannot be read.
    #[error("could not read file {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be configured.
    #[error("{what}")]
    TlsSetup {
        /// What failed.
        what: String,
        /// OpenSSL's error.
        #[source]
        source: ErrorStack,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {host} failed: {reason}")]
    Tls {
        /// The server.
        host: String,
        /// The check that failed.
        reason: String,
    },
    /// The server does not support TLS.
    #[error("{host} does not support SSL, but SSL was required")]
    TlsRefused {
        /// The server.
        host: String,
    },
    /// The server's authentication method is not accepted.
    #[error("authentication failed: {reason}")]
    Authentication {
        reason: String,
        /// The next step.
        next: &'static str,
    },
    /// The server is a standby: the slot and the stored position are the primary's.
    #[error("{host} is in recovery: it is a standby, or not yet the primary")]
    ReadOnly {
        /// The server.
        host: String,
    },
    /// The server reported an error.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The connection was closed without an error message.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// The server did not end the stream in time: events after an older confirmed position may be sent again.
    #[error("end of replication timed out after {limit:.1?}")]
    NoEnd { limit: Duration },
    /// A server of this version has no failover slots.
    #[error("PostgreSQL {version} does not support failover slots, which need PostgreSQL 17")]
    NoFailover {
        /// The major version.
        version: u32,
    },
    /// A message lacks a field or has an invalid one, or was not expected.
    #[error("invalid or missing {field} in a message of the server")]
    Answer { field: &'static str },
    /// A message violates the protocol.
    #[error("cannot parse a message of the server")]
    Malformed(#[from] Malformed),
    /// A message is larger than the limit.
    #[error("a message of {length} bytes is larger than the limit of {limit} bytes")]
    TooLarge { length: usize, limit: usize },
    /// An ordinary query failed in the client.
    #[error("query failed")]
    Query(#[source] Box<tokio_postgres::Error>),
}

impl Error {
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub(super) fn unknown(what: &'static str, kind: u8) -> Self {
        Malformed::UnknownKind { what, kind }.into()
    }

    /// Says whether the server is shutting down or restarting, or an administrator terminated this connection. An
    /// established connection gets 57P01 or 57P02, a new one 57P03.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        if let Self::NoHost(failures) = self {
            return failures.iter().any(Self::is_shutdown);
        }
        matches!(self, Self::Server(error) if matches!(error.state.as_str(), "57P01" | "57P02" | "57P03"))
    }

    /// Says whether the connection must be closed after this error.
    #[must_use]
    pub fn ends(&self, client: &tokio_postgres::Client) -> bool {
        self.is_shutdown() || !matches!(self, Self::Server(_)) || client.is_closed()
    }

    /// Says whether another connection holds the slot.
    #[must_use]
    pub fn is_slot_active(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "55006")
    }

    /// Says whether `pg_hba.conf` rejects the connection.
    #[must_use]
    pub fn is_refused_by_rules(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "28000")
    }

    /// Says whether it is about a value that the server cannot send.
    #[must_use]
    pub fn is_about_content(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_about_content())
    }

    /// Says whether the error would come again at the same position. An error that passes with time or by an operator's
    /// action would not, and neither would a lost connection.
    #[must_use]
    pub fn recurs_at_position(&self) -> bool {
        matches!(self, Self::Server(error) if !error.may_pass())
    }

    /// Gives the SQLSTATE of an error of the server.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        if let Self::Server(error) = self { Some(&error.state) } else { None }
    }

    /// Gives the server's function that failed; empty if a pooler answered.
    #[must_use]
    pub fn routine(&self) -> Option<&str> {
        if let Self::Server(error) = self { Some(error.routine()) } else { None }
    }

    /// Says whether the REPLICATION attribute is missing.
    #[must_use]
    pub fn is_about_replication(&self) -> bool {
        matches!(self, Self::Server(error) if matches!(error.kind(), Kind::Replication))
    }

    /// Says whether a table does not exist.
    #[must_use]
    pub fn is_missing_table(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "42P01")
    }

    /// Says whether the publication did not exist when a change was written.
    #[must_use]
    pub fn is_missing_publication(&self) -> bool {
        matches!(self, Self::Server(error) if matches!(error.kind(), Kind::SlotOlder))
    }

    /// Says whether a privilege is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "42501")
    }

    /// Gives the next step if the server must be changed, independently of the statement.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        let Self::Server(error) = self else { return None };
        matches!(error.kind(), Kind::WalLevel | Kind::NoSlot | Kind::NoDatabase).then(|| error.kind().help())?
    }

    /// Gives the PID of the process that holds the slot.
    #[must_use]
    pub fn slot_holder(&self) -> Option<u32> {
        let Self::Server(ServerError { state, message, .. }) = self else { return None };
        if state == "55006" { message.rsplit_once(' ')?.1.parse().ok() } else { None }
    }

    /// Says whether a file for TLS is missing or invalid: it may be while it is being replaced.
    #[must_use]
    pub fn is_about_files(&self) -> bool {
        let of_one_host =
            matches!(self, Self::NoHost(failures) if decisive(failures).is_some_and(Self::is_about_files));
        of_one_host || matches!(self, Self::TlsFile { .. } | Self::TlsSetup { .. } | Self::Secret(_))
    }

    /// Says whether credentials or privileges are wrong: they may be while they are being changed.
    #[must_use]
    pub fn is_about_rights(&self) -> bool {
        self.code().exit() == Exit::Rights
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let error = ServerError::new(db.code().code(), db.message(), db.detail(), db.where_());
            return Self::Server(error.in_routine(db.routine()));
        }
        if error.is_closed() {
            return Self::Closed;
        }
        Self::Query(Box::new(error))
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Conninfo(_) => Code::new(Exit::Configuration, 20),
            Self::Secret(_) => Code::new(Exit::Rights, 5),
            Self::TlsSetup { .. } | Self::TlsFile { .. } => Code::new(Exit::Configuration, 22),
            Self::Io { .. } | Self::Closed | Self::Query(_) | Self::NoEnd { .. } => Code::new(Exit::Unavailable, 1),
            Self::Timeout { .. } | Self::NoAnswer { .. } => Code::new(Exit::Unavailable, 2),
            Self::ReadOnly { .. } => Code::new(Exit::Unavailable, 3),
            Self::NoHost(failures) => decisive(failures).map_or(Code::new(Exit::Unavailable, 1), Diagnose::code),
            Self::Tls { .. } => Code::new(Exit::Rights, 1),
            Self::TlsRefused { .. } => Code::new(Exit::Rights, 2),
            Self::Authentication { .. } => Code::new(Exit::Rights, 3),
            Self::NoFailover { .. } => Code::new(Exit::Mismatch, 6),
            Self::Malformed(_) | Self::Answer { .. } => Code::new(Exit::Internal, 10),
            Self::TooLarge { .. } => Code::new(Exit::Poison, 2),
            Self::Server(error) => match error.kind() {
                Kind::SlotActive => Code::new(Exit::Unavailable, 4),
                Kind::Missing => Code::new(Exit::PositionLost, 1),
                Kind::SlotLost => Code::new(Exit::PositionLost, 2),
                Kind::Mismatch | Kind::WalLevel | Kind::NoDatabase | Kind::SlotOlder => Code::new(Exit::Mismatch, 5),
                Kind::Pooled => Code::new(Exit::Mismatch, 7),
                Kind::Content => Code::new(Exit::Poison, 4),
                Kind::Shutdown => Code::new(Exit::Unavailable, 5),
                Kind::Login | Kind::Replication | Kind::Rights => Code::new(Exit::Rights, 4),
                Kind::RowTooLarge => Code::new(Exit::Poison, 3),
                Kind::Pooler | Kind::Client => Code::new(Exit::Internal, 11),
                Kind::Setting => Code::new(Exit::Configuration, 23),
                Kind::Unavailable | Kind::NoSlot => Code::new(Exit::Unavailable, 6),
            },
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Io { .. }
            | Self::Closed
            | Self::Query(_)
            | Self::NoEnd { .. }
            | Self::Timeout { .. }
            | Self::NoAnswer { .. }
            | Self::ReadOnly { .. } => Fate::Transient,
            Self::NoHost(failures) => decisive(failures).map_or(Fate::Transient, Diagnose::fate),
            Self::Conninfo(_)
            | Self::Secret(_)
            | Self::TlsSetup { .. }
            | Self::TlsFile { .. }
            | Self::Tls { .. }
            | Self::TlsRefused { .. }
            | Self::Authentication { .. }
            | Self::NoFailover { .. }
            | Self::Malformed(_)
            | Self::Answer { .. }
            | Self::TooLarge { .. } => Fate::Fatal,
            Self::Server(error) => match error.kind() {
                Kind::SlotActive | Kind::Shutdown | Kind::Unavailable | Kind::NoSlot => Fate::Transient,
                Kind::Missing
                | Kind::SlotLost
                | Kind::Mismatch
                | Kind::WalLevel
                | Kind::NoDatabase
                | Kind::SlotOlder
                | Kind::Login
                | Kind::Replication
                | Kind::Rights
                | Kind::RowTooLarge
                | Kind::Content
                | Kind::Pooler
                | Kind::Pooled
                | Kind::Setting
                | Kind::Client => Fate::Fatal,
            },
        }
    }

    fn help(&self) -> Option<String> {
        let text = match self {
            Self::Conninfo(_) => "correct postgres.url",
            Self::Secret(error) => return Some(error.help()),
            Self::TlsSetup { .. } | Self::TlsFile { .. } => "check the files under [postgres.tls]",
            Self::NoHost(failures) => return decisive(failures)?.help(),
            Self::Tls { .. } => {
                "check postgres.tls.root_cert, and the host name in postgres.url against the names in the certificate"
            }
            Self::TlsRefused { .. } => {
                "set ssl = on in postgresql.conf, or sslmode=disable in postgres.url if the network is trusted"
            }
            Self::Authentication { next, .. } => next,
            Self::NoFailover { .. } => "set source.failover = \"auto\" or \"off\"",
            Self::Server(error) => error.kind().help()?,
            Self::Malformed(_) | Self::Answer { .. } => {
                "check that postgres.url names a PostgreSQL server and no proxy"
            }
            Self::TooLarge { .. } => "raise postgres.max_row_bytes",
            Self::Io { .. }
            | Self::Closed
            | Self::Query(_)
            | Self::NoEnd { .. }
            | Self::Timeout { .. }
            | Self::NoAnswer { .. }
            | Self::ReadOnly { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// Gives the error that decides for several hosts: a transient one, since a retry can then help.
fn decisive(failures: &[Error]) -> Option<&Error> {
    failures.iter().find(|error| error.fate() == Fate::Transient).or(failures.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_is_classified_by_its_sqlstate() {
        let rows = [
            ("28P01", "password authentication failed", None, "WR-6704", Fate::Fatal),
            ("42501", "permission denied", None, "WR-6704", Fate::Fatal),
            ("42704", "replication slot \"s\" does not exist", None, "WR-6601", Fate::Fatal),
            ("55000", "cannot read from logical replication slot \"s\"", None, "WR-6602", Fate::Fatal),
            (
                "55000",
                "can no longer access replication slot \"s\"",
                Some("This replication slot has been invalidated due to \"wal_removed\"."),
                "WR-6602",
                Fate::Fatal,
            ),
            ("42704", "publication \"p\" does not exist", None, "WR-6505", Fate::Fatal),
            ("28000", "no pg_hba.conf entry for host", None, "WR-6704", Fate::Fatal),
            ("08P01", "unsupported startup parameter: replication", None, "WR-7011", Fate::Fatal),
            ("08P01", "query_wait_timeout", None, "WR-6906", Fate::Transient),
            ("08P01", "no more connections allowed (max_client_conn)", None, "WR-6906", Fate::Transient),
            ("08P01", "transaction blocks not allowed in statement pooling mode", None, "WR-6507", Fate::Fatal),
            ("26000", "prepared statement \"s1\" does not exist", None, "WR-6507", Fate::Fatal),
            ("42P05", "prepared statement \"s1\" already exists", None, "WR-6507", Fate::Fatal),
            ("22021", "invalid byte sequence for encoding \"UTF8\": 0xe9", None, "WR-6804", Fate::Fatal),
            ("22P05", "character with byte sequence 0x81 has no equivalent", None, "WR-6804", Fate::Fatal),
            ("25006", "cannot execute INSERT in a read-only transaction", None, "WR-6906", Fate::Transient),
            ("99999", "what nobody has seen yet", None, "WR-6906", Fate::Transient),
            ("55000", "replication slot \"s\" was not created in this database", None, "WR-6505", Fate::Fatal),
            ("55006", "replication slot \"s\" is active for PID 7", None, "WR-6904", Fate::Transient),
            ("57P01", "terminating connection due to administrator command", None, "WR-6905", Fate::Transient),
            ("57P03", "the database system is starting up", None, "WR-6906", Fate::Transient),
            ("53300", "too many connections", None, "WR-6906", Fate::Transient),
            ("XX000", "invalid memory alloc request size 1073741824", None, "WR-6803", Fate::Fatal),
            ("XX000", "could not open file", None, "WR-6906", Fate::Transient),
        ];
        for (state, message, detail, code, fate) in rows {
            let error = Error::Server(ServerError::new(state, message, detail, None));
            assert_eq!((error.code().to_string().as_str(), error.fate()), (code, fate), "{state} {message}");
        }
    }

    #[test]
    fn the_holder_of_a_slot_is_named() {
        let held = ServerError::new("55006", "replication slot \"s\" is active for PID 4711", None, None);
        assert_eq!(Error::Server(held).slot_holder(), Some(4_711));
    }

    #[test]
    fn several_hosts_are_transient_while_one_of_them_is() {
        let refused = || Error::TlsRefused { host: "a".to_owned() };
        assert_eq!(Error::NoHost(vec![refused(), Error::Closed, refused()]).fate(), Fate::Transient);
        let all = Error::NoHost(vec![refused(), refused()]);
        assert_eq!((all.fate(), all.code().to_string().as_str()), (Fate::Fatal, "WR-6702"));
        assert_eq!(all.to_string().matches("does not support SSL").count(), 2);
    }
}
