//! Why a throwaway server could not start.

use std::io;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::kafka_error::KafkaError;

/// Why a throwaway server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// PostgreSQL's server programs are not installed.
    #[error("cannot find PostgreSQL's server programs (initdb, pg_ctl)")]
    PostgresMissing,
    /// A program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// librdkafka's mock cluster failed.
    #[error("in-process Kafka failed")]
    Kafka(#[source] KafkaError),
}

impl Error {
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) const fn kafka(source: rdkafka::error::KafkaError) -> Self {
        Self::Kafka(KafkaError::new(source))
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::PostgresMissing => Code::new(Exit::Unavailable, 45),
            Self::Program { .. } | Self::Io { .. } | Self::Kafka(_) => Code::new(Exit::Unavailable, 46),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::PostgresMissing => Some(
                "install it (`sudo apt-get install postgresql` on Debian and Ubuntu), or set WALRELAY_PG_BIN to the \
                 directory of its programs"
                    .to_owned(),
            ),
            Self::Io { .. } => Some("make the temporary directory writable, or set TMPDIR to another one".to_owned()),
            Self::Program { .. } | Self::Kafka(_) => None,
        }
    }
}
