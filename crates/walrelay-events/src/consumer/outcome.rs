//! The outcome of a handler: ack, retry, transient or dead-letter.
//!
//! A handler returns an [`Outcome`], or a `Result` whose error becomes one. By default an error means retry, and after
//! `max_attempts` the record is dead-lettered. An error that is no fault of the event is transient: it does not count
//! as an attempt. Otherwise an outage of the database would dead-letter good events, and later events of their keys
//! would overtake them.
//!
//! | an error, or one of its sources | outcome |
//! |---|---|
//! | tokio-postgres, sqlx: connection closed, broken, refused, timed out; no connection in sqlx's pool | transient |
//! | SQLSTATE 40001, 40P01: serialization failure, deadlock detected | transient |
//! | SQLSTATE class 08, 53, 57P: connection exception, insufficient resources, shutdown or startup | transient |
//! | any other I/O error of a connection: refused, reset, broken, timed out, unreachable | transient |
//! | anything else | retry |

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// What a handler returns.
///
/// ```
/// use std::time::Duration;
/// use walrelay_events::consumer::{Delivery, Failure, Outcome};
///
/// async fn weigh(delivery: Delivery) -> Result<Outcome, Failure> {
///     let text = delivery.record.header("grams").ok_or_else(|| Failure::dead_letter("no header grams"))?;
///     // `?` on any other error means retry.
///     let grams: u32 = text.parse()?;
///     Ok(match grams {
///         0 => Outcome::dead_letter("the parcel weighs nothing"),
///         1..30_000 => Outcome::Ack,
///         30_000.. => Outcome::retry_after(Duration::from_secs(60), "the crane is busy"),
///     })
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The event is handled. Its offset can be committed.
    Ack,
    /// The handler failed and is called again. The attempt counts. The last one dead-letters the event.
    Retry {
        /// After this time; without one the retry policy decides.
        after: Option<Duration>,
        /// Why, for a person.
        reason: String,
    },
    /// The handler failed through no fault of the event, for example because the database was down. It is called again
    /// with a growing backoff. The attempt does not count.
    Transient {
        /// Why, for a person.
        reason: String,
    },
    /// The event can never be handled. It is written to the dead-letter topic.
    DeadLetter {
        /// Why, for a person.
        reason: String,
    },
}

impl Outcome {
    /// Retries after the backoff of the retry policy.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// Retries after a given time.
    #[must_use]
    pub fn retry_after(after: Duration, reason: impl fmt::Display) -> Self {
        Self::Retry { after: Some(after), reason: reason.to_string() }
    }

    /// Retries without counting the attempt.
    #[must_use]
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self::Transient { reason: reason.to_string() }
    }

    /// Writes the event to the dead-letter topic.
    #[must_use]
    pub fn dead_letter(reason: impl fmt::Display) -> Self {
        Self::DeadLetter { reason: reason.to_string() }
    }

    /// Returns why the event was not acked.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ack => None,
            Self::Retry { reason, .. } | Self::Transient { reason } | Self::DeadLetter { reason } => Some(reason),
        }
    }
}

/// A type that a handler can return.
pub trait IntoOutcome {
    /// Converts the value into an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
    }
}

impl<T: IntoOutcome> IntoOutcome for Result<T, Failure> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|failure| failure.0, T::into_outcome)
    }
}

/// An error that a handler returns with `?`. Any error converts into it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure(Outcome);

impl Failure {
    /// Dead-letters the event with `?`.
    #[must_use]
    pub fn dead_letter(reason: impl fmt::Display) -> Self {
        Self(Outcome::dead_letter(reason))
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let reason = crate::fault::chain(&error);
        Self(if is_transient(&error) { Outcome::transient(reason) } else { Outcome::retry(reason) })
    }
}

/// Returns whether an error or one of its sources is no fault of the event.
fn is_transient(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if is_transient_postgres(error) || is_transient_sqlx(error) || is_transient_io(error) {
            return true;
        }
        // `io::Error::source` skips the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

fn is_transient_postgres(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else { return false };
    match error.code() {
        Some(code) => is_transient_state(code.code()),
        // A connect timeout has neither a code nor a source.
        None => {
            error.is_closed()
                || error.source().is_some_and(<dyn Error>::is::<io::Error>)
                || error.to_string() == "timeout waiting for server"
        }
    }
}

#[cfg(feature = "sqlx")]
fn is_transient_sqlx(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<sqlx::Error>() else { return false };
    if let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        return is_transient_state(&code);
    }
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed)
}

#[cfg(not(feature = "sqlx"))]
fn is_transient_sqlx(_: &(dyn Error + 'static)) -> bool {
    false
}

fn is_transient_io(error: &(dyn Error + 'static)) -> bool {
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

/// Returns whether the same transaction may succeed when it is run again.
fn is_transient_state(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01") || ["08", "53", "57P"].iter().any(|class| sqlstate.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_means_retry() {
        let failing = || -> Result<(), Failure> {
            "x".parse::<u8>()?;
            Ok(())
        };
        assert_eq!(failing().into_outcome(), Outcome::retry("invalid digit found in string"));
        let done: Result<(), Failure> = Ok(());
        assert_eq!(done.into_outcome(), Outcome::Ack);
        let wrapped = io::Error::other(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(matches!(Failure::from(wrapped).0, Outcome::Transient { .. }), "the source counts");
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::NotFound)).0, Outcome::Retry { .. }));
        let dead_lettering = || -> Result<Outcome, Failure> { Err(Failure::dead_letter("no such order")) };
        assert_eq!(dead_lettering().into_outcome(), Outcome::dead_letter("no such order"));
    }

    #[test]
    fn i14_codes_that_are_no_fault_of_the_event_are_transient() {
        for code in ["40001", "40P01", "08006", "53300", "57P01", "57P03"] {
            assert!(is_transient_state(code), "{code}");
        }
        for code in ["40002", "23505", "22P02", "42P01", "57014"] {
            assert!(!is_transient_state(code), "{code}");
        }
    }

    #[cfg(feature = "sqlx")]
    #[test]
    fn errors_of_sqlx_are_sorted_like_those_of_tokio_postgres() {
        let broken = io::Error::from(io::ErrorKind::NotFound);
        assert!(matches!(Failure::from(sqlx::Error::Io(broken)).0, Outcome::Transient { .. }));
        assert!(matches!(Failure::from(sqlx::Error::PoolTimedOut).0, Outcome::Transient { .. }));
        assert!(matches!(Failure::from(sqlx::Error::RowNotFound).0, Outcome::Retry { .. }));
    }
}
