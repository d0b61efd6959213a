//! Where a value came from, as a mistake and `config show` name it.

use std::fmt;

/// Where a value came from.
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
        /// How much of it is meant.
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
