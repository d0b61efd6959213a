//! How the contract is broken, and what a person does about it.

use crate::lsn::Lsn;
use crate::relay::postgres;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The contract does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue cannot be read.
    #[error("read the catalogue")]
    Query(#[source] postgres::Error),
    /// There is no such slot.
    #[error("replication slot {slot:?} does not exist")]
    SlotMissing {
        /// Its name.
        slot: String,
    },
    /// The server has removed log that the slot still needed.
    #[error("replication slot {slot:?} is lost: the server removed log that it still needed ({reason})")]
    SlotLost {
        /// Its name.
        slot: String,
        /// Why, if the server says.
        reason: String,
    },
    /// The slot is not one that this relay can use.
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
    /// The publication is not made for an outbox.
    #[error("publication {publication:?} {what}")]
    PublicationUnfit {
        /// Its name.
        publication: String,
        /// How it differs.
        what: String,
        /// The statement that mends it.
        remedy: String,
    },
    /// A table would hide rows or columns from the WAL.
    #[error("table {table} {what}")]
    TableUnfit {
        /// Its name.
        table: String,
        /// How it differs.
        what: String,
        /// The statement that fixes it.
        remedy: String,
    },
    /// The catalog was changed, and events may have passed unseen.
    #[error("{what}: events committed between {from} and {to} may be missing in Kafka")]
    Unseen {
        /// What was changed.
        what: String,
        /// The last position that is known to be complete.
        from: Lsn,
        /// The end of the WAL when the change was seen.
        to: Lsn,
    },
    /// A table is missing.
    #[error("table {} does not exist, or is not visible", names.join(" or "))]
    TableMissing {
        /// The names that it may have.
        names: Vec<String>,
        /// Tables of publications that it may be, by another name.
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
    #[error("in the catalog, table {table} has no column {column}, which is mapped as {role}")]
    ColumnMissing {
        /// Its name.
        table: String,
        /// The names that the column may have.
        column: String,
        /// What it should be.
        role: &'static str,
        /// The option that would find it, if it was renamed.
        both_names: String,
        /// The statement that adds it.
        addition: String,
    },
    /// Of two names, only one may be there.
    #[error("table {table} {what}")]
    Ambiguous {
        /// Its name.
        table: String,
        /// What is there twice.
        what: String,
    },
    /// A table has a column of a type that cannot be used.
    #[error("table {table} {what}")]
    Column {
        /// Its name.
        table: String,
        /// How it differs.
        what: String,
        /// What it should be.
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
            Self::SlotUnusable { .. } => Code::new(Exit::Contract, 1),
            Self::PublicationMissing { .. } => Code::new(Exit::Contract, 2),
            Self::PublicationUnfit { .. } => Code::new(Exit::Contract, 3),
            Self::TableMissing { .. } | Self::ColumnMissing { .. } | Self::Ambiguous { .. } | Self::Column { .. } => {
                Code::new(Exit::Contract, 4)
            }
            Self::TableUnfit { .. } => Code::new(Exit::Contract, 8),
            Self::ColumnRenamed { .. } => Code::new(Exit::Contract, 9),
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
                "on a new installation run `walrelay setup --apply`; where the slot existed before, the log since then is \
                 gone and events may be missing in Kafka: compare the outbox table before you make a new slot with \
                 `walrelay setup --apply --accept-gap`"
                    .to_owned()
            }
            Self::SlotLost { slot, .. } => format!(
                "events may be missing in Kafka: compare the outbox table, drop the slot with `SELECT \
                 pg_drop_replication_slot('{slot}')`, raise max_slot_wal_keep_size, then run `walrelay setup --apply \
                 --accept-gap`"
            ),
            Self::SlotUnusable { slot, .. } => format!(
                "name another slot under source.slot; or drop this one, if nobody else uses it: run `SELECT \
                 pg_drop_replication_slot('{slot}')`, then `walrelay setup --apply --accept-gap`"
            ),
            Self::PublicationMissing { .. } => {
                "run `walrelay setup --apply`; events of transactions before that are not in the log for us".to_owned()
            }
            Self::PublicationUnfit { remedy, .. } => format!("run `{remedy}`"),
            Self::TableUnfit { remedy, .. } => {
                format!("run `{remedy}`; events that were committed until then may be missing in Kafka: compare the rows")
            }
            Self::Unseen { .. } => "compare the rows of the outbox table that were committed in between with Kafka; then \
                                    accept the gap with `walrelay setup --apply --accept-gap`"
                .to_owned(),
            Self::TableMissing { names, published } => {
                let renamed = if published.is_empty() {
                    String::new()
                } else {
                    let old: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                    let (old, published) = (old.join(", "), published.join(", "));
                    format!(
                        "; if it was renamed, set outbox.table to its new name (published are {published}) and \
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
                "run `{addition}`, or name the column that is meant {}; if it was renamed, set {both_names} for this [[outbox]] and \
                 restart, for WAL that was written before has the old name",
                option(role)
            ),
            Self::Ambiguous { .. } => {
                "drop or rename the one that is not meant, or name only the other in this [[outbox]]".to_owned()
            }
            Self::Column { remedy, role, .. } => {
                format!("run `{remedy}`, or name the column that is meant {}", option(role))
            }
        })
    }
}

/// What to configure for a column that was renamed.
pub(in crate::relay) fn both_names(role: &str, now: &str, before: &str) -> String {
    let option = if role == "partition" { "" } else { "columns." };
    format!(
        "set {option}{role} = [{now:?}, {before:?}] for this [[outbox]] and restart, for WAL that was written before has \
         the old name"
    )
}

/// Where the column of a role is named.
fn option(role: &str) -> &'static str {
    if role == "partition" { "as partition of this [[outbox]]" } else { "under [outbox.columns]" }
}
