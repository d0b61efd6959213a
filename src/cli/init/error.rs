//! Why no configuration file was written.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::shell::word;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The file for a password that was given in the URL.
pub(super) const PASSWORD_FILE: &str = "postgres-password";

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{} exists, and is not overwritten", .0.display())]
    Exists(PathBuf),
    #[error("--postgres-url contains a password, which is not written into the configuration")]
    Password {
        /// The same call without the password, if it can be made of this one.
        again: Option<String>,
        /// Whether another place for the password was given too.
        is_given: bool,
    },
    #[error("these options are no valid configuration: {0}")]
    Options(String),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        /// The words of the same call.
        words: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Converts what the file system says; `words` are those of the call.
    pub(super) fn of_file(path: &Path, words: String, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Self::Exists(path.to_owned());
        }
        Self::Write { path: path.to_owned(), words, source }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_) => Code::new(Exit::Configuration, 2),
            Self::Password { .. } => Code::new(Exit::Configuration, 3),
            Self::Options(_) => Code::new(Exit::Configuration, 4),
            Self::Write { .. } => Code::new(Exit::Configuration, 5),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Exists(path) => {
                let path = path.display().to_string();
                format!(
                    "check it with `walrelay config validate`, or move it away with `mv -i {} {}` and run this again",
                    word(&path),
                    word(&format!("{path}.old"))
                )
            }
            Self::Password { again: Some(again), is_given: true } => {
                format!("leave the password out of the URL: run `{again}`")
            }
            Self::Password { again: Some(again), is_given: false } => {
                format!("write the password into the file {PASSWORD_FILE}, readable only for you, and run `{again}`")
            }
            Self::Password { again: None, .. } => {
                "leave the password out of the URL, and give --postgres-password-file FILE".to_owned()
            }
            Self::Options(_) => "correct them; `walrelay config init --help` describes each option".to_owned(),
            Self::Write { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(path).display().to_string();
                format!("run `mkdir -p {}`, then this again", word(&folder))
            }
            Self::Write { words, .. } => format!(
                "name another file with --config, or run `walrelay config init --print{words}` for the text alone"
            ),
        })
    }
}
