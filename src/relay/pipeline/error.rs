//! Errors of decoding and routing, and the next step.

use crate::cursor::Malformed;
use crate::lsn::Lsn;
use crate::relay::decode::transaction::Violation;
use crate::relay::record::route::Reason;
use crate::relay::record::route::add_partitions;
use crate::relay::record::row::Mismatch;
use crate::relay::record::row::PLACED;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The replication stream cannot be decoded or routed any further.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes violate the protocol.
    #[error("cannot decode the replication stream")]
    Malformed(#[from] Malformed),
    /// The order of messages violates the protocol.
    #[error("unexpected message in the replication stream")]
    Violation(#[from] Violation),
    /// A table does not match the configuration.
    #[error("{mismatch}, in the WAL of the transaction that commits at {at}")]
    Mismatch {
        /// The position of the transaction.
        at: Lsn,
        /// The difference.
        mismatch: Mismatch,
    },
    /// A row comes from a table that no outbox names.
    #[error("table {table} is in no [[outbox]], in the WAL of the transaction that commits at {at}")]
    UnknownTable {
        /// The position of the transaction.
        at: Lsn,
        table: String,
    },
    /// A row is larger than the limit.
    #[error(
        "a row of {length} bytes in the transaction that commits at {at} is larger than postgres.max_row_bytes \
         ({limit} bytes)"
    )]
    RowTooLarge {
        /// The size of its frame.
        length: usize,
        limit: usize,
        /// The position of its transaction, 0/0 if unknown.
        at: Lsn,
    },
    /// A row cannot become a record.
    #[error("cannot publish event {event_id} of table {table} in the transaction that commits at {at}: {reason}")]
    Poison {
        table: String,
        event_id: String,
        /// The position of its transaction.
        at: Lsn,
        reason: Reason,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::new(Exit::Internal, 1),
            Self::Violation(_) => Code::new(Exit::Internal, 2),
            Self::Mismatch { .. } => Code::new(Exit::Mismatch, 10),
            Self::UnknownTable { .. } => Code::new(Exit::Mismatch, 11),
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
                "nothing after this point was confirmed: restart; if it recurs, check for a proxy between walrelay and \
                 PostgreSQL, and report it"
                    .to_owned()
            }
            Self::Mismatch { at, mismatch: Mismatch::Missing { remedy, role: PLACED, .. } } => format!(
                "this WAL has other columns than the table may have now: if the column was renamed, set {remedy} for \
                 this [[outbox]] and restart; if it was added later or dropped, take it out of placements until \
                 everything up to {at} is confirmed"
            ),
            Self::Mismatch { at, mismatch: Mismatch::Missing { remedy, .. } } => format!(
                "older WAL has the old names of columns: if the column was renamed, set {remedy} for this [[outbox]] \
                 and restart; remove the old name when everything up to {at} is confirmed"
            ),
            Self::Mismatch { at, mismatch: Mismatch::Removed { remedy, .. } } => format!(
                "if it was renamed, set {remedy} for this [[outbox]] and restart; remove the old name when everything \
                 up to {at} is confirmed; if it was dropped, restart: later events lack its values"
            ),
            Self::Mismatch { at, mismatch: Mismatch::Type { role: PLACED, .. } } => format!(
                "place another column; if the table is right now, take this one out of placements until everything up \
                 to {at} is confirmed"
            ),
            Self::Mismatch { mismatch: Mismatch::Several { role: PLACED, .. }, .. } => {
                "correct placements of this [[outbox]], or the table".to_owned()
            }
            Self::Mismatch { .. } => "set the column's name under [outbox.columns], or correct the table".to_owned(),
            Self::UnknownTable { at, table } => format!(
                "if the table of an [[outbox]] had this name before, set renamed_from = [{table:?}] there and restart, \
                 and remove it when everything up to {at} is confirmed; else add an [[outbox]] with table = {table:?}, \
                 or remove the table from the publication"
            ),
            Self::RowTooLarge { .. } => {
                "raise postgres.max_row_bytes if there is enough memory; walrelay does not skip the row".to_owned()
            }
            Self::Poison { table, event_id, reason, .. } => match reason {
                Reason::TooLarge { .. } => {
                    "raise message.max.bytes under [kafka.properties] and max.message.bytes of the \
                                            topic; walrelay does not skip the event"
                        .to_owned()
                }
                Reason::NoPartition { topic, partition, .. } => format!(
                    "{}, then restart; the WAL keeps the row as it was written, and walrelay does not skip the event",
                    add_partitions(topic, *partition)
                ),
                Reason::Null(_)
                | Reason::Illegal { .. }
                | Reason::Topic(_)
                | Reason::TopicNotAllowed(_)
                | Reason::Headers(_)
                | Reason::Partition(_) => format!(
                    "the row stays in {table} (id {event_id}) and in the WAL: correct the routing options if they are \
                     wrong, then restart; walrelay does not skip the event"
                ),
            },
        })
    }
}
