//! How a failure is told: code, what happened, the next step; and the exit code that goes with it.

use std::io;
use std::process::ExitCode;

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::chain;

use super::output::Output;

/// Standard output does not take what is written.
const UNWRITABLE: Code = Code::new(Exit::Unavailable, 42);

/// A verb that failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// With a code, a cause and a next step.
    Fault(Box<dyn Diagnose>),
    /// Standard output is gone.
    Output(io::Error),
}

impl Failed {
    pub(super) fn new(fault: impl Diagnose + 'static) -> Self {
        Self::Fault(Box::new(fault))
    }

    /// Tells it, and gives the exit code.
    pub(super) fn tell(&self, output: &mut Output) -> ExitCode {
        match self {
            Self::Fault(fault) => {
                output.note(&format!("error[{}]: {}", fault.code(), chain(&**fault)));
                if let Some(help) = fault.help() {
                    output.hint(&format!("  next: {help}"));
                }
                ExitCode::from(fault.code().exit() as u8)
            }
            // `walrelay config show | head`: the reader has what it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(error) => {
                output.note(&format!("error[{UNWRITABLE}]: write to standard output: {error}"));
                ExitCode::from(UNWRITABLE.exit() as u8)
            }
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
