//! What ends polling, and what a person does about it.

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::relay::route::Reason;
use crate::relay::row::Mismatch;
use crate::relay::wal;

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
    /// The table was altered under our feet.
    #[error("a table was altered: its statements are prepared again")]
    Altered,
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
        source: wal::Error,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Unfit { .. } => Code::new(Exit::Contract, 20),
            Self::Rights { .. } => Code::new(Exit::Rights, 20),
            Self::Mismatch(_) => Code::new(Exit::Contract, 10),
            Self::Altered => Code::new(Exit::Unavailable, 8),
            Self::Poison { .. } => Code::new(Exit::Poison, 1),
            Self::NotMarked { .. } => Code::new(Exit::Contract, 21),
            Self::Setup { source, .. } => source.code(),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Altered => Fate::Transient,
            Self::Unfit { .. }
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
            Self::Mismatch(_) => "set the column's name under [outbox.columns], or mend the table".to_owned(),
            Self::Altered => return None,
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
