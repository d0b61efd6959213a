//! Why pending events cannot be shown.

use std::time::Duration;

use crate::relay::error::Error as RelayError;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// Nothing was consumed in any case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same error as in `run`.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Only one connection at a time can decode a slot.
    #[error("slot {slot:?} is in use by {holder}, and only one connection at a time can decode what is behind it")]
    Held {
        slot: String,
        /// Its name, process and address.
        holder: String,
    },
    /// The server decodes whole transactions, from the restart position of the slot.
    #[error("the server did not decode what is behind slot {slot:?} within {limit:.1?}")]
    Slow { slot: String, limit: Duration },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Held { .. } => Code::new(Exit::Unavailable, 4),
            Self::Slow { .. } => Code::new(Exit::Unavailable, 2),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Relay(error) => return error.help(),
            Self::Held { .. } => {
                "`walrelay tail` shows what it publishes, and `walrelay status` its lag; to see what is pending stop \
                 it, then run `walrelay peek`"
                    .to_owned()
            }
            Self::Slow { limit, .. } => {
                format!("run `walrelay peek --timeout {}s`", limit.as_secs().saturating_mul(10).max(1))
            }
        })
    }
}
