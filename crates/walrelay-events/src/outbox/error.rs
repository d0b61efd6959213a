//! Why an event was not appended, and whether a retry can help.

use std::fmt;

use crate::event::EncodeError;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::sqlstate;
use crate::sqlstate::Cause;

/// The error of tokio-postgres or sqlx.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// An event was not appended. If PostgreSQL refused it, the transaction is aborted and can only be rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The value is not an event.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The aggregate type cannot become a topic.
    #[error("invalid aggregate_type: expected 1 to 249 bytes without U+0000")]
    AggregateType,
    /// PostgreSQL cannot store the aggregate id.
    #[error("invalid aggregate_id: it contains U+0000")]
    AggregateId,
    /// The time cannot be stored.
    #[error("invalid occurred_at: expected a time from 1970 to 9999")]
    OccurredAt,
    /// The table or one of its columns does not exist, or has another type.
    #[error("cannot append to {table}: {message} ({sqlstate})")]
    Table {
        /// The outbox table, as `schema.table`.
        table: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// PostgreSQL's message.
        message: String,
        /// The client's error.
        source: ClientError,
    },
    /// The role has no permission.
    #[error("cannot append to {table}: {message} ({sqlstate})")]
    PermissionDenied {
        /// The outbox table, as `schema.table`.
        table: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// PostgreSQL's message.
        message: String,
        /// The client's error.
        source: ClientError,
    },
    /// PostgreSQL aborted the transaction through no fault of the row, or at a limit. The same transaction may succeed
    /// when it is run again.
    #[error("cannot append to {table}: {message} ({sqlstate})")]
    Aborted {
        /// The outbox table, as `schema.table`.
        table: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// PostgreSQL's message.
        message: String,
        /// The client's error. A consumer recognizes a transient failure by it.
        #[source]
        source: Source,
    },
    /// PostgreSQL refused the row.
    #[error("cannot append to {table}: {message} ({sqlstate})")]
    Refused {
        /// The outbox table, as `schema.table`.
        table: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// PostgreSQL's message, if it quotes no value.
        message: String,
        /// The client's error.
        source: ClientError,
    },
    /// The connection failed, or the client cannot use it.
    #[error("cannot append to {table}")]
    Connection {
        /// The outbox table, as `schema.table`.
        table: String,
        /// The client's error.
        #[source]
        source: Source,
    },
}

impl Error {
    /// Sorts an error of PostgreSQL. Details are dropped, because they quote the row.
    pub(super) fn server(table: &str, sqlstate: &str, message: &str, source: Source) -> Self {
        let (table, sqlstate, message) = (table.to_owned(), sqlstate.to_owned(), message.to_owned());
        match sqlstate.as_str() {
            // Undefined table, schema or column; datatype mismatch.
            "42P01" | "3F000" | "42703" | "42804" => {
                Self::Table { table, sqlstate, message, source: ClientError(source) }
            }
            "42501" => Self::PermissionDenied { table, sqlstate, message, source: ClientError(source) },
            code if sqlstate::cause(code) != Cause::Statement => Self::Aborted { table, sqlstate, message, source },
            // Messages of data exceptions quote values.
            code if code.starts_with("22") => {
                let message = "a value is invalid for its column".to_owned();
                Self::Refused { table, sqlstate, message, source: ClientError(source) }
            }
            _ => Self::Refused { table, sqlstate, message, source: ClientError(source) },
        }
    }

    /// Returns the error of tokio-postgres or sqlx, for example to find a violated constraint. Its text can quote the
    /// row.
    #[must_use]
    pub fn client_error(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match self {
            Self::Encode(_) | Self::AggregateType | Self::AggregateId | Self::OccurredAt => None,
            Self::Table { source, .. } | Self::PermissionDenied { source, .. } | Self::Refused { source, .. } => {
                Some(&*source.0)
            }
            Self::Aborted { source, .. } | Self::Connection { source, .. } => Some(&**source),
        }
    }
}

/// The error of a client whose text can quote the row. It is displayed without the text and is found by
/// [`Error::client_error`] only, so that no log and no dead-letter record shows the row.
#[derive(thiserror::Error)]
#[error("PostgreSQL refused the statement")]
pub struct ClientError(Source);

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientError")
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Encode(error) => error.code(),
            Self::AggregateType | Self::AggregateId | Self::OccurredAt => Code::new(Exit::Internal, 63),
            Self::Table { .. } => Code::new(Exit::Mismatch, 30),
            Self::PermissionDenied { .. } => Code::new(Exit::Rights, 40),
            Self::Refused { .. } => Code::new(Exit::Mismatch, 31),
            Self::Aborted { .. } => Code::new(Exit::Unavailable, 50),
            Self::Connection { .. } => Code::new(Exit::Unavailable, 51),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Aborted { .. } | Self::Connection { .. } => Fate::Transient,
            Self::Encode(_)
            | Self::AggregateType
            | Self::AggregateId
            | Self::OccurredAt
            | Self::Table { .. }
            | Self::PermissionDenied { .. }
            | Self::Refused { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Encode(error) => error.help(),
            Self::AggregateType | Self::AggregateId | Self::OccurredAt => None,
            Self::Table { table, .. } => Some(format!(
                "create {table} with `walrelay setup --with-outbox --apply`, or pass the existing table and columns to \
                 outbox::Outbox::new"
            )),
            Self::PermissionDenied { table, .. } => {
                Some(format!("GRANT INSERT ON {table} TO the application's role, and USAGE on its schema"))
            }
            Self::Refused { table, .. } => Some(format!("check the constraints, triggers and column types of {table}")),
            Self::Aborted { .. } | Self::Connection { .. } => Some("roll back and retry the transaction".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_code_and_no_error_quotes_the_row() {
        let rows = [
            ("42P01", "WR-6530", Fate::Fatal),
            ("42703", "WR-6530", Fate::Fatal),
            ("42501", "WR-6740", Fate::Fatal),
            ("40001", "WR-6950", Fate::Transient),
            ("57P01", "WR-6950", Fate::Transient),
            ("57014", "WR-6950", Fate::Transient),
            ("25006", "WR-6950", Fate::Transient),
            ("08006", "WR-6950", Fate::Transient),
            ("08P01", "WR-6950", Fate::Transient),
            ("55P03", "WR-6950", Fate::Transient),
            ("23505", "WR-6531", Fate::Fatal),
            ("22P02", "WR-6531", Fate::Fatal),
        ];
        for (sqlstate, code, fate) in rows {
            let error = Error::server("shop.events", sqlstate, "the message", "the row".into());
            assert_eq!((error.code().to_string().as_str(), error.fate()), (code, fate), "{sqlstate}");
            assert_eq!(error.to_string().contains("the message"), sqlstate != "22P02", "{error}");
            assert!(error.to_string().starts_with("cannot append to shop.events: "), "{error}");
            assert_eq!(error.client_error().map(ToString::to_string).as_deref(), Some("the row"), "{sqlstate}");
            if fate == Fate::Fatal {
                let shown = format!("{error:?} {}", crate::fault::chain(&error));
                assert!(!shown.contains("the row"), "{shown}");
            }
        }
    }
}
