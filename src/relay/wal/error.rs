//! What can go wrong with PostgreSQL, sorted by what happens next.

use std::io;

use openssl::error::ErrorStack;

use crate::cursor::Cursor;
use crate::cursor::Malformed;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::units::SecretError;

use super::BadConninfo;

/// A connection to PostgreSQL cannot be made, used or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection string cannot be used.
    #[error("read postgres.url")]
    Conninfo(#[from] BadConninfo),
    /// The password cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The network or the server is away.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The attempt took too long.
    #[error("connect to {host} within {seconds} s")]
    Timeout {
        /// The server.
        host: String,
        /// The limit.
        seconds: u64,
    },
    /// TLS cannot be set up as asked.
    #[error("set up TLS towards PostgreSQL")]
    TlsSetup(#[source] ErrorStack),
    /// The TLS handshake failed.
    #[error("TLS with {host}: {reason}")]
    Tls {
        /// The server.
        host: String,
        /// Which check failed.
        reason: String,
    },
    /// The server speaks no TLS.
    #[error("{host} refuses TLS, which sslmode requires")]
    TlsRefused {
        /// The server.
        host: String,
    },
    /// The server wants to authenticate us in a way that we do not accept.
    #[error("authenticate: {0}")]
    Authentication(String),
    /// No server of the list takes writes.
    #[error("{host} is a standby, and target_session_attrs asks for a server that takes writes")]
    ReadOnly {
        /// The server.
        host: String,
    },
    /// The server says no.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The connection ended without a word.
    #[error("the server closed the connection")]
    Closed,
    /// The server's bytes are not its protocol.
    #[error("read the server's answer")]
    Malformed(#[from] Malformed),
    /// A frame is larger than may be read.
    #[error("a message of {length} bytes is larger than the {limit} that may be read")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// An ordinary query failed for a reason that is not the server's.
    #[error("query PostgreSQL")]
    Query(#[source] Box<tokio_postgres::Error>),
}

/// An error that the server reports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message} (SQLSTATE {state}{})", detail.as_ref().map(|detail| format!(", {detail}")).unwrap_or_default())]
pub struct ServerError {
    /// The SQLSTATE.
    pub state: String,
    /// The message.
    pub message: String,
    /// The detail.
    pub detail: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse.
    #[must_use]
    pub fn parse(fields: &[u8]) -> Self {
        let mut found = Self { state: "XX000".to_owned(), message: "no message".to_owned(), detail: None };
        let mut cursor = Cursor::new(fields);
        while let Ok(kind) = cursor.u8("error field kind") {
            let Ok(text) = cursor.text("error field") else { break };
            match kind {
                b'C' => text.clone_into(&mut found.state),
                b'M' => text.clone_into(&mut found.message),
                b'D' => found.detail = Some(text.to_owned()),
                _ => {}
            }
        }
        found
    }

    /// What a server in this state needs: one table of SQLSTATEs.
    fn kind(&self) -> Kind {
        match self.state.as_str() {
            "55006" => Kind::SlotActive,
            "42704" => Kind::Missing,
            "55000" if self.is_lost_slot() => Kind::SlotLost,
            "55000" if self.message.contains("shut") => Kind::Away,
            "55000" => Kind::Contract,
            "57P01" => Kind::Shutdown,
            "28000" | "28P01" | "42501" => Kind::Rights,
            "42P01" | "3F000" | "42703" | "3D000" => Kind::Contract,
            "42601" | "22023" | "0A000" | "08P01" => Kind::Ours,
            "XX000" if self.message.contains("memory alloc") => Kind::RowTooLarge,
            // 08, 53, 57, 58 and whatever is new: it may pass, and is told each time.
            _ => Kind::Away,
        }
    }

    fn is_lost_slot(&self) -> bool {
        let detail = self.detail.as_deref().unwrap_or_default();
        self.message.starts_with("can no longer")
            || self.message.starts_with("cannot read from logical replication slot")
            || detail.contains("invalidated")
            || detail.contains("exceeded the maximum reserved size")
    }
}

#[derive(Clone, Copy)]
enum Kind {
    SlotActive,
    Missing,
    SlotLost,
    Contract,
    Shutdown,
    Rights,
    RowTooLarge,
    Ours,
    Away,
}

impl Error {
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Says whether the server is shutting down, or an administrator ended the connection.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "57P01")
    }

    /// Says whether another connection holds the slot.
    #[must_use]
    pub fn is_slot_active(&self) -> bool {
        matches!(self, Self::Server(error) if error.state == "55006")
    }

    /// Says whether the connection cannot be made because of credentials or rights, which may just be changing.
    #[must_use]
    pub fn is_about_rights(&self) -> bool {
        self.code().exit() == Exit::Rights
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Self::Server(ServerError {
                state: db.code().code().to_owned(),
                message: db.message().to_owned(),
                detail: db.detail().map(str::to_owned),
            });
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
            Self::Secret(_) => Code::new(Exit::Configuration, 21),
            Self::TlsSetup(_) => Code::new(Exit::Configuration, 22),
            Self::Io { .. } | Self::Closed | Self::Query(_) => Code::new(Exit::Unavailable, 1),
            Self::Timeout { .. } => Code::new(Exit::Unavailable, 2),
            Self::ReadOnly { .. } => Code::new(Exit::Unavailable, 3),
            Self::Tls { .. } => Code::new(Exit::Rights, 1),
            Self::TlsRefused { .. } => Code::new(Exit::Rights, 2),
            Self::Authentication(_) => Code::new(Exit::Rights, 3),
            Self::Malformed(_) => Code::new(Exit::Internal, 10),
            Self::TooLarge { .. } => Code::new(Exit::Poison, 2),
            Self::Server(error) => match error.kind() {
                Kind::SlotActive => Code::new(Exit::Unavailable, 4),
                Kind::Missing => Code::new(Exit::PositionLost, 1),
                Kind::SlotLost => Code::new(Exit::PositionLost, 2),
                Kind::Contract => Code::new(Exit::Contract, 5),
                Kind::Shutdown => Code::new(Exit::Unavailable, 5),
                Kind::Rights => Code::new(Exit::Rights, 4),
                Kind::RowTooLarge => Code::new(Exit::Poison, 3),
                Kind::Ours => Code::new(Exit::Internal, 11),
                Kind::Away => Code::new(Exit::Unavailable, 6),
            },
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Io { .. } | Self::Closed | Self::Query(_) | Self::Timeout { .. } | Self::ReadOnly { .. } => {
                Fate::Transient
            }
            Self::Conninfo(_)
            | Self::Secret(_)
            | Self::TlsSetup(_)
            | Self::Tls { .. }
            | Self::TlsRefused { .. }
            | Self::Authentication(_)
            | Self::Malformed(_)
            | Self::TooLarge { .. } => Fate::Fatal,
            Self::Server(error) => match error.kind() {
                Kind::SlotActive | Kind::Shutdown | Kind::Away => Fate::Transient,
                Kind::Missing | Kind::SlotLost | Kind::Contract | Kind::Rights | Kind::RowTooLarge | Kind::Ours => {
                    Fate::Fatal
                }
            },
        }
    }

    fn help(&self) -> Option<String> {
        let text = match self {
            Self::Conninfo(_) => "mend postgres.url",
            Self::Secret(_) => "provide the secret, or change postgres.password",
            Self::TlsSetup(_) => "check the files under [postgres.tls]",
            Self::Tls { .. } => {
                "check postgres.tls.root_cert and the host name in postgres.url against the certificate"
            }
            Self::TlsRefused { .. } => {
                "turn on ssl in PostgreSQL, or set sslmode=disable in postgres.url if the way is private"
            }
            Self::Authentication(_) => {
                "use SCRAM (password_encryption = 'scram-sha-256'), or allow less under [postgres]"
            }
            Self::Server(error) => match error.kind() {
                Kind::Rights => "check user and password, the role's LOGIN and REPLICATION attributes, and pg_hba.conf",
                Kind::Missing => "run `walrelay setup --apply`",
                Kind::SlotLost => "the log that the slot needed is gone: compare the outbox table before a new setup",
                Kind::Contract => "mend what the server names, then restart",
                Kind::RowTooLarge => "the row is larger than the server can send; it must be dealt with by hand",
                Kind::Ours => "please report this",
                Kind::SlotActive | Kind::Shutdown | Kind::Away => return None,
            },
            Self::Malformed(_) => "check that postgres.url leads to a PostgreSQL server and not to something between",
            Self::TooLarge { .. } => "raise postgres.max_row_bytes",
            Self::Io { .. } | Self::Closed | Self::Query(_) | Self::Timeout { .. } | Self::ReadOnly { .. } => {
                return None;
            }
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_is_sorted_by_its_sqlstate() {
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
            ("55000", "replication slot \"s\" was not created in this database", None, "WR-6505", Fate::Fatal),
            ("55006", "replication slot \"s\" is active for PID 7", None, "WR-6904", Fate::Transient),
            ("57P01", "terminating connection due to administrator command", None, "WR-6905", Fate::Transient),
            ("57P03", "the database system is starting up", None, "WR-6906", Fate::Transient),
            ("53300", "too many connections", None, "WR-6906", Fate::Transient),
            ("XX000", "invalid memory alloc request size 1073741824", None, "WR-6803", Fate::Fatal),
            ("XX000", "could not open file", None, "WR-6906", Fate::Transient),
        ];
        for (state, message, detail, code, fate) in rows {
            let detail = detail.map(str::to_owned);
            let error = Error::Server(ServerError { state: state.into(), message: message.into(), detail });
            assert_eq!((error.code().to_string().as_str(), error.fate()), (code, fate), "{state} {message}");
        }
    }

    #[test]
    fn an_error_response_is_read_by_its_fields() {
        let error = ServerError::parse(b"SFATAL\0C28P01\0Mno\0Dbecause\0\0");
        assert_eq!(error.to_string(), "no (SQLSTATE 28P01, because)");
    }
}
