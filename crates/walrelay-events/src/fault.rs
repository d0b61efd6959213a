//! How failures are reported: a stable code, what happened, and what to do next.
//!
//! Every module has its own error type and implements [`Diagnose`] for it. The code determines the exit code of the
//! process, the fate determines what the relay does next.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes of the process. Init systems and scripts depend on the numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
#[non_exhaustive]
pub enum Exit {
    /// A check found something wrong.
    CheckFailed = 1,
    /// The configuration cannot be used.
    Configuration = 64,
    /// Publication, schema, slot or topic are not what the configuration says.
    Mismatch = 65,
    /// The source position is lost: a gap is possible.
    PositionLost = 66,
    /// Credentials or rights are missing.
    Rights = 67,
    /// An event cannot become a record.
    Poison = 68,
    /// A dependency is unavailable, or refuses requests permanently.
    Unavailable = 69,
    /// A bug, or a peer that violates its protocol.
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
    /// Creates a code.
    #[must_use]
    pub const fn new(exit: Exit, number: u8) -> Self {
        Self { exit, number }
    }

    /// Returns the exit code of a process that stops with this code.
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

/// What happens after a failure. There is no third fate, so this enum is exhaustive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// A retry can succeed. Retry with a growing backoff.
    Transient,
    /// A person must act first. Stop.
    Fatal,
}

/// What an error says besides its message, which is its `Display`.
pub trait Diagnose: Error {
    /// The stable code.
    fn code(&self) -> Code;

    /// Whether a retry can succeed.
    fn fate(&self) -> Fate;

    /// The next step for a person: one sentence, with the exact command or SQL if there is one.
    fn help(&self) -> Option<String> {
        None
    }
}

/// Logs the error that ends a service, with its code and its next step, and returns the exit code of the process.
///
/// ```no_run
/// use std::process::ExitCode;
/// use walrelay_events::fault;
/// # #[cfg(feature = "consumer")]
/// use walrelay_events::consumer::{Config, Consumer, Delivery, shutdown_signal};
///
/// # #[cfg(feature = "consumer")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ExitCode {
/// let config = Config::new("localhost:9092", "shipping", &["order-events"]);
/// match Consumer::new(config, |_: Delivery| async {}).run(shutdown_signal()).await {
///     Ok(()) => ExitCode::SUCCESS,
///     Err(error) => fault::report(&error),
/// }
/// # }
/// # #[cfg(not(feature = "consumer"))]
/// # fn main() {}
/// ```
#[must_use]
pub fn report(error: &dyn Diagnose) -> ExitCode {
    let (code, next) = (error.code(), error.help());
    tracing::error!(%code, error = chain(error), next, "the service ends");
    ExitCode::from(code.exit() as u8)
}

/// Formats an error and its sources as one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_contains_its_exit_code() {
        assert_eq!(Code::new(Exit::PositionLost, 1).to_string(), "WR-6601");
        assert_eq!(Code::new(Exit::CheckFailed, 12).to_string(), "WR-0112");
    }

    #[test]
    fn a_reported_error_determines_the_exit_code_of_the_process() {
        #[derive(Debug, thiserror::Error)]
        #[error("the slot is lost")]
        struct Lost;
        impl Diagnose for Lost {
            fn code(&self) -> Code {
                Code::new(Exit::PositionLost, 1)
            }

            fn fate(&self) -> Fate {
                Fate::Fatal
            }
        }
        assert_eq!(format!("{:?}", report(&Lost)), format!("{:?}", ExitCode::from(66)));
    }
}
