//! Why logging cannot start.

use std::io;

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word is not a level.
    #[error("expected a log level (off, error, warn, info, debug, trace), found {word:?}")]
    Level {
        word: String,
        /// The level with the nearest name.
        nearest: Option<&'static str>,
    },
    /// A part of the filter has no usable target.
    #[error("expected target=level, found {part:?}")]
    Target { part: String },
    /// Logging was started before.
    #[error("start logging a second time in one process")]
    AlreadyStarted,
    /// The thread that writes lines cannot be started.
    #[error("start the thread that writes log lines")]
    Thread(#[source] io::Error),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Level { .. } => Code::new(Exit::Configuration, 50),
            Self::Target { .. } => Code::new(Exit::Configuration, 51),
            Self::AlreadyStarted => Code::new(Exit::Internal, 50),
            Self::Thread(_) => Code::new(Exit::Internal, 51),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        let example = "write log.level as a level, or as levels by target such as \"info,walrelay::relay=debug\"";
        match self {
            Self::Level { nearest: Some(nearest), .. } => Some(format!("did you mean \"{nearest}\"? {example}")),
            Self::Level { nearest: None, .. } | Self::Target { .. } => Some(example.to_owned()),
            Self::AlreadyStarted | Self::Thread(_) => None,
        }
    }
}
