//! Why a setup failed.

use rdkafka::error::RDKafkaErrorCode;

use crate::lsn::Lsn;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::quote;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::internal::is_lack_of_rights;

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
    #[error("role {role:?} does not exist")]
    NoRole {
        role: String,
        /// What it needs, as in "LOGIN REPLICATION".
        attributes: &'static str,
    },
    /// The server accepted a GRANT and granted nothing.
    #[error("role {role:?} still lacks {privileges} after the GRANT")]
    NotGranted {
        role: String,
        /// As in "INSERT on table shop.events".
        privileges: String,
        /// Who can grant it.
        owner: String,
    },
    /// The administrator's connection leads elsewhere than the relay's.
    #[error("the administrator's URL leads to database {admin:?}, and postgres.url to {relay:?}")]
    OtherDatabase { admin: String, relay: String },
    /// No record could be acknowledged.
    #[error("min.insync.replicas {min} is more than the replication factor {replicas}")]
    TooFewReplicas { min: i32, replicas: i32 },
    /// The brokers do not create a topic.
    #[error("cannot create topic {topic}: {code}")]
    Topic {
        topic: String,
        /// Why, according to the brokers.
        code: RDKafkaErrorCode,
        /// The command that does the same.
        command: String,
    },
    /// The server writes too little into its WAL.
    #[error("wal_level is {0}, and logical replication needs logical")]
    WalLevel(String),
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
            Self::NoRole { .. } => Code::new(Exit::Rights, 60),
            Self::NotGranted { .. } => Code::new(Exit::Rights, 61),
            Self::OtherDatabase { .. } => Code::new(Exit::Configuration, 43),
            Self::WalLevel(_) => Code::new(Exit::Mismatch, 41),
            Self::TooFewReplicas { .. } => Code::new(Exit::Configuration, 44),
            Self::Topic { code, .. } if is_lack_of_rights(*code) => Code::new(Exit::Rights, 32),
            Self::Topic { .. } => Code::new(Exit::Unavailable, 52),
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
            Self::NoRole { role, attributes } => Some(format!(
                "run `CREATE ROLE {} {attributes} PASSWORD '...'`, then run setup again",
                quote(role)
            )),
            Self::NotGranted { owner, .. } => Some(format!(
                "run setup as {owner}, who can grant it (--admin-url), or the SQL that `walrelay setup` prints"
            )),
            Self::OtherDatabase { relay, .. } => {
                Some(format!("end the administrator's URL with the database {relay:?}, or correct postgres.url"))
            }
            Self::TooFewReplicas { replicas, .. } => {
                Some(format!("set --min-insync-replicas to at most {replicas}, or raise --replication-factor"))
            }
            Self::Topic { command, .. } => Some(format!(
                "run `{command}` as an administrator, or correct --partitions and --replication-factor"
            )),
            Self::WalLevel(_) => {
                Some("run `ALTER SYSTEM SET wal_level = 'logical'` as a superuser and restart PostgreSQL".to_owned())
            }
            Self::Statement { .. } => Some(
                "run setup as a role that owns the outbox table, has CREATE on the database and REPLICATION \
                 (--admin-url), or run the SQL that `walrelay setup` prints: it says which role each statement needs"
                    .to_owned(),
            ),
            Self::Gap { .. } => Some(
                "run `walrelay setup --apply --accept-gap`; before you start the relay, compare the rows that were \
                 committed before the position that it prints with Kafka"
                    .to_owned(),
            ),
            Self::SlotOlder { .. } => Some(
                "events committed since it was dropped are not published: run `walrelay setup --apply --accept-gap`, \
                 which creates it and skips nothing that can be decoded; before you start the relay, compare the \
                 rows that were committed before the position that it prints with Kafka"
                    .to_owned(),
            ),
            Self::NoFreeSlot { .. } => Some(postgres::NO_SLOT.to_owned()),
            Self::NoFailover { .. } => Some("set source.failover = \"auto\"".to_owned()),
        }
    }
}
