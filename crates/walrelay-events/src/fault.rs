//! How a failure is told: a stable code, what happened, and what to do next.
//!
//! Every room has its own error type and implements [`Diagnose`] for it. The code decides the exit code of the process, the
//! fate decides what the relay does next. Nothing here knows what a failure means in its room.

use std::error::Error;
use std::fmt;

/// The exit codes of the process; the numbers are a contract with init systems and scripts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Exit {
    /// A check found something wrong.
    CheckFailed = 1,
    /// The configuration cannot be used.
    Configuration = 64,
    /// Publication, schema, slot or topic are not what the configuration says.
    Contract = 65,
    /// The source position is lost: a gap is possible.
    PositionLost = 66,
    /// Credentials or rights are missing.
    Rights = 67,
    /// An event cannot become a record.
    Poison = 68,
    /// A dependency is away, or refuses for good.
    Unavailable = 69,
    /// A bug of ours, or a peer that breaks its protocol.
    Internal = 70,
    /// The stored position cannot be read or written.
    PositionStore = 71,
    /// The drain deadline passed; a restart is safe.
    DrainTimeout = 75,
}

/// A stable error code such as `WR-6601`: the exit code, then a number within it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Code {
    exit: Exit,
    number: u8,
}

impl Code {
    /// Makes a code of a group.
    #[must_use]
    pub const fn new(exit: Exit, number: u8) -> Self {
        Self { exit, number }
    }

    /// Gives the exit code of the process that stops with this code.
    #[must_use]
    pub const fn exit(self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WR-{:02}{:02}", self.exit as u8, self.number)
    }
}

/// What happens after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It may pass by itself: try again, with growing pauses.
    Transient,
    /// A person must act first: stop.
    Fatal,
}

/// What every room's error can say about itself. The message itself is the error's `Display`.
pub trait Diagnose: Error {
    /// The stable code.
    fn code(&self) -> Code;

    /// Whether trying again can help.
    fn fate(&self) -> Fate;

    /// The next step for a person: one sentence, the exact command or SQL where there is one.
    fn help(&self) -> Option<String> {
        None
    }
}

/// Writes an error and its causes as one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_its_exit() {
        assert_eq!(Code::new(Exit::PositionLost, 1).to_string(), "WR-6601");
        assert_eq!(Code::new(Exit::CheckFailed, 12).to_string(), "WR-0112");
    }
}
