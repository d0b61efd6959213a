//! Why a dead-letter topic cannot be read, or a record cannot be redriven.

use std::io;

use crate::relay::publish;
use walrelay_events::KafkaError;
use walrelay_events::consumer::dead_letter::WriteError;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use crate::cli::report::Failed;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Options(#[from] publish::Error),
    #[error("{action}")]
    Kafka {
        action: String,
        #[source]
        source: KafkaError,
    },
    /// Another attempt can help.
    #[error("{action}")]
    Write {
        action: String,
        #[source]
        source: WriteError,
    },
    /// This record, and no other.
    #[error("cannot redrive {record}")]
    Refused {
        record: String,
        #[source]
        source: WriteError,
    },
    #[error("cannot redrive {0}: its headers do not name the original topic")]
    NoOrigin(String),
    #[error("cannot redrive {record} to topic {topic:?}: this is no name of a topic")]
    NoTopic { record: String, topic: String },
    #[error("cannot redrive records of {0} to the same topic: they would be dead-letter records without their origin")]
    SameTopic(String),
    #[error("cannot redrive {0} before earlier records of its key that cannot be redriven")]
    Held(String),
    #[error("no dead-letter record in {0} matches")]
    NoMatch(String),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Options(error) => error.code(),
            Self::Kafka { .. } | Self::Write { .. } => Code::new(Exit::Unavailable, 80),
            Self::NoOrigin(_) => Code::new(Exit::CheckFailed, 80),
            Self::NoMatch(_) => Code::new(Exit::CheckFailed, 81),
            Self::Refused { .. } => Code::new(Exit::CheckFailed, 83),
            Self::Held(_) => Code::new(Exit::CheckFailed, 84),
            Self::NoTopic { .. } => Code::new(Exit::CheckFailed, 85),
            Self::SameTopic(_) => Code::new(Exit::CheckFailed, 86),
            Self::Runtime(_) => Code::new(Exit::Internal, 80),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Options(error) => return error.help(),
            Self::Refused { source, .. } => return Some(format!("{}, then redrive again", source.next_step())),
            Self::Write { source, .. } => {
                return Some(format!("{}, then redrive again: what was redriven is skipped", source.next_step()));
            }
            Self::Kafka { .. } => {
                "check [kafka] in the configuration, the name of the topic, and the permissions Read and Write on it"
            }
            Self::NoOrigin(_) | Self::NoTopic { .. } => "set the topic with --to TOPIC",
            Self::SameTopic(_) => "set another topic with --to TOPIC",
            Self::Held(_) => "redrive again when the earlier records are redriven, or select it with --at",
            Self::NoMatch(_) => "`walrelay dlq list TOPIC --all` lists every dead-letter record",
            Self::Runtime(_) => return None,
        };
        Some(help.to_owned())
    }
}

impl Error {
    pub(super) fn kafka(action: impl Into<String>) -> impl FnOnce(KafkaError) -> Failed {
        move |source| Failed::new(Self::Kafka { action: action.into(), source })
    }

    pub(super) fn write(action: impl Into<String>) -> impl FnOnce(WriteError) -> Failed {
        move |source| Failed::new(Self::Write { action: action.into(), source })
    }
}
