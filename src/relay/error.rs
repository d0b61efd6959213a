//! Everything that can end a connection or the relay, and what is known of it.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::metrics::Component;
use crate::relay::pipeline;
use crate::relay::poll::error as poll;
use crate::relay::postgres;
use crate::relay::publish;
use crate::relay::record::route::BadTemplate;
use crate::relay::retry::recurrence::Place;
use crate::relay::stream::position;
use crate::relay::stream::resume::Lost;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The relay cannot go on, or this connection cannot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An `[[outbox]]` cannot be used.
    #[error("read the [[outbox]] of table {table}")]
    Outbox {
        /// Its table.
        table: String,
        /// What is wrong.
        #[source]
        source: BadTemplate,
    },
    /// PostgreSQL.
    #[error("{action}")]
    Wal {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: postgres::Error,
    },
    /// The server fails while it sends the log.
    #[error("follow the log: PostgreSQL failed {}", at_row(*at, *row))]
    Raised {
        /// The commit of the transaction, or the end of the last one.
        at: Lsn,
        /// How many rows of it came before.
        row: Option<u64>,
        /// The slot.
        slot: String,
        /// It has failed there before, in the same way.
        is_again: bool,
        /// What it says.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The contract does not hold.
    #[error(transparent)]
    Contract(#[from] catalog::Error),
    /// The stored position.
    #[error(transparent)]
    Position(#[from] position::Error),
    /// Going on would leave a gap.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The stream cannot be followed.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The outbox cannot be polled.
    #[error(transparent)]
    Poll(#[from] poll::Error),
    /// A producer cannot be made.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// Kafka did not take a record.
    #[error(transparent)]
    Failure(#[from] publish::Failure),
    /// Commits of the application would wait for us.
    #[error(
        "this relay would count as a synchronous standby, and commits of the application would wait for Kafka: \
         synchronous_standby_names = '{names}'"
    )]
    Synchronous {
        /// The setting.
        names: String,
    },
    /// The server has been silent for too long.
    #[error("the server has said nothing for {} s", limit.as_secs())]
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// A stop took too long.
    #[error("Kafka had not acknowledged {records} records when the drain deadline of {} s passed", limit.as_secs())]
    DrainTimeout {
        /// How many.
        records: u64,
        /// The limit.
        limit: Duration,
    },
    /// A stop came without a connection to PostgreSQL: what Kafka acknowledged now could not be confirmed.
    #[error("stopped with {records} records that Kafka has not acknowledged; further events may wait in PostgreSQL")]
    Unacknowledged {
        /// How many.
        records: u64,
    },
    /// A stop took too long for another reason than Kafka.
    #[error("Kafka has acknowledged every record, but {what} within the drain deadline of {} s", limit.as_secs())]
    Undrained {
        /// What did not come to its end.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// Where positions are not stored: nothing is kept that a gap would have to be accepted for.
    #[error(transparent)]
    NotStored(Box<Self>),
}

impl Error {
    /// Says what was being done, for an error of PostgreSQL's client or of ours on top of it.
    pub(super) fn wal<E: Into<postgres::Error>>(action: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Wal { action, source: error.into() }
    }

    /// Says whether a file with a secret or a key is absent or unfit, which it may be for a moment while it is replaced.
    #[must_use]
    pub fn is_about_files(&self) -> bool {
        let of_postgres = matches!(self, Self::Wal { source, .. } if source.is_about_files());
        of_postgres || matches!(self, Self::Publish(error) if error.is_about_files())
    }

    /// A drain has not come to its end, with so many records in flight and perhaps an open transaction.
    pub(super) const fn undrained(records: u64, is_within_transaction: bool, limit: Duration) -> Self {
        match records {
            0 if is_within_transaction => {
                Self::Undrained { what: "the open transaction could not be read to its end", limit }
            }
            0 => Self::Undrained { what: "the last position could not be stored", limit },
            records => Self::DrainTimeout { records, limit },
        }
    }

    /// Names the role that asked, if it lacks a right on the stored position.
    pub(super) fn of_role(self, role: &str) -> Self {
        if let Self::Position(error) = self { Self::Position(error.of_role(role)) } else { self }
    }

    /// Positions are not stored.
    pub(super) fn not_stored(self) -> Self {
        let is_gap = matches!(
            &self,
            Self::Lost(_) | Self::Contract(catalog::Error::Unseen { .. } | catalog::Error::ColumnRenamed { .. })
        );
        let is_at_a_row = matches!(&self, Self::Raised { row: Some(_), is_again, source, .. }
                                   if *is_again || source.is_about_content());
        if is_gap || is_at_a_row { Self::NotStored(Box::new(self)) } else { self }
    }

    /// What to do where only a restart is needed to go on.
    fn after_a_restart(&self) -> String {
        if let Self::Raised { at, slot, .. } = self {
            return past(*at, slot, "restart");
        }
        if let Self::Contract(catalog::Error::ColumnRenamed { before, now, role, .. }) = self {
            return format!(
                "{}; or, if it is not to be sent any more, restart",
                catalog::both_names(role, now, before)
            );
        }
        "compare the rows of the outbox table that were committed in between with Kafka, then restart: positions are not \
         stored (source.store_position), and a restart begins where the slot stands"
            .to_owned()
    }

    /// Gives what failed and where, if the server failed at a place of the source and not on the way to it.
    pub(super) fn place(&self) -> Option<(&str, Place)> {
        if let Self::Poll(error) = self {
            return error.place();
        }
        let Self::Raised { at, row, source, .. } = self else { return None };
        source.stays_at_its_place().then_some((source.state()?, (at.to_wire(), row.unwrap_or_default())))
    }

    /// It has come again at the same place: trying again does not help.
    pub(super) fn come_again(mut self) -> Self {
        if let Self::Raised { is_again, .. } = &mut self {
            *is_again = true;
        } else if let Self::Poll(error) = &mut self {
            error.come_again();
        }
        self
    }

    /// Gives what the connection to PostgreSQL says, if that is what failed.
    pub(super) fn into_wal(self) -> Option<postgres::Error> {
        if let Self::Wal { source, .. } | Self::Contract(catalog::Error::Query(source)) = self {
            return Some(source);
        }
        None
    }

    /// Gives the room it comes from.
    #[must_use]
    pub const fn component(&self) -> Component {
        match self {
            Self::Wal { .. } | Self::Raised { .. } | Self::Silent { .. } => Component::Wal,
            Self::Contract(_) | Self::Synchronous { .. } => Component::Contract,
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
            Self::Raised { is_again: true, source, .. } if source.fate() == Fate::Transient => {
                Code::new(Exit::Poison, 5)
            }
            Self::Wal { source, .. } => source.code(),
            Self::Raised { source, .. } => source.code(),
            Self::Contract(error) => error.code(),
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
            Self::Synchronous { .. } => Code::new(Exit::Contract, 12),
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
            Self::Raised { is_again: true, .. } => Fate::Fatal,
            Self::Wal { source, .. } => source.fate(),
            Self::Raised { source, .. } => source.fate(),
            Self::Contract(error) => error.fate(),
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
            Self::Outbox { .. } => Some("mend [[outbox]] in the configuration".to_owned()),
            Self::Raised { at, row: Some(_), slot, is_again, source } if *is_again || source.is_about_content() => {
                Some(past(*at, slot, "`walrelay setup --apply --accept-gap`"))
            }
            Self::Raised { is_again: true, source, .. } if source.help().is_none() => Some(
                "the server fails there whenever it is asked: its log says more; nothing was confirmed past this place".to_owned(),
            ),
            Self::Wal { source, .. } => source.help(),
            Self::Raised { source, .. } => source.help(),
            Self::Contract(error) => error.help(),
            Self::Position(error) => error.help(),
            Self::Lost(_) => Some(
                "events between the two positions may be missing in Kafka: compare the outbox table; then accept the gap \
                 with `walrelay setup --apply --accept-gap`, which starts at the slot's position"
                    .to_owned(),
            ),
            Self::Pipeline(error) => error.help(),
            Self::Poll(error) => error.help(),
            Self::Publish(error) => error.help(),
            Self::Failure(failure) => failure.help(),
            Self::Synchronous { .. } => Some(
                "list the standbys by their names instead, and not the name of this relay (relay.name), for example with `ALTER SYSTEM \
                 SET synchronous_standby_names = 'FIRST 1 (standby1)'` and `SELECT pg_reload_conf()`"
                    .to_owned(),
            ),
            Self::Silent { .. } => None,
            Self::DrainTimeout { .. } => {
                Some("nothing is lost: restart, and they are published again; raise shutdown.drain for more time".to_owned())
            }
            Self::Unacknowledged { .. } => {
                Some("nothing is lost: restart once Kafka is up, and they are published again".to_owned())
            }
            Self::Undrained { .. } => Some(
                "nothing is lost: restart, and events since the stored position are published again; raise shutdown.drain for \
                 more time, and see whether another session locks walrelay.position"
                    .to_owned(),
            ),
            Self::Thread(_) => Some("check the limits of the process".to_owned()),
            Self::NotStored(error) => Some(error.after_a_restart()),
        }
    }
}

fn at_row(at: Lsn, row: Option<u64>) -> String {
    row.map_or_else(
        || format!("behind {at}"),
        |row| format!("at row {} of the transaction that commits at {at}", row + 1),
    )
}

/// How to go on behind a transaction that the server cannot send. What the log has is there for good: a correction of the row
/// does not reach it.
fn past(at: Lsn, slot: &str, then: &str) -> String {
    let behind = Lsn::from_wire(at.to_wire() + 1);
    format!(
        "what comes before is delivered, and the log keeps the row as it was written, whatever becomes of it in the \
         table: run `SELECT pg_replication_slot_advance('{}', '{behind}')`, then {then}; this leaves out the whole \
         transaction: insert its events anew, with the value corrected",
        slot.replace('\'', "''")
    )
}
