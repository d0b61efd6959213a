//! The outcome of a handler.
//!
//! A handler returns an [`Outcome`], or a `Result` whose error becomes one. By default an error means retry, and after
//! `max_attempts` the record is dead-lettered. An error that is no fault of the event is transient: it does not count
//! as an attempt. Otherwise an outage of the database would dead-letter good events, and later events of their keys
//! would overtake them.
//!
//! | an error, or one of its sources | outcome |
//! |---|---|
//! | a [`FailureError`] | what it was constructed with |
//! | anything that the consumer's own classifier knows | as it says |
//! | tokio-postgres, sqlx: connection closed, broken, refused, timed out; no connection in sqlx's pool | transient |
//! | tokio-postgres, sqlx: SQLSTATE 40001, 40P01 or 55P03: serialization failure, deadlock, lock timeout | transient |
//! | tokio-postgres, sqlx: SQLSTATE 25006: read-only transaction, as on a standby after a failover | transient |
//! | tokio-postgres, sqlx: SQLSTATE class 08, 28, 53, 57 or 58: the server or the way to it failed | transient |
//! | tokio-postgres, sqlx: SQLSTATE 57014 or 53400: a limit that the event may exceed each time | retry |
//! | anything else, for example a refused connection of an HTTP client | retry |

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::classifier;
use crate::consumer::classifier::Classifier;
use crate::consumer::classifier::ErrorClass;
use crate::fault;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

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
    /// The event is not for this consumer. Its offset can be committed. Skipped events are counted.
    Skip {
        /// Why, for a person. Each reason is logged once.
        reason: String,
    },
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
    /// The consumer stops. The event is handled again after the next start.
    Stop {
        /// Why, for a person.
        reason: String,
    },
    /// The handler returned an error that says nothing about itself. It is classified.
    Failed(HandlerError),
}

impl Outcome {
    /// Skips the event, which is counted.
    #[must_use]
    pub fn skip(reason: impl fmt::Display) -> Self {
        Self::Skip { reason: reason.to_string() }
    }

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

    /// Stops the consumer.
    #[must_use]
    pub fn stop(reason: impl fmt::Display) -> Self {
        Self::Stop { reason: reason.to_string() }
    }

    /// Returns why the event was not acked.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ack => None,
            Self::Skip { reason }
            | Self::Retry { reason, .. }
            | Self::Transient { reason }
            | Self::DeadLetter { reason }
            | Self::Stop { reason } => Some(reason),
            Self::Failed(error) => Some(&error.reason),
        }
    }

    /// Lets the application's classifier decide about an error that says nothing about itself.
    pub(super) fn classified(self, classifier: &Classifier) -> Self {
        let Self::Failed(failed) = self else { return self };
        match classifier.class(&*failed.error) {
            Some(class) => HandlerError { class, ..failed }.into_outcome(),
            None => Self::Failed(failed),
        }
    }

    /// Replaces the reason.
    fn because(self, reason: String) -> Self {
        match self {
            Self::Ack => Self::Ack,
            Self::Skip { .. } => Self::Skip { reason },
            Self::Retry { after, .. } => Self::Retry { after, reason },
            Self::Transient { .. } => Self::Transient { reason },
            Self::DeadLetter { .. } => Self::DeadLetter { reason },
            Self::Stop { .. } => Self::Stop { reason },
            Self::Failed(failed) => Self::Failed(HandlerError { reason, ..failed }),
        }
    }
}

/// An error that a handler returned, with its class.
#[derive(Clone, Debug)]
pub struct HandlerError {
    error: Arc<dyn Error + Send + Sync>,
    reason: String,
    class: ErrorClass,
}

impl HandlerError {
    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }

    /// Returns what the error means if the consumer's own classifier does not know it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// Returns the outcome that the class stands for.
    pub(super) fn into_outcome(self) -> Outcome {
        let Self { reason, class, .. } = self;
        match class {
            ErrorClass::Retry => Outcome::Retry { after: None, reason },
            ErrorClass::RetryAfter(after) => Outcome::Retry { after: Some(after), reason },
            ErrorClass::Transient => Outcome::Transient { reason },
            ErrorClass::DeadLetter => Outcome::DeadLetter { reason },
        }
    }
}

/// Two errors are equal if they have the same text and the same class.
impl PartialEq for HandlerError {
    fn eq(&self, other: &Self) -> bool {
        (&self.reason, self.class) == (&other.reason, other.class)
    }
}

impl Eq for HandlerError {}

/// A type that a handler can return.
///
/// Besides [`Outcome`] and `()` it is every `Result` of them whose error converts into `Box<dyn Error + Send + Sync>`:
/// [`Failure`], `anyhow::Error`, the box itself, and each error type of the application.
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

impl<T: IntoOutcome, E: Into<BoxError> + 'static> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(|error| outcome(boxed(error)), T::into_outcome)
    }
}

/// An error that a handler returns with `?`. Any error converts into it; the constructors say what happens next.
///
/// A handler that returns another error type returns the failure inside it:
///
/// ```
/// use walrelay_events::consumer::{Delivery, Failure};
///
/// async fn ship(delivery: Delivery) -> anyhow::Result<()> {
///     if delivery.record.key().is_none() {
///         // Dead-letters the event. Any other error means retry.
///         Err(Failure::dead_letter("the order has no id").into_error())?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure(Outcome);

impl Failure {
    /// Wraps an error that `?` does not convert, for example an `anyhow::Error`.
    #[must_use]
    pub fn new<E: Into<BoxError> + 'static>(error: E) -> Self {
        Self(outcome(boxed(error)))
    }

    /// Retries after the backoff of the retry policy. The attempt counts.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self(Outcome::retry(reason))
    }

    /// Retries after a given time. The attempt counts.
    #[must_use]
    pub fn retry_after(after: Duration, reason: impl fmt::Display) -> Self {
        Self(Outcome::retry_after(after, reason))
    }

    /// Retries without counting the attempt, because the failure is no fault of the event.
    #[must_use]
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self(Outcome::transient(reason))
    }

    /// Dead-letters the event.
    #[must_use]
    pub fn dead_letter(reason: impl fmt::Display) -> Self {
        Self(Outcome::dead_letter(reason))
    }

    /// Stops the consumer. The event is handled again after the next start.
    #[must_use]
    pub fn stop(reason: impl fmt::Display) -> Self {
        Self(Outcome::stop(reason))
    }

    /// Converts the failure into an error that other error types can contain. It keeps its meaning inside them.
    #[must_use]
    pub const fn into_error(self) -> FailureError {
        FailureError(self)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        Box::new(failure.into_error())
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// A [`Failure`] as an error. (`Failure` itself is none, so that any error converts into it.)
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailureError(Failure);

impl fmt::Display for FailureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.0.reason().unwrap_or_default())
    }
}

impl Error for FailureError {}

/// Converts an error so that its own type can be recognized.
fn boxed<E: Into<BoxError> + 'static>(error: E) -> BoxError {
    // `into` would hide the type of the error inside an `anyhow::Error`.
    let mut error = Some(error);
    let any: &mut dyn Any = &mut error;
    if let Some(error) = any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
        return error.reallocate_into_boxed_dyn_error_without_backtrace();
    }
    error.map_or_else(|| "an error".into(), Into::into)
}

fn outcome(error: BoxError) -> Outcome {
    let reason = fault::chain(&*error);
    let stated = classifier::sources(&*error).find_map(|error| error.downcast_ref().cloned());
    match stated {
        Some(FailureError(Failure(outcome))) => outcome.because(reason),
        None => Outcome::Failed(HandlerError { class: classifier::class(&*error), reason, error: error.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    /// An error of an application.
    #[derive(Debug, thiserror::Error)]
    enum Refused {
        #[error("the carrier is busy")]
        Busy,
        #[error("the carrier refused")]
        Carrier(#[from] FailureError),
        #[error("the database refused")]
        Database(#[source] BoxError),
    }

    /// Returns an outcome as the consumer sees it.
    fn explicit(returned: impl IntoOutcome) -> Outcome {
        let outcome = returned.into_outcome();
        let Outcome::Failed(error) = outcome else { return outcome };
        error.into_outcome()
    }

    #[test]
    fn any_error_means_retry() {
        let parse = || "x".parse::<u8>();
        let text = "invalid digit found in string";
        let failure = || -> Result<Outcome, Failure> { Ok(parse().map(|_| Outcome::Ack)?) };
        let boxed = || -> Result<Outcome, BoxError> { Ok(parse().map(|_| Outcome::Ack)?) };
        let any = || -> anyhow::Result<Outcome> { Ok(parse().map(|_| Outcome::Ack)?) };
        assert_eq!([explicit(failure()), explicit(boxed()), explicit(any())], [(); 3].map(|()| Outcome::retry(text)));
        assert_eq!(explicit(parse().map(drop)), Outcome::retry(text));
        assert_eq!(explicit(any().context("grams")), Outcome::retry(format!("grams: {text}")));
        assert_eq!(explicit(Err::<(), _>(Refused::Busy)), Outcome::retry("the carrier is busy"));
        assert_eq!(explicit(Err::<(), _>("a text".to_owned())), Outcome::retry("a text"));
        assert_eq!(explicit(any().map_err(Failure::new)), Outcome::retry(text));
        let done: Result<(), Failure> = Ok(());
        assert_eq!(explicit(done), Outcome::Ack);
    }

    #[test]
    fn a_failure_keeps_its_meaning_inside_other_errors() {
        let after = Duration::from_secs(7);
        let failures = [
            (Failure::retry("why"), Outcome::retry("why")),
            (Failure::retry_after(after, "why"), Outcome::retry_after(after, "why")),
            (Failure::transient("why"), Outcome::transient("why")),
            (Failure::dead_letter("why"), Outcome::dead_letter("why")),
            (Failure::stop("why"), Outcome::stop("why")),
        ];
        for (failure, expected) in failures {
            assert_eq!(explicit(Err::<(), _>(failure.clone())), expected);
            assert_eq!(explicit(Err::<(), BoxError>(failure.clone().into())), expected);
            let error = failure.into_error();
            assert_eq!(explicit(Err::<(), _>(anyhow::Error::from(error.clone()))), expected);
            let inner = Err::<(), _>(error.clone()).context("booking");
            let reason = expected.reason().unwrap_or_default();
            assert_eq!(explicit(inner), expected.clone().because(format!("booking: {reason}")));
            let own = Refused::from(error);
            assert_eq!(explicit(Err::<(), _>(own)), expected.clone().because(format!("the carrier refused: {reason}")));
        }
    }

    #[cfg(feature = "sqlx")]
    #[test]
    fn an_error_of_a_database_client_is_transient_in_every_error_type() {
        let error = || sqlx::Error::PoolTimedOut;
        let is_transient = |returned: Outcome| matches!(returned, Outcome::Transient { .. });
        assert!(is_transient(explicit(Err::<(), _>(error()))));
        assert!(is_transient(explicit(Err::<(), _>(Failure::from(error())))));
        assert!(is_transient(explicit(Err::<(), _>(anyhow::Error::from(error())))), "anyhow hides no type");
        assert!(is_transient(explicit(Err::<(), _>(anyhow::Error::from(error()).context("invoice")))));
        assert!(is_transient(explicit(Err::<(), BoxError>(error().into()))));
        assert!(is_transient(explicit(Err::<(), _>(Refused::Database(error().into())))));
    }

    #[test]
    fn the_applications_classifier_comes_first_and_a_constructed_failure_before_it() {
        let classifier = Classifier::new(|error| error.is::<io::Error>().then_some(ErrorClass::DeadLetter));
        let classified = |returned: Result<(), Failure>| returned.into_outcome().classified(&classifier);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(classified(Err(refused().into())), Outcome::dead_letter("connection refused"));
        assert_eq!(classified(Err(Failure::transient("t"))), Outcome::transient("t"));
        let unknown = classified("x".parse::<u8>().map(drop).map_err(Into::into));
        assert!(matches!(unknown, Outcome::Failed(error) if error.class() == ErrorClass::Retry));
        assert_eq!(classified(Ok(())), Outcome::Ack);
    }
}
