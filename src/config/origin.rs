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

impl Origin {
    /// Gives the order in which origins are reported: the layer, of which the last one has precedence, then line and
    /// column.
    pub(super) const fn place(&self) -> (u8, usize, usize) {
        match self {
            Self::File { line, column, .. } => (0, *line, *column),
            Self::Variable(_) => (1, 0, 0),
            Self::Set(_) => (2, 0, 0),
        }
    }
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
