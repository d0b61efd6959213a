//! Why a stream cannot be followed, and what a person does about it.

use crate::cursor::Malformed;
use crate::lsn::Lsn;
use crate::relay::decode::transaction::Violation;
use crate::relay::record::route::Reason;
use crate::relay::record::route::add_partitions;
use crate::relay::record::row::Mismatch;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The stream cannot be followed any further.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes are not what the protocol says.
    #[error("decode the stream")]
    Malformed(#[from] Malformed),
    /// The messages come in an order that the protocol does not have.
    #[error("follow the stream")]
    Violation(#[from] Violation),
    /// A table is not what the configuration says.
    #[error("in the WAL of the transaction that commits at {at}, {mismatch}")]
    Mismatch {
        /// The position of the transaction.
        at: Lsn,
        /// How it differs.
        mismatch: Mismatch,
    },
    /// Rows come from a table that no outbox names.
    #[error("rows of the transaction that commits at {at} come from table {table}, which no [[outbox]] names")]
    UnknownTable {
        /// The position of the transaction.
        at: Lsn,
        /// The table.
        table: String,
    },
    /// A row is too large to be read.
    #[error(
        "a row of {length} bytes, in the transaction that commits at {at}, is larger than the {limit} bytes of max_row_bytes"
    )]
    RowTooLarge {
        /// The size of its frame.
        length: usize,
        /// The limit.
        limit: usize,
        /// The position of its transaction, 0/0 if unknown.
        at: Lsn,
    },
    /// A row cannot become a record.
    #[error(
        "event {event_id} of table {table}, in the transaction that commits at {at}, cannot be published: {reason}"
    )]
    Poison {
        /// The table.
        table: String,
        /// The event.
        event_id: String,
        /// The position of its transaction.
        at: Lsn,
        /// Why.
        reason: Reason,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::new(Exit::Internal, 1),
            Self::Violation(_) => Code::new(Exit::Internal, 2),
            Self::Mismatch { .. } => Code::new(Exit::Contract, 10),
            Self::UnknownTable { .. } => Code::new(Exit::Contract, 11),
            Self::RowTooLarge { .. } => Code::new(Exit::Poison, 2),
            Self::Poison { .. } => Code::new(Exit::Poison, 1),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Malformed(_) | Self::Violation(_) => {
                "nothing was confirmed past this point: restart; if it comes again, check for a proxy between walrelay and \
                 PostgreSQL and report it"
                    .to_owned()
            }
            Self::Mismatch { at, mismatch: Mismatch::Missing { remedy, .. } } => format!(
                "the WAL keeps the names of when it was written, and the catalog has the column that is mapped: if it was renamed since, \
                 set {remedy} for this [[outbox]] and restart; the old name may go once everything up to {at} is confirmed"
            ),
            Self::Mismatch { at, mismatch: Mismatch::Gone { remedy, .. } } => format!(
                "if it was renamed, set {remedy} for this [[outbox]] and restart; the old name may go once everything up \
                 to {at} is confirmed; if it was dropped, restart: events go on without it"
            ),
            Self::Mismatch { .. } => "set the column's name under [outbox.columns], or mend the table".to_owned(),
            Self::UnknownTable { at, table } => format!(
                "if the table of an [[outbox]] was so called when the WAL was written, set renamed_from = [{table:?}] there and restart; \
                 it may go once everything up to {at} is confirmed; else add an [[outbox]] with table = {table:?}, or take the table out \
                 of the publication"
            ),
            Self::RowTooLarge { .. } => {
                "raise postgres.max_row_bytes if the memory is there; walrelay does not skip the row".to_owned()
            }
            Self::Poison { table, event_id, reason, .. } => match reason {
                Reason::TooLarge { .. } => "raise message.max.bytes under [kafka.properties] and max.message.bytes of the \
                                            topic; walrelay does not skip the event"
                    .to_owned(),
                Reason::NoPartition { topic, partition, .. } => add_partitions(topic, *partition),
                Reason::Null(_)
                | Reason::Illegal { .. }
                | Reason::Topic(_)
                | Reason::TopicNotAllowed(_)
                | Reason::Headers(_)
                | Reason::Partition(_) => format!(
                    "the row stays in {table} (id {event_id}) and in the log: mend the routing options if they are wrong, \
                     then restart; walrelay does not skip the event"
                ),
            },
        })
    }
}
