//! Errors that end a connection or the relay.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::metrics::Component;
use crate::relay::pipeline;
use crate::relay::poll::error as poll;
use crate::relay::postgres;
use crate::relay::publish;
use crate::relay::record::route::BadTemplate;
use crate::relay::retry::recurrence::FailurePosition;
use crate::relay::stream::position;
use crate::relay::stream::resume::Lost;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The relay must stop, or this connection must end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An `[[outbox]]` cannot be used.
    #[error("cannot use the [[outbox]] of table {table}")]
    Outbox {
        table: String,
        /// The mistake.
        #[source]
        source: BadTemplate,
    },
    /// A connection to PostgreSQL or a query failed.
    #[error("cannot {action}")]
    Postgres {
        /// The attempt, as in "connect to PostgreSQL".
        action: &'static str,
        /// The cause.
        #[source]
        source: postgres::Error,
    },
    /// The server ended the replication stream with an error.
    #[error("replication failed {}", at_row(*at, *row))]
    Raised {
        /// The commit of the transaction, or the end of the last one.
        at: Lsn,
        /// The number of its rows that were received.
        row: Option<u64>,
        slot: String,
        /// The same error came at the same position before.
        is_recurring: bool,
        /// The server's error.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The catalog check failed.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The stored position.
    #[error(transparent)]
    Position(#[from] position::Error),
    /// Events may be missing if the relay starts.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The replication stream cannot be decoded or routed.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The outbox cannot be polled.
    #[error(transparent)]
    Poll(#[from] poll::Error),
    /// A producer cannot be created.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// A record was not delivered, or the producer failed.
    #[error(transparent)]
    Failure(#[from] publish::Failure),
    /// Commits of the application would wait for the relay.
    #[error(
        "cannot replicate as a synchronous standby: synchronous_standby_names = '{names}' includes this relay, and \
         commits would wait for Kafka"
    )]
    Synchronous {
        /// The setting.
        names: String,
    },
    /// The server sent nothing for too long.
    #[error("connection timed out: no message from the server for {} s", limit.as_secs())]
    Silent { limit: Duration },
    /// Records were not acknowledged before the shutdown timeout.
    #[error("shutdown timed out after {} s: {records} records are not acknowledged", limit.as_secs())]
    DrainTimeout {
        /// Their number.
        records: u64,
        limit: Duration,
    },
    /// The relay stopped without a connection to PostgreSQL: an acknowledgement could not be confirmed.
    #[error("stopped while {records} records are not acknowledged; further events may remain in PostgreSQL")]
    Unacknowledged {
        /// Their number.
        records: u64,
    },
    /// The shutdown timed out for another reason than Kafka.
    #[error("shutdown timed out after {} s: {what}, although every record is acknowledged", limit.as_secs())]
    Undrained {
        /// What was not finished.
        what: &'static str,
        limit: Duration,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The same where positions are not stored, so that there is no gap to accept.
    #[error(transparent)]
    NotStored(Box<Self>),
}

impl Error {
    /// Adds what was tried to an error of a connection or a query.
    pub(super) fn postgres<E: Into<postgres::Error>>(action: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Postgres { action, source: error.into() }
    }

    /// Says whether a file with a secret or a key is missing or invalid: it may be while it is being replaced.
    #[must_use]
    pub fn is_about_files(&self) -> bool {
        let of_postgres = matches!(self, Self::Postgres { source, .. } if source.is_about_files());
        of_postgres || matches!(self, Self::Publish(error) if error.is_about_files())
    }

    /// Gives the error of a drain that timed out with these records in flight, perhaps in an open transaction.
    pub(super) const fn undrained(records: u64, is_within_transaction: bool, limit: Duration) -> Self {
        match records {
            0 if is_within_transaction => {
                Self::Undrained { what: "the open transaction was not read completely", limit }
            }
            0 => Self::Undrained { what: "the last position was not stored", limit },
            records => Self::DrainTimeout { records, limit },
        }
    }

    /// Adds the role, if it lacks a privilege on the stored position.
    pub(super) fn of_role(self, role: &str) -> Self {
        if let Self::Position(error) = self { Self::Position(error.of_role(role)) } else { self }
    }

    /// Replaces the help where positions are not stored: there is no gap to accept.
    pub(super) fn not_stored(self) -> Self {
        let is_gap = matches!(
            &self,
            Self::Lost(_) | Self::Catalog(catalog::Error::Unseen { .. } | catalog::Error::ColumnRenamed { .. })
        );
        let is_at_a_row = matches!(&self, Self::Raised { row: Some(_), is_recurring, source, .. }
                                   if *is_recurring || source.is_about_content());
        if is_gap || is_at_a_row { Self::NotStored(Box::new(self)) } else { self }
    }

    /// The next step where a restart is enough.
    fn restart(&self) -> String {
        if let Self::Raised { at, slot, .. } = self {
            return past(*at, slot, "restart");
        }
        if let Self::Catalog(catalog::Error::ColumnRenamed { before, now, role, .. }) = self {
            return format!(
                "{}; or restart, if events need its values no longer",
                catalog::both_names(role, now, before)
            );
        }
        "compare the outbox table with Kafka, then restart: positions are not stored (source.store_position), and a \
         restart starts at the slot's position"
            .to_owned()
    }

    /// Gives the SQLSTATE and the position, if the server failed at a position of the source.
    pub(super) fn failure_position(&self) -> Option<(&str, FailurePosition)> {
        if let Self::Poll(error) = self {
            return error.failure_position();
        }
        let Self::Raised { at, row, source, .. } = self else { return None };
        source.recurs_at_position().then_some((source.state()?, (at.to_wire(), row.unwrap_or_default())))
    }

    /// Marks it as recurring at the same position: a retry does not help.
    pub(super) fn mark_recurring(mut self) -> Self {
        if let Self::Raised { is_recurring, .. } = &mut self {
            *is_recurring = true;
        } else if let Self::Poll(error) = &mut self {
            error.mark_recurring();
        }
        self
    }

    /// Gives the error of the connection to PostgreSQL, if that is the cause.
    pub(super) fn into_postgres(self) -> Option<postgres::Error> {
        if let Self::Postgres { source, .. } | Self::Catalog(catalog::Error::Query(source)) = self {
            return Some(source);
        }
        None
    }

    /// Gives the part of the relay that failed.
    #[must_use]
    pub const fn component(&self) -> Component {
        match self {
            Self::Postgres { .. } | Self::Raised { .. } | Self::Silent { .. } => Component::Postgres,
            Self::Catalog(_) | Self::Synchronous { .. } => Component::Catalog,
            Self::Position(_) | Self::Lost(_) => Component::Position,
            Self::Pipeline(_) => Component::Pipeline,
            Self::Poll(_) => Component::Poll,
            Self::Publish(_) | Self::Failure(_) => Component::Publish,
            Self::NotStored(error) => error.component(),
            Self::Outbox { .. }
            | Self::DrainTimeout { .. }
            | Self::Unacknowledged { .. }
            | Self::Undrained { .. }
            | Self::Thread(_) => Component::Relay,
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Outbox { .. } => Code::new(Exit::Configuration, 41),
            Self::Raised { is_recurring: true, source, .. } if source.fate() == Fate::Transient => {
                Code::new(Exit::Poison, 5)
            }
            Self::Postgres { source, .. } => source.code(),
            Self::Raised { source, .. } => source.code(),
            Self::Catalog(error) => error.code(),
            Self::Position(error) => error.code(),
            Self::Lost(lost) => match lost {
                Lost::OtherSystem { .. } => Code::new(Exit::PositionLost, 10),
                Lost::SlotAhead { .. } => Code::new(Exit::PositionLost, 11),
                Lost::ServerBehind { .. } => Code::new(Exit::PositionLost, 12),
            },
            Self::Pipeline(error) => error.code(),
            Self::Poll(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Failure(failure) => failure.code(),
            Self::Synchronous { .. } => Code::new(Exit::Mismatch, 12),
            Self::Silent { .. } => Code::new(Exit::Unavailable, 7),
            Self::DrainTimeout { .. } => Code::new(Exit::DrainTimeout, 1),
            Self::Unacknowledged { .. } => Code::new(Exit::DrainTimeout, 2),
            Self::Undrained { .. } => Code::new(Exit::DrainTimeout, 3),
            Self::Thread(_) => Code::new(Exit::Internal, 20),
            Self::NotStored(error) => error.code(),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Outbox { .. }
            | Self::Synchronous { .. }
            | Self::Lost(_)
            | Self::DrainTimeout { .. }
            | Self::Unacknowledged { .. }
            | Self::Undrained { .. }
            | Self::Thread(_) => Fate::Fatal,
            Self::Raised { is_recurring: true, .. } => Fate::Fatal,
            Self::Postgres { source, .. } => source.fate(),
            Self::Raised { source, .. } => source.fate(),
            Self::Catalog(error) => error.fate(),
            Self::Position(error) => error.fate(),
            Self::Pipeline(error) => error.fate(),
            Self::Poll(error) => error.fate(),
            Self::Publish(error) => error.fate(),
            Self::Failure(failure) => failure.fate(),
            Self::Silent { .. } => Fate::Transient,
            Self::NotStored(error) => error.fate(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Outbox { .. } => Some("correct this [[outbox]] in the configuration".to_owned()),
            Self::Raised { at, row: Some(_), slot, is_recurring, source }
                if *is_recurring || source.is_about_content() =>
            {
                Some(past(*at, slot, "`walrelay setup --apply --accept-gap`"))
            }
            Self::Raised { is_recurring: true, source, .. } if source.help().is_none() => Some(
                "the server fails at this position each time: see its log; nothing after it was confirmed".to_owned(),
            ),
            Self::Postgres { source, .. } => source.help(),
            Self::Raised { source, .. } => source.help(),
            Self::Catalog(error) => error.help(),
            Self::Position(error) => error.help(),
            Self::Lost(_) => Some(
                "events between the two positions may be missing in Kafka: compare the outbox table with Kafka, then \
                 run `walrelay setup --apply --accept-gap`, which starts at the slot's position"
                    .to_owned(),
            ),
            Self::Pipeline(error) => error.help(),
            Self::Poll(error) => error.help(),
            Self::Publish(error) => error.help(),
            Self::Failure(failure) => failure.help(),
            Self::Synchronous { .. } => Some(
                "list the standbys by name, without this relay (relay.name): run `ALTER SYSTEM SET \
                 synchronous_standby_names = 'FIRST 1 (standby1)'` with the real names, then `SELECT pg_reload_conf()`"
                    .to_owned(),
            ),
            Self::Silent { .. } => None,
            Self::DrainTimeout { .. } => {
                Some("nothing is lost: a restart publishes them again; raise shutdown.drain to wait longer".to_owned())
            }
            Self::Unacknowledged { .. } => {
                Some("nothing is lost: restart when Kafka is up; the records are published again".to_owned())
            }
            Self::Undrained { .. } => Some(
                "nothing is lost: a restart publishes the events since the stored position again; raise shutdown.drain \
                 to wait longer, and check whether another session locks walrelay.position"
                    .to_owned(),
            ),
            Self::Thread(_) => Some("check the limits of the process".to_owned()),
            Self::NotStored(error) => Some(error.restart()),
        }
    }
}

fn at_row(at: Lsn, row: Option<u64>) -> String {
    row.map_or_else(
        || format!("after {at}"),
        |row| format!("at row {} of the transaction that commits at {at}", row + 1),
    )
}

/// How to skip a transaction that the server cannot send. A correction of the row in the table does not change the WAL.
fn past(at: Lsn, slot: &str, then: &str) -> String {
    let after = Lsn::from_wire(at.to_wire() + 1);
    format!(
        "earlier events are delivered; a correction of the row in the table does not change the WAL: run `SELECT \
         pg_replication_slot_advance('{}', '{after}')`, then {then}; this skips the whole transaction: insert its \
         events again with a correct value",
        slot.replace('\'', "''")
    )
}
