//! What a handler decides: three fates, and one that is not a decision.
//!
//! A handler may return an [`Outcome`], or a `Result` whose error becomes one: any error is a reason to try again, and a
//! transaction that PostgreSQL rolled back in favour of another one is tried again at once without counting as a try.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// SQLSTATE of a transaction that could not be serialized.
const SERIALIZATION_FAILURE: &str = "40001";
/// SQLSTATE of a transaction that was chosen to end a deadlock.
const DEADLOCK: &str = "40P01";

/// What a handler decides about an event.
///
/// ```
/// use std::time::Duration;
/// use walrelay::consumer::{Delivery, Failure, Outcome};
///
/// async fn weigh(delivery: Delivery) -> Result<Outcome, Failure> {
///     let text = delivery.record.header("grams").ok_or_else(|| Failure::reject("nobody says how heavy it is"))?;
///     // An error by `?` means: try again, as the retry policy says.
///     let grams: u32 = text.parse()?;
///     Ok(match grams {
///         0 => Outcome::reject("it weighs nothing"),
///         1..30_000 => Outcome::Done,
///         30_000.. => Outcome::retry_after(Duration::from_secs(60), "the crane is not here"),
///     })
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is dealt with.
    Done,
    /// Not now. Without a time the retry policy says when; too many tries reject it.
    Retry {
        /// After how long.
        after: Option<Duration>,
        /// Why, for a person.
        reason: String,
    },
    /// The database asked to begin again: soon, and without counting a try.
    Again {
        /// Why, for a person.
        reason: String,
    },
    /// Never: to the dead-letter topic.
    Reject {
        /// Why, for a person.
        reason: String,
    },
}

impl Outcome {
    /// Tries again when the retry policy says.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// Tries again after a time.
    #[must_use]
    pub fn retry_after(after: Duration, reason: impl fmt::Display) -> Self {
        Self::Retry { after: Some(after), reason: reason.to_string() }
    }

    /// Sends the event to the dead-letter topic.
    #[must_use]
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject { reason: reason.to_string() }
    }

    /// Tells why the event is not dealt with.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Retry { reason, .. } | Self::Again { reason } | Self::Reject { reason } => Some(reason),
        }
    }
}

/// What a handler may return.
pub trait IntoOutcome {
    /// Gives the decision.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl<T: IntoOutcome> IntoOutcome for Result<T, Failure> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|failure| failure.0, T::into_outcome)
    }
}

/// An error on its way out of a handler by `?`: any error becomes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure(Outcome);

impl Failure {
    /// Gives up on the event with `?`.
    #[must_use]
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self(Outcome::reject(reason))
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let reason = crate::fault::chain(&error);
        Self(if is_conflict(&error) { Outcome::Again { reason } } else { Outcome::Retry { after: None, reason } })
    }
}

/// Says whether PostgreSQL rolled the transaction back in favour of another: run it again as it is.
fn is_conflict(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
        if code.is_some_and(|code| matches!(code.code(), SERIALIZATION_FAILURE | DEADLOCK)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_a_reason_to_try_again() {
        let failing = || -> Result<(), Failure> {
            "x".parse::<u8>()?;
            Ok(())
        };
        assert_eq!(failing().into_outcome(), Outcome::retry("invalid digit found in string"));
        let done: Result<(), Failure> = Ok(());
        assert_eq!(done.into_outcome(), Outcome::Done);
        let rejecting = || -> Result<Outcome, Failure> { Err(Failure::reject("no such order")) };
        assert_eq!(rejecting().into_outcome(), Outcome::reject("no such order"));
    }
}
