//! Why a teardown refuses or fails.

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::quote;
use crate::relay::stream::holder::Holder;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// Nothing was dropped, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same error as in `run`.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A connection uses the slot.
    #[error("slot {slot:?} is in use by {holder}")]
    Held {
        slot: String,
        /// Its name, process and address.
        holder: String,
        pid: u32,
    },
    /// The slot is not one of walrelay.
    #[error("slot {slot:?} {what}, so walrelay did not create it")]
    Foreign {
        slot: String,
        /// How it differs.
        what: String,
    },
    /// The role may not drop the publication.
    #[error("role {role:?} cannot drop publication {publication:?}, which belongs to role {owner:?}")]
    NotOwner { role: String, publication: String, owner: String },
    /// The role may not delete the stored position.
    #[error("role {role:?} cannot delete the stored position: it lacks {missing}; nothing was dropped")]
    NoRight {
        role: String,
        /// As in "DELETE ON walrelay.position", for a GRANT.
        missing: &'static str,
    },
    /// What is found before the first step is worse than what was agreed to.
    #[error("{what} since the plan was printed; nothing was dropped")]
    Changed { what: &'static str },
    /// Events would not be published.
    #[error("{what}; nothing was dropped")]
    Undelivered {
        what: String,
        /// The command that accepts it.
        accepting: String,
    },
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// The attempt, as in "drop slot walrelay".
        what: String,
        /// The server's error.
        #[source]
        source: postgres::Error,
    },
}

impl Error {
    pub(super) fn held(slot: &str, pid: u32, holder: Option<&Holder>) -> Self {
        let holder = holder.map_or_else(|| format!("a connection (PID {pid})"), Holder::to_string);
        Self::Held { slot: slot.to_owned(), holder, pid }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Held { .. } => Code::new(Exit::Unavailable, 4),
            Self::Foreign { .. } => Code::new(Exit::Mismatch, 1),
            Self::NotOwner { .. } | Self::NoRight { .. } => Code::new(Exit::Rights, 4),
            Self::Undelivered { .. } | Self::Changed { .. } => Code::new(Exit::PositionLost, 21),
            Self::Statement { source, .. } => source.code(),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Relay(error) => return error.help(),
            Self::Held { pid, .. } => format!(
                "stop it, then run `walrelay teardown` again; if its machine is gone, run `SELECT \
                 pg_terminate_backend({pid})` first"
            ),
            Self::Foreign { .. } => "set source.slot to the slot of this relay".to_owned(),
            Self::NotOwner { owner, publication, .. } => format!(
                "run `DROP PUBLICATION {1}` as role {0} first, or run teardown as that role, with its password in \
                 --set postgres.url=...: without one there, postgres.password is sent; nothing was dropped",
                quote(owner),
                quote(publication)
            ),
            Self::NoRight { role, missing } => format!(
                "run `GRANT {missing} TO {}` as the owner, or leave out --with-position; nothing was dropped",
                quote(role)
            ),
            Self::Changed { .. } => "stop the application and the relay, then run `walrelay teardown` again".to_owned(),
            Self::Undelivered { accepting, .. } => format!(
                "run `walrelay run` until `walrelay status` shows no lag and stop it, or, if it cannot run, compare \
                 the outbox table with Kafka; if the events are not needed, run `{accepting}`"
            ),
            Self::Statement { source, .. } if source.is_denied() => {
                "run teardown as a role with REPLICATION that owns the publication, with its password in --set \
                 postgres.url=...: without one there, postgres.password is sent"
                    .to_owned()
            }
            Self::Statement { source, .. } => return source.help(),
        })
    }
}
