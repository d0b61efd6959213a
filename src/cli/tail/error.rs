//! Why topics cannot be followed.

use crate::relay;
use crate::relay::publish;
use walrelay_events::KafkaError;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Options(#[from] publish::Error),
    #[error(transparent)]
    Relay(#[from] relay::Error),
    #[error("cannot {action}")]
    Kafka {
        /// The attempt, as in "read the topics".
        action: &'static str,
        #[source]
        source: KafkaError,
    },
    #[error("no topic of the brokers is {0}")]
    NoTopic(String),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Options(error) => error.code(),
            Self::Relay(error) => error.code(),
            Self::Kafka { .. } => Code::new(Exit::Unavailable, 81),
            Self::NoTopic(_) => Code::new(Exit::Unavailable, 82),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Options(error) => error.help(),
            Self::Relay(error) => error.help(),
            Self::Kafka { .. } => Some(
                "run `walrelay check`, which finds what is wrong with the brokers, the log-in and the topics; the \
                 permissions Describe and Read on the topics are needed as well"
                    .to_owned(),
            ),
            Self::NoTopic(_) => Some(
                "run `walrelay check`, which prints the command that creates a missing topic, or name an existing one \
                 with --topic"
                    .to_owned(),
            ),
        }
    }
}
