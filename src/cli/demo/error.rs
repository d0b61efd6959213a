//! Why the demo cannot be shown.

use std::io;
use std::time::Duration;

use crate::relay;
use crate::relay::setup;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::testing;

/// The demo cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A throwaway server cannot be started.
    #[error(transparent)]
    Testing(#[from] testing::Error),
    /// Publication, slot or position cannot be set up.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The relay stopped.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// The application cannot write.
    #[error("write an order")]
    Write(#[source] tokio_postgres::Error),
    /// The consumer cannot read.
    #[error("read from Kafka")]
    Read(#[source] rdkafka::error::KafkaError),
    /// Some events were not delivered in time.
    #[error("{missing} events were not delivered within {} s", after.as_secs())]
    Missing { missing: usize, after: Duration },
    /// Standard output is closed, or a thread cannot be started.
    #[error("show the demo")]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether the reader of standard output is gone.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Testing(error) => error.code(),
            Self::Setup(error) => error.code(),
            Self::Relay(error) => error.code(),
            Self::Write(_) | Self::Read(_) | Self::Missing { .. } | Self::Io(_) => Code::new(Exit::Internal, 30),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Testing(error) => error.help(),
            Self::Setup(error) => error.help(),
            Self::Relay(error) => error.help(),
            Self::Write(_) | Self::Read(_) | Self::Missing { .. } | Self::Io(_) => None,
        }
    }
}
