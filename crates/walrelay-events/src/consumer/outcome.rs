//! What a handler decides: three fates, and one that is not a decision.
//!
//! A handler may return an [`Outcome`], or a `Result` whose error becomes one. Any error is a reason to try again, and too many
//! tries reject the event. What is no fault of the event counts no try, or an outage of the database would send good events
//! to the dead letters and let later ones of their keys pass them: it is tried again, less and less often, until it passes.
//!
//! | an error, or a cause of it | counts a try |
//! |---|---|
//! | of tokio-postgres or sqlx: a connection that closed, broke or could not be made; no connection in sqlx's pool | no |
//! | SQLSTATE 40001, 40P01: rolled back in favour of another transaction | no |
//! | SQLSTATE 08..., 53..., 57P..: no connection, no resources, a server that stops or starts | no |
//! | any other I/O error of a connection (refused, reset, broken, timed out, unreachable) | no |
//! | anything else | yes |

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// What a handler decides about an event.
///
/// ```
/// use std::time::Duration;
/// use walrelay_events::consumer::{Delivery, Failure, Outcome};
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
    /// It is no fault of the event: the database asked to begin again, or is away. Soon, then less and less often, and without
    /// counting a try.
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
        Self(if is_transient(&error) { Outcome::Again { reason } } else { Outcome::Retry { after: None, reason } })
    }
}

/// Says whether an error, or what caused it, is no fault of the event.
fn is_transient(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if is_of_postgres(error) || is_of_sqlx(error) || is_of_a_connection(error) {
            return true;
        }
        // An I/O error passes over what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

fn is_of_postgres(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else { return false };
    match error.code() {
        Some(code) => is_transient_state(code.code()),
        // That a connection took too long to make has neither a code nor a cause of its own.
        None => {
            error.is_closed()
                || error.source().is_some_and(<dyn Error>::is::<io::Error>)
                || error.to_string() == "timeout waiting for server"
        }
    }
}

#[cfg(feature = "sqlx")]
fn is_of_sqlx(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<sqlx::Error>() else { return false };
    if let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        return is_transient_state(&code);
    }
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed)
}

#[cfg(not(feature = "sqlx"))]
fn is_of_sqlx(_: &(dyn Error + 'static)) -> bool {
    false
}

fn is_of_a_connection(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [
        Kind::ConnectionRefused,
        Kind::ConnectionReset,
        Kind::ConnectionAborted,
        Kind::NotConnected,
        Kind::BrokenPipe,
        Kind::UnexpectedEof,
        Kind::TimedOut,
        Kind::HostUnreachable,
        Kind::NetworkUnreachable,
        Kind::NetworkDown,
    ];
    error.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

/// Says whether PostgreSQL's code means: the same again may pass.
fn is_transient_state(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01") || ["08", "53", "57P"].iter().any(|class| sqlstate.starts_with(class))
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
        let wrapped = io::Error::other(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(matches!(Failure::from(wrapped).0, Outcome::Again { .. }), "the cause counts");
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::NotFound)).0, Outcome::Retry { .. }));
        let rejecting = || -> Result<Outcome, Failure> { Err(Failure::reject("no such order")) };
        assert_eq!(rejecting().into_outcome(), Outcome::reject("no such order"));
    }

    #[test]
    fn i14_codes_that_are_no_fault_of_the_event_count_no_try() {
        for code in ["40001", "40P01", "08006", "53300", "57P01", "57P03"] {
            assert!(is_transient_state(code), "{code}");
        }
        for code in ["40002", "23505", "22P02", "42P01", "57014"] {
            assert!(!is_transient_state(code), "{code}");
        }
    }

    #[cfg(feature = "sqlx")]
    #[test]
    fn the_errors_of_sqlx_are_told_apart_like_the_others() {
        let broken = io::Error::from(io::ErrorKind::NotFound);
        assert!(matches!(Failure::from(sqlx::Error::Io(broken)).0, Outcome::Again { .. }));
        assert!(matches!(Failure::from(sqlx::Error::PoolTimedOut).0, Outcome::Again { .. }));
        assert!(matches!(Failure::from(sqlx::Error::RowNotFound).0, Outcome::Retry { .. }));
    }
}
