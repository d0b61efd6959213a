//! For applications' own tests: a harness that runs handlers without Kafka, and throwaway servers: a real PostgreSQL, and a
//! Kafka inside this process.
//!
//! The servers live in temporary places, listen on this machine only, and are gone with their value. They are not for keeping
//! anything: a throwaway PostgreSQL does not wait for its disk unless asked to.

mod broker;
#[cfg(feature = "consumer")]
mod harness;
mod postgres;

pub use broker::Broker;
#[cfg(feature = "consumer")]
pub use harness::Became;
#[cfg(feature = "consumer")]
pub use harness::Harness;
#[cfg(feature = "consumer")]
pub use harness::Step;
#[cfg(feature = "consumer")]
pub use harness::record;
pub use postgres::Options;
pub use postgres::Postgres;
pub use postgres::StopMode;

use std::io;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// A throwaway server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL's server programs are not on this machine.
    #[error("PostgreSQL's server programs (initdb, pg_ctl) are not on this machine")]
    PostgresMissing,
    /// A program failed.
    #[error("{program}: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        output: String,
    },
    /// The system refuses something.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The in-process Kafka refuses something.
    #[error("start an in-process Kafka")]
    Kafka(#[source] rdkafka::error::KafkaError),
}

impl Error {
    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::PostgresMissing => Code::new(Exit::Unavailable, 40),
            Self::Program { .. } | Self::Io { .. } | Self::Kafka(_) => Code::new(Exit::Unavailable, 41),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::PostgresMissing => Some(
                "install it (`sudo apt-get install postgresql` on Debian and Ubuntu), or name the folder of its programs in \
                 WALRELAY_PG_BIN"
                    .to_owned(),
            ),
            Self::Io { .. } => {
                Some("see that the folder for temporary files can be written to; TMPDIR names another one".to_owned())
            }
            Self::Program { .. } | Self::Kafka(_) => None,
        }
    }
}
