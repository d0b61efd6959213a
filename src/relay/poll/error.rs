//! Errors of polling, and the next step.

use crate::relay::catalog::quote;
use crate::relay::postgres;
use crate::relay::record::route::Reason;
use crate::relay::record::route::add_partitions;
use crate::relay::record::row::Mismatch;
use crate::relay::retry::recurrence::FailurePosition;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The outbox cannot be polled any further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table does not fit for polling.
    #[error("table {table} {what}")]
    Unfit {
        table: String,
        /// The difference.
        what: String,
        /// The next step.
        remedy: String,
    },
    /// A privilege is missing.
    #[error("permission denied: role {role:?} cannot {what} table {table}")]
    Rights {
        role: String,
        /// What it cannot do.
        what: &'static str,
        table: String,
        /// The statement that fixes it.
        grant: String,
    },
    /// A mapped column is missing or has a wrong type.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// Row-level security hides rows.
    #[error("row-level security hides rows of table {table} from role {role:?} ({policies})")]
    Hidden { table: String, role: String, policies: String },
    /// The sequence is behind the numbers of unpublished rows.
    #[error(
        "sequence {sequence} of table {table} was reset: its last value is {last}, and an unpublished row has {highest}"
    )]
    StartedOver {
        table: String,
        /// The sequence, quoted.
        sequence: String,
        /// Its last value.
        last: String,
        /// The highest number of an unpublished row.
        highest: String,
        /// The statements that fix it.
        remedy: String,
    },
    /// The order of two events of a key is unknown.
    #[error(
        "event {event_id} of table {table} has the same {column} ({sequence}) as another unpublished event of its key"
    )]
    Tie {
        table: String,
        event_id: String,
        /// The column of the order.
        column: String,
        /// The number.
        sequence: i64,
    },
    /// The server cannot send a row of a batch.
    #[error("cannot read the outbox")]
    Unsendable {
        /// The number of rows before it.
        before: usize,
        /// The server's error.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The server cannot send this row.
    #[error("cannot read event {event_id} of table {table}, with {column} {sequence}")]
    Unreadable {
        table: String,
        event_id: String,
        /// The column of the order.
        column: String,
        /// Its number.
        sequence: i64,
        /// The bucket of its key.
        bucket: i32,
        /// The server's error.
        #[source]
        source: Box<postgres::Error>,
    },
    /// A statement on the table failed.
    #[error("cannot {action} (table {table})")]
    Raised {
        table: String,
        /// The table's id, and the number of rows marked before.
        position: FailurePosition,
        /// The attempt.
        action: &'static str,
        /// The same error came at the same position before.
        is_recurring: bool,
        /// The server's error.
        #[source]
        source: Box<postgres::Error>,
    },
    /// A row cannot become a record.
    #[error("cannot publish event {event_id} of table {table}: {reason}")]
    Poison { table: String, event_id: String, reason: Reason },
    /// Another table has the name now.
    #[error("table {table} was replaced by another table of this name while it was polled")]
    Replaced { table: String },
    /// A column that was read does not exist any more.
    #[error("column {column:?} of table {table} was renamed or dropped: events would lack its values")]
    ColumnGone {
        table: String,
        /// Its last name.
        column: String,
    },
    /// The UPDATE marked fewer rows than were published.
    #[error("marked only {marked} of {published} published rows of table {table}")]
    NotMarked {
        table: String,
        /// The number of rows that the UPDATE reported.
        marked: u64,
        /// The number of rows that were published.
        published: u64,
    },
    /// A statement of `setup` failed.
    #[error("cannot {what}")]
    Setup {
        /// The attempt.
        what: String,
        /// The server's error.
        #[source]
        source: postgres::Error,
    },
}

impl Error {
    /// Gives the SQLSTATE and the position of an error of the server at a statement on a table.
    pub(in crate::relay) fn failure_position(&self) -> Option<(&str, FailurePosition)> {
        let Self::Raised { position, source, .. } = self else { return None };
        source.recurs_at_position().then_some((source.state()?, *position))
    }

    /// Marks it as recurring at the same position.
    pub(in crate::relay) const fn mark_recurring(&mut self) {
        if let Self::Raised { is_recurring, .. } = self {
            *is_recurring = true;
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Unfit { .. } => Code::new(Exit::Mismatch, 20),
            Self::Rights { .. } => Code::new(Exit::Rights, 20),
            Self::Hidden { .. } => Code::new(Exit::Rights, 21),
            Self::StartedOver { .. } => Code::new(Exit::Mismatch, 22),
            Self::Tie { .. } => Code::new(Exit::Mismatch, 23),
            Self::Raised { is_recurring: true, source, .. } if source.fate() == Fate::Transient => {
                Code::new(Exit::Mismatch, 24)
            }
            Self::Unsendable { source, .. } | Self::Unreadable { source, .. } | Self::Raised { source, .. } => {
                source.code()
            }
            Self::Mismatch(_) => Code::new(Exit::Mismatch, 10),
            Self::Poison { .. } => Code::new(Exit::Poison, 1),
            Self::NotMarked { .. } => Code::new(Exit::Mismatch, 21),
            Self::Replaced { .. } => Code::new(Exit::Mismatch, 26),
            Self::ColumnGone { .. } => Code::new(Exit::Mismatch, 27),
            Self::Setup { source, .. } => source.code(),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Raised { is_recurring: true, .. } => Fate::Fatal,
            Self::Unsendable { source, .. } | Self::Raised { source, .. } => source.fate(),
            Self::Hidden { .. }
            | Self::StartedOver { .. }
            | Self::Tie { .. }
            | Self::Unreadable { .. }
            | Self::Unfit { .. }
            | Self::Rights { .. }
            | Self::Mismatch(_)
            | Self::Poison { .. }
            | Self::Replaced { .. }
            | Self::ColumnGone { .. }
            | Self::NotMarked { .. }
            | Self::Setup { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Unfit { remedy, .. } => remedy.clone(),
            Self::Rights { grant, .. } => format!("run `{grant}`"),
            Self::Mismatch(Mismatch::Missing { remedy, .. }) => {
                format!("if it was renamed, set {remedy} for this [[outbox]], else correct the table")
            }
            Self::Mismatch(_) => "set the column's name under [outbox.columns], or correct the table".to_owned(),
            Self::Hidden { role, .. } => format!("run `ALTER ROLE {} BYPASSRLS`", quote(role)),
            Self::StartedOver { remedy, .. } => {
                format!("run `{remedy}`, which numbers the later rows after the earlier ones")
            }
            Self::Tie { column, .. } => format!(
                "their order is unknown: set a higher {column} for the later one, and draw all numbers from one \
                 sequence"
            ),
            Self::Unreadable { table, column, sequence, .. } => format!(
                "correct its text in the table (UPDATE {table} SET ... WHERE {column} = {sequence}), which cannot be \
                 converted to UTF-8, then restart; walrelay does not skip the event"
            ),
            Self::Raised { is_recurring: true, source, .. } if source.fate() == Fate::Transient => {
                "the server fails each time: look for the trigger, constraint or damaged row that the message names"
                    .to_owned()
            }
            Self::Unsendable { source, .. } | Self::Raised { source, .. } => return source.help(),
            Self::Poison { reason: Reason::TooLarge { .. }, .. } => {
                "raise message.max.bytes under [kafka.properties] and max.message.bytes of the topic; walrelay does \
                 not skip the event"
                    .to_owned()
            }
            Self::Poison { reason: Reason::NoPartition { topic, partition, .. }, .. } => {
                format!(
                    "{}, or correct the row, then restart; walrelay does not skip the event",
                    add_partitions(topic, *partition)
                )
            }
            Self::Poison { table, event_id, .. } => format!(
                "the row stays in {table} (id {event_id}): correct it, or the routing options if they are wrong, then \
                 restart; walrelay does not skip the event"
            ),
            Self::Replaced { .. } => {
                "publish the unpublished rows of the earlier table first, if it still exists under another name; a \
                 restart polls only the new table"
                    .to_owned()
            }
            Self::ColumnGone { column, .. } => format!(
                "if it was renamed, set the role under [outbox.columns] to a list of both names, as in headers = \
                 [\"new\", {column:?}], and restart; if it was dropped, restart"
            ),
            Self::NotMarked { .. } => {
                "look for a trigger, a rule or a row security policy that stops the UPDATE; until then the events are \
                 published again at each start"
                    .to_owned()
            }
            Self::Setup { .. } => {
                "run setup as the owner of the outbox table (--set postgres.url=...), or run the printed SQL as its \
                 owner"
                    .to_owned()
            }
        })
    }
}
