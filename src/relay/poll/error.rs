//! What ends polling, and what a person does about it.

use crate::relay::catalog::quote;
use crate::relay::postgres;
use crate::relay::record::route::Reason;
use crate::relay::record::row::Mismatch;
use crate::relay::retry::recurrence::Place;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// An outbox cannot be polled any further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table is not made for polling.
    #[error("table {table} {what}")]
    Unfit {
        /// The table.
        table: String,
        /// How it differs.
        what: String,
        /// What mends it.
        remedy: String,
    },
    /// A right is missing.
    #[error("the role {role:?} may not {what} table {table}")]
    Rights {
        /// Who we are.
        role: String,
        /// What it may not do.
        what: &'static str,
        /// The table.
        table: String,
        /// The statement that mends it.
        grant: String,
    },
    /// A mapped column is missing or has a type that cannot be used.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// Policies hide rows from us.
    #[error("row level security hides rows of table {table} from the role {role:?} ({policies})")]
    Hidden {
        /// The table.
        table: String,
        /// Who we are.
        role: String,
        /// By which policies.
        policies: String,
    },
    /// Rows are unpublished that have higher numbers than what the sequence draws now.
    #[error(
        "sequence {sequence} of table {table} has started over: it has drawn {last}, and an unpublished row has {highest}"
    )]
    StartedOver {
        /// The table.
        table: String,
        /// The sequence, quoted.
        sequence: String,
        /// What it has drawn last.
        last: String,
        /// The highest number of an unpublished row.
        highest: String,
        /// The statements that mend it.
        remedy: String,
    },
    /// Two events of a key cannot be told apart.
    #[error(
        "event {event_id} of table {table} has the same {column} ({sequence}) as another unpublished event of its key"
    )]
    Tie {
        /// The table.
        table: String,
        /// The event.
        event_id: String,
        /// The column of the order.
        column: String,
        /// The number.
        sequence: i64,
    },
    /// The server cannot send a row, after so many others of a batch.
    #[error("read the outbox")]
    Unsendable {
        /// How many came before.
        before: usize,
        /// What it says.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The server cannot send a row.
    #[error("event {event_id} of table {table}, with {column} {sequence}, cannot be read")]
    Unreadable {
        /// The table.
        table: String,
        /// The event.
        event_id: String,
        /// The column of the order.
        column: String,
        /// Its number.
        sequence: i64,
        /// The bucket of its key.
        bucket: i32,
        /// What the server says.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The server fails at a statement on the table.
    #[error("table {table}: {action}")]
    Raised {
        /// The table.
        table: String,
        /// Its id, and how many rows had been marked before.
        place: Place,
        /// What was tried.
        action: &'static str,
        /// It has failed there before, in the same way.
        is_again: bool,
        /// What it says.
        #[source]
        source: Box<postgres::Error>,
    },
    /// A row cannot become a record.
    #[error("event {event_id} of table {table} cannot be published: {reason}")]
    Poison {
        /// The table.
        table: String,
        /// The event.
        event_id: String,
        /// Why.
        reason: Reason,
    },
    /// Rows stay unpublished although they were marked.
    #[error("{marked} of {published} rows of table {table} could be marked as published")]
    NotMarked {
        /// The table.
        table: String,
        /// How many were marked.
        marked: u64,
        /// How many should have been.
        published: u64,
    },
    /// A statement of `setup` fails.
    #[error("{what}")]
    Setup {
        /// What it should do.
        what: String,
        /// Why it fails.
        #[source]
        source: postgres::Error,
    },
}

impl Error {
    /// Gives what failed and where, if it was the server, at a statement on a table.
    pub(in crate::relay) fn place(&self) -> Option<(&str, Place)> {
        let Self::Raised { place, source, .. } = self else { return None };
        source.stays_at_its_place().then_some((source.state()?, *place))
    }

    /// It has come again at the same place.
    pub(in crate::relay) const fn come_again(&mut self) {
        if let Self::Raised { is_again, .. } = self {
            *is_again = true;
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Unfit { .. } => Code::new(Exit::Contract, 20),
            Self::Rights { .. } => Code::new(Exit::Rights, 20),
            Self::Hidden { .. } => Code::new(Exit::Rights, 21),
            Self::StartedOver { .. } => Code::new(Exit::Contract, 22),
            Self::Tie { .. } => Code::new(Exit::Contract, 23),
            Self::Raised { is_again: true, source, .. } if source.fate() == Fate::Transient => {
                Code::new(Exit::Contract, 24)
            }
            Self::Unsendable { source, .. } | Self::Unreadable { source, .. } | Self::Raised { source, .. } => {
                source.code()
            }
            Self::Mismatch(_) => Code::new(Exit::Contract, 10),
            Self::Poison { .. } => Code::new(Exit::Poison, 1),
            Self::NotMarked { .. } => Code::new(Exit::Contract, 21),
            Self::Setup { source, .. } => source.code(),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Raised { is_again: true, .. } => Fate::Fatal,
            Self::Unsendable { source, .. } | Self::Raised { source, .. } => source.fate(),
            Self::Hidden { .. }
            | Self::StartedOver { .. }
            | Self::Tie { .. }
            | Self::Unreadable { .. }
            | Self::Unfit { .. }
            | Self::Rights { .. }
            | Self::Mismatch(_)
            | Self::Poison { .. }
            | Self::NotMarked { .. }
            | Self::Setup { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Unfit { remedy, .. } => remedy.clone(),
            Self::Rights { grant, .. } => format!("run `{grant}`"),
            Self::Mismatch(Mismatch::Missing { remedy, .. }) => {
                format!("if it was renamed, set {remedy} for this [[outbox]], else mend the table")
            }
            Self::Mismatch(_) => "set the column's name under [outbox.columns], or mend the table".to_owned(),
            Self::Hidden { role, .. } => format!("run `ALTER ROLE {} BYPASSRLS`", quote(role)),
            Self::StartedOver { remedy, .. } => {
                format!("run `{remedy}`, which puts the rows that were written since behind those from before")
            }
            Self::Tie { column, .. } => format!(
                "their order is unknown: give the later of the two a higher {column}, and see that numbers are drawn from one \
                 sequence"
            ),
            Self::Unreadable { table, column, sequence, .. } => format!(
                "correct its text in the table (UPDATE {table} SET ... WHERE {column} = {sequence}): a column has a character that \
                 UTF-8 does not have; then restart; walrelay does not skip the event"
            ),
            Self::Raised { is_again: true, source, .. } if source.fate() == Fate::Transient => {
                "the server fails whenever it is asked: look for a trigger, a constraint or a damaged row that the message names"
                    .to_owned()
            }
            Self::Unsendable { source, .. } | Self::Raised { source, .. } => return source.help(),
            Self::Poison { reason: Reason::TooLarge { .. }, .. } => {
                "raise message.max.bytes under [kafka.properties] and max.message.bytes of the topic; walrelay does not skip \
                 the event"
                    .to_owned()
            }
            Self::Poison { table, event_id, .. } => format!(
                "the row stays in {table} (id {event_id}): mend it, or the routing options if they are wrong, then restart; \
                 walrelay does not skip the event"
            ),
            Self::NotMarked { .. } => {
                "look for a trigger, a rule or a row security policy that stops the UPDATE; until then the events are \
                 published again at each start"
                    .to_owned()
            }
            Self::Setup { .. } => {
                "run setup as the owner of the outbox table (--set postgres.url=...), or have the printed SQL run by it"
                    .to_owned()
            }
        })
    }
}
