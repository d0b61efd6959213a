//! What can go wrong when an event is written, and what follows from it.

use crate::event::EncodeError;
use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// The error of either client.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// An event is not written. If PostgreSQL refused it, the transaction is broken and can only be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value is not an event.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The aggregate's type cannot become a topic.
    #[error("expected an aggregate_type of 1 to 249 bytes without U+0000")]
    AggregateType,
    /// PostgreSQL does not store such a text.
    #[error("expected an aggregate_id without U+0000")]
    AggregateId,
    /// The moment cannot be written.
    #[error("expected an occurred_at between 1970 and 9999")]
    OccurredAt,
    /// The table is not what is written to.
    #[error("append to {table}: {message} ({sqlstate})")]
    Table {
        /// The table.
        table: String,
        /// PostgreSQL's code.
        sqlstate: String,
        /// What PostgreSQL says.
        message: String,
    },
    /// The role may not write there.
    #[error("append to {table}: {message} ({sqlstate})")]
    Rights {
        /// The table.
        table: String,
        /// PostgreSQL's code.
        sqlstate: String,
        /// What PostgreSQL says.
        message: String,
    },
    /// PostgreSQL gives up the transaction; the same again may pass.
    #[error("append to {table}: {message} ({sqlstate})")]
    Conflict {
        /// The table.
        table: String,
        /// PostgreSQL's code.
        sqlstate: String,
        /// What PostgreSQL says.
        message: String,
        /// The client's own error, by which a consumer knows that it is no fault of the event.
        #[source]
        source: Source,
    },
    /// PostgreSQL refuses the row.
    #[error("append to {table}: {message} ({sqlstate})")]
    Refused {
        /// The table.
        table: String,
        /// PostgreSQL's code.
        sqlstate: String,
        /// What PostgreSQL says, if it quotes no value.
        message: String,
    },
    /// The connection broke, or the client cannot use it.
    #[error("append to {table}")]
    Connection {
        /// The table.
        table: String,
        /// What the client says.
        #[source]
        source: Source,
    },
}

impl Error {
    /// Sorts what PostgreSQL says. Details are left out: they quote the row.
    pub(super) fn server(table: &str, sqlstate: &str, message: &str, source: Source) -> Self {
        let (table, sqlstate, message) = (table.to_owned(), sqlstate.to_owned(), message.to_owned());
        match sqlstate.as_str() {
            // A table, a schema or a column is not there, or is of another type.
            "42P01" | "3F000" | "42703" | "42804" => Self::Table { table, sqlstate, message },
            "42501" => Self::Rights { table, sqlstate, message },
            // Conflicts, resources, and an operator's or the server's own end.
            code if ["40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                Self::Conflict { table, sqlstate, message, source }
            }
            // Messages of data exceptions quote the value.
            code if code.starts_with("22") => {
                Self::Refused { table, sqlstate, message: "a value does not fit its column".to_owned() }
            }
            _ => Self::Refused { table, sqlstate, message },
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Encode(error) => error.code(),
            Self::AggregateType | Self::AggregateId | Self::OccurredAt => Code::new(Exit::Internal, 63),
            Self::Table { .. } => Code::new(Exit::Contract, 30),
            Self::Rights { .. } => Code::new(Exit::Rights, 40),
            Self::Refused { .. } => Code::new(Exit::Contract, 31),
            Self::Conflict { .. } => Code::new(Exit::Unavailable, 50),
            Self::Connection { .. } => Code::new(Exit::Unavailable, 51),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Conflict { .. } | Self::Connection { .. } => Fate::Transient,
            Self::Encode(_)
            | Self::AggregateType
            | Self::AggregateId
            | Self::OccurredAt
            | Self::Table { .. }
            | Self::Rights { .. }
            | Self::Refused { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Encode(error) => error.help(),
            Self::AggregateType | Self::AggregateId | Self::OccurredAt => None,
            Self::Table { table, .. } => Some(format!(
                "make {table} with `walrelay setup --with-outbox` (it prints the SQL, --apply runs it), or give \
                 outbox::Outbox::new the table and the columns that are there"
            )),
            Self::Rights { table, .. } => {
                Some(format!("GRANT INSERT ON {table} and USAGE on its schema to the application's role"))
            }
            Self::Refused { table, .. } => Some(format!("see constraints, triggers and column types of {table}")),
            Self::Conflict { .. } | Self::Connection { .. } => {
                Some("roll back, and run the whole transaction again".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_none_quotes_the_row() {
        let rows = [
            ("42P01", "WR-6530", Fate::Fatal),
            ("42703", "WR-6530", Fate::Fatal),
            ("42501", "WR-6740", Fate::Fatal),
            ("40001", "WR-6950", Fate::Transient),
            ("57P01", "WR-6950", Fate::Transient),
            ("23505", "WR-6531", Fate::Fatal),
            ("22P02", "WR-6531", Fate::Fatal),
        ];
        for (sqlstate, code, fate) in rows {
            let error = Error::server("shop.events", sqlstate, "the words", "what the client says".into());
            assert_eq!((error.code().to_string().as_str(), error.fate()), (code, fate), "{sqlstate}");
            assert_eq!(error.to_string().contains("the words"), sqlstate != "22P02", "{error}");
            assert!(error.to_string().starts_with("append to shop.events: "), "{error}");
        }
    }
}
