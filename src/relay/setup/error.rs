//! Why a setup failed.

use crate::lsn::Lsn;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::quote;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The setup failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same error as in `run`.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// The attempt, as in "create slot walrelay".
        what: String,
        /// The server's error.
        #[source]
        source: postgres::Error,
    },
    /// The slot does not exist, but a position is stored for it.
    #[error("slot {slot:?} was dropped: events after its stored position {stored} may be missing in Kafka")]
    Gap {
        slot: String,
        /// The stored position.
        stored: Lsn,
    },
    /// The slot is older than the publication.
    #[error(
        "slot {slot:?} exists without its publication {publication:?}: it cannot decode WAL written before that exists"
    )]
    SlotOlder { slot: String, publication: String },
    /// The role does not exist.
    #[error("role {0:?} does not exist")]
    NoRole(String),
    /// A slot is needed, and there may be no further one.
    #[error("cannot {purpose}: all {slots} replication slots of the server are in use; nothing was changed")]
    NoFreeSlot {
        /// What it is needed for.
        purpose: &'static str,
        /// How many there are.
        slots: i64,
    },
    /// A failover slot needs PostgreSQL 17.
    #[error("source.failover = \"on\" needs PostgreSQL 17, the server is version {version}")]
    NoFailover {
        /// The major version found.
        version: u32,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Statement { source, .. } => source.code(),
            Self::Gap { .. } => Code::new(Exit::PositionLost, 20),
            Self::SlotOlder { .. } => Code::new(Exit::Mismatch, 13),
            Self::NoFreeSlot { .. } => Code::new(Exit::Unavailable, 8),
            Self::NoFailover { .. } => Code::new(Exit::Configuration, 42),
            Self::NoRole(_) => Code::new(Exit::Rights, 60),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Relay(error) => error.help(),
            Self::Statement { source, .. } if source.remedy().is_some() => source.help(),
            Self::Statement { source, .. } if source.is_missing_table() => Some(
                "create the outbox table first, or run `walrelay setup --apply --with-outbox`; if it has another name, \
                 correct outbox.table"
                    .to_owned(),
            ),
            Self::NoRole(role) => Some(format!(
                "run `CREATE ROLE {} LOGIN REPLICATION PASSWORD '...'`, then run setup again",
                quote(role)
            )),
            Self::Statement { .. } => Some(
                "run setup as a role that owns the outbox table, has CREATE on the database and REPLICATION (--set \
                 postgres.url=...), or run the printed SQL as such a role"
                    .to_owned(),
            ),
            Self::Gap { .. } => Some(
                "compare the outbox table with Kafka, then run `walrelay setup --apply --accept-gap`"
                    .to_owned(),
            ),
            Self::SlotOlder { .. } => Some(
                "events committed since it was dropped are not published: compare the outbox table with Kafka, then \
                 run `walrelay setup --apply --accept-gap`, which creates it and skips nothing that can be decoded"
                    .to_owned(),
            ),
            Self::NoFreeSlot { .. } => Some(postgres::NO_SLOT.to_owned()),
            Self::NoFailover { .. } => Some("set source.failover = \"auto\"".to_owned()),
        }
    }
}
