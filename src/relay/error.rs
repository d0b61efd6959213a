//! Everything that can end a connection or the relay, and what is known of it.

use std::time::Duration;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::relay::contract;
use crate::relay::metrics::Component;
use crate::relay::pipeline;
use crate::relay::poll;
use crate::relay::position;
use crate::relay::publish;
use crate::relay::resume::Lost;
use crate::relay::route::BadTemplate;
use crate::relay::wal;

/// The relay cannot go on, or this connection cannot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An `[[outbox]]` cannot be used.
    #[error("read the [[outbox]] of table {table}")]
    Outbox {
        /// Its table.
        table: String,
        /// What is wrong.
        #[source]
        source: BadTemplate,
    },
    /// PostgreSQL.
    #[error("{action}")]
    Wal {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: wal::Error,
    },
    /// The contract does not hold.
    #[error(transparent)]
    Contract(#[from] contract::Error),
    /// The stored position.
    #[error(transparent)]
    Position(#[from] position::Error),
    /// Going on would leave a gap.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The stream cannot be followed.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The outbox cannot be polled.
    #[error(transparent)]
    Poll(#[from] poll::Error),
    /// A producer cannot be made.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// Kafka did not take a record.
    #[error(transparent)]
    Failure(#[from] publish::Failure),
    /// Commits of the application would wait for us.
    #[error(
        "this relay would count as a synchronous standby, and commits of the application would wait for Kafka: \
         synchronous_standby_names = '{names}'"
    )]
    Synchronous {
        /// The setting.
        names: String,
    },
    /// The server has been silent for too long.
    #[error("the server has said nothing for {} s", limit.as_secs())]
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// A stop took too long.
    #[error("{records} records were still on the way when the drain deadline of {} s passed", limit.as_secs())]
    DrainTimeout {
        /// How many.
        records: u64,
        /// The limit.
        limit: Duration,
    },
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
}

impl Error {
    pub(super) fn wal(action: &'static str) -> impl FnOnce(wal::Error) -> Self {
        move |source| Self::Wal { action, source }
    }

    /// Gives the room it comes from.
    #[must_use]
    pub const fn component(&self) -> Component {
        match self {
            Self::Wal { .. } | Self::Silent { .. } => Component::Wal,
            Self::Contract(_) | Self::Synchronous { .. } => Component::Contract,
            Self::Position(_) | Self::Lost(_) => Component::Position,
            Self::Pipeline(_) => Component::Pipeline,
            Self::Poll(_) => Component::Poll,
            Self::Publish(_) | Self::Failure(_) => Component::Publish,
            Self::Outbox { .. } | Self::DrainTimeout { .. } | Self::Thread(_) => Component::Relay,
        }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Outbox { .. } => Code::new(Exit::Configuration, 40),
            Self::Wal { source, .. } => source.code(),
            Self::Contract(error) => error.code(),
            Self::Position(error) => error.code(),
            Self::Lost(lost) => match lost {
                Lost::OtherSystem { .. } => Code::new(Exit::PositionLost, 10),
                Lost::SlotAhead { .. } => Code::new(Exit::PositionLost, 11),
                Lost::ServerBehind { .. } => Code::new(Exit::PositionLost, 12),
            },
            Self::Pipeline(error) => error.code(),
            Self::Poll(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Failure(failure) => failure.code(),
            Self::Synchronous { .. } => Code::new(Exit::Contract, 20),
            Self::Silent { .. } => Code::new(Exit::Unavailable, 7),
            Self::DrainTimeout { .. } => Code::new(Exit::DrainTimeout, 1),
            Self::Thread(_) => Code::new(Exit::Internal, 20),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Outbox { .. }
            | Self::Synchronous { .. }
            | Self::Lost(_)
            | Self::DrainTimeout { .. }
            | Self::Thread(_) => Fate::Fatal,
            Self::Wal { source, .. } => source.fate(),
            Self::Contract(error) => error.fate(),
            Self::Position(error) => error.fate(),
            Self::Pipeline(error) => error.fate(),
            Self::Poll(error) => error.fate(),
            Self::Publish(error) => error.fate(),
            Self::Failure(failure) => failure.fate(),
            Self::Silent { .. } => Fate::Transient,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Outbox { .. } => Some("mend [[outbox]] in the configuration".to_owned()),
            Self::Wal { source, .. } => source.help(),
            Self::Contract(error) => error.help(),
            Self::Position(error) => error.help(),
            Self::Lost(_) => Some(
                "events between the two positions may be missing in Kafka: compare the outbox table; then accept the gap \
                 with `walrelay setup --apply --accept-gap`, which starts at the slot's position"
                    .to_owned(),
            ),
            Self::Pipeline(error) => error.help(),
            Self::Poll(error) => error.help(),
            Self::Publish(error) => error.help(),
            Self::Failure(failure) => failure.help(),
            Self::Synchronous { .. } => Some(
                "list the standbys by their names instead, and not the name of this relay (relay.name), for example with `ALTER SYSTEM \
                 SET synchronous_standby_names = 'FIRST 1 (standby1)'` and `SELECT pg_reload_conf()`"
                    .to_owned(),
            ),
            Self::Silent { .. } => None,
            Self::DrainTimeout { .. } => {
                Some("nothing is lost: restart, and they are published again; raise shutdown.drain for more time".to_owned())
            }
            Self::Thread(_) => Some("check the limits of the process".to_owned()),
        }
    }
}
