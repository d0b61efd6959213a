//! The origin of a value, as in mistakes and in `config show`.

use std::fmt;

/// The origin of a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    File {
        path: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The line's text.
        excerpt: String,
        /// The number of its characters to mark.
        width: usize,
    },
    /// An environment variable.
    Variable(String),
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column, .. } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}
