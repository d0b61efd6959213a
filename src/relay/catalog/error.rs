//! What the catalog check finds wrong, and the next step.

use crate::lsn::Lsn;
use crate::relay::postgres;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The slot, the publication or a table is not what the relay needs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog cannot be read.
    #[error("cannot read the catalog")]
    Query(#[source] postgres::Error),
    /// There is no such slot.
    #[error("replication slot {slot:?} does not exist")]
    SlotMissing {
        /// Its name.
        slot: String,
    },
    /// The server has removed WAL that the slot needed.
    #[error("replication slot {slot:?} is lost: the server removed WAL that it needed ({reason})")]
    SlotLost {
        /// Its name.
        slot: String,
        /// The server's reason.
        reason: String,
    },
    /// The slot is of another kind or database.
    #[error("replication slot {slot:?} {what}")]
    SlotUnusable {
        /// Its name.
        slot: String,
        /// How it differs.
        what: String,
    },
    /// There is no such publication.
    #[error("publication {publication:?} does not exist")]
    PublicationMissing {
        /// Its name.
        publication: String,
    },
    /// The publication would omit rows or columns.
    #[error("publication {publication:?} {what}")]
    PublicationUnfit {
        /// Its name.
        publication: String,
        /// How it differs.
        what: String,
        /// The statement that fixes it.
        remedy: String,
    },
    /// Rows or columns of a table are not in the WAL.
    #[error("table {table} {what}")]
    TableUnfit {
        /// Its name.
        table: String,
        /// How it differs.
        what: String,
        /// The statement that fixes it.
        remedy: String,
    },
    /// The catalog was changed, and events may have been omitted meanwhile.
    #[error("{what}: events committed between {from} and {to} may be missing in Kafka")]
    Unseen {
        /// The change.
        what: String,
        /// The last position up to which nothing is missing.
        from: Lsn,
        /// The end of the WAL when the change was noticed.
        to: Lsn,
    },
    /// A table is missing.
    #[error("table {} does not exist, or is not visible", names.join(" or "))]
    TableMissing {
        /// The names that it may have.
        names: Vec<String>,
        /// Tables of publications that it may be after a rename.
        published: Vec<String>,
    },
    /// A column that the table need not have has another name: events would go on without its values.
    #[error("column {before:?} of table {table}, which is mapped as {role}, was renamed to {now:?}")]
    ColumnRenamed {
        /// Its name.
        table: String,
        /// The column's name before.
        before: String,
        /// Its name now.
        now: String,
        /// What it is mapped as.
        role: String,
    },
    /// A table lacks a column.
    #[error("table {table} has no column {column} in the catalog, which is mapped as {role}")]
    ColumnMissing {
        /// Its name.
        table: String,
        /// The names that the column may have.
        column: String,
        role: &'static str,
        /// The option to set if it was renamed.
        both_names: String,
        /// The statement that adds it.
        addition: String,
    },
    /// Two tables or columns exist, of which only one can be the right one.
    #[error("table {table} {what}")]
    Ambiguous {
        /// Its name.
        table: String,
        /// The two.
        what: String,
    },
    /// A column has a type that its role cannot have.
    #[error("table {table} {what}")]
    Column {
        /// Its name.
        table: String,
        /// How it differs.
        what: String,
        role: &'static str,
        /// The statement that fixes it.
        remedy: String,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Query(error) => error.code(),
            Self::SlotMissing { .. } => Code::new(Exit::PositionLost, 1),
            Self::SlotLost { .. } => Code::new(Exit::PositionLost, 2),
            Self::SlotUnusable { .. } => Code::new(Exit::Mismatch, 1),
            Self::PublicationMissing { .. } => Code::new(Exit::Mismatch, 2),
            Self::PublicationUnfit { .. } => Code::new(Exit::Mismatch, 3),
            Self::TableMissing { .. } | Self::ColumnMissing { .. } | Self::Ambiguous { .. } | Self::Column { .. } => {
                Code::new(Exit::Mismatch, 4)
            }
            Self::TableUnfit { .. } => Code::new(Exit::Mismatch, 8),
            Self::ColumnRenamed { .. } => Code::new(Exit::Mismatch, 9),
            Self::Unseen { .. } => Code::new(Exit::PositionLost, 3),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Query(error) => error.fate(),
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotUnusable { .. }
            | Self::PublicationMissing { .. }
            | Self::PublicationUnfit { .. }
            | Self::TableUnfit { .. }
            | Self::Unseen { .. }
            | Self::TableMissing { .. }
            | Self::ColumnRenamed { .. }
            | Self::ColumnMissing { .. }
            | Self::Ambiguous { .. }
            | Self::Column { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Query(error) => return error.help(),
            Self::SlotMissing { .. } => {
                "on a new installation run `walrelay setup --apply`; if the slot existed before, WAL since then may be \
                 gone and events may be missing in Kafka: create a new slot with `walrelay setup --apply \
                 --accept-gap`; before you start the relay, compare the rows that were committed before the position \
                 that it prints with Kafka"
                    .to_owned()
            }
            Self::SlotLost { slot, .. } => format!(
                "events may be missing in Kafka: drop the slot with `SELECT pg_drop_replication_slot('{slot}')`, raise \
                 max_slot_wal_keep_size, then run `walrelay setup --apply --accept-gap`; before you start the relay, \
                 compare the rows that were committed before the position that it prints with Kafka"
            ),
            Self::SlotUnusable { slot, .. } => format!(
                "set source.slot to another slot; or, if nobody else uses this one, run `SELECT \
                 pg_drop_replication_slot('{slot}')`, then `walrelay setup --apply --accept-gap`"
            ),
            Self::PublicationMissing { .. } => {
                "on a new installation run `walrelay setup --apply`; if the publication was dropped, events committed \
                 since then are not published: run `walrelay setup --apply --accept-gap`; before you start the relay, \
                 compare the rows that were committed before the position that it prints with Kafka"
                    .to_owned()
            }
            Self::PublicationUnfit { remedy, .. } => format!("run `{remedy}`"),
            Self::TableUnfit { remedy, .. } => {
                format!(
                    "run `{remedy}`; events committed before that may be missing in Kafka: compare the rows with \
                         Kafka"
                )
            }
            Self::Unseen { .. } => {
                "compare the rows of the outbox table that were committed between the two positions \
                                    with Kafka, then run `walrelay setup --apply --accept-gap`"
                    .to_owned()
            }
            Self::TableMissing { names, published } => {
                let renamed = if published.is_empty() {
                    String::new()
                } else {
                    let old: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                    let (old, published) = (old.join(", "), published.join(", "));
                    format!(
                        "; if it was renamed, set outbox.table to its new name (published tables: {published}) and \
                         outbox.renamed_from = [{old}]"
                    )
                };
                format!("create it with `walrelay setup --apply --with-outbox`, or correct outbox.table{renamed}")
            }
            Self::ColumnRenamed { before, now, role, .. } => format!(
                "{}; or, if it is not to be sent any more, run `walrelay setup --apply --accept-gap`",
                both_names(role, now, before)
            ),
            Self::ColumnMissing { both_names, addition, role, .. } => format!(
                "run `{addition}`, or name the right column {}; if it was renamed, set {both_names} for this \
                 [[outbox]] and restart: older WAL has the old name",
                option(role)
            ),
            Self::Ambiguous { .. } => {
                "drop or rename the wrong one, or name only the right one in this [[outbox]]".to_owned()
            }
            Self::Column { remedy, role, .. } => {
                format!("run `{remedy}`, or name the right column {}", option(role))
            }
        })
    }
}

/// What to configure for a renamed column.
pub(in crate::relay) fn both_names(role: &str, now: &str, before: &str) -> String {
    let option = if role == "partition" { "" } else { "columns." };
    format!("set {option}{role} = [{now:?}, {before:?}] for this [[outbox]] and restart: older WAL has the old name")
}

/// The option that names the column of a role.
fn option(role: &str) -> &'static str {
    match role {
        "partition" => "as partition of this [[outbox]]",
        "header" => "in placements of this [[outbox]]",
        _ => "under [outbox.columns]",
    }
}
