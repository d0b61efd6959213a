//! Which errors of a handler count as attempts.
//!
//! The application's own classifier decides first. Otherwise only errors of the database clients tokio-postgres and
//! sqlx are transient by themselves, whatever error types they are wrapped in. A refused connection to anything else
//! counts: only the application knows whether the event chose the peer.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::sqlstate;
use crate::sqlstate::Cause;

/// What an error of a handler means for its record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The handler is called again after the backoff of the retry policy. The attempt counts.
    Retry,
    /// The handler is called again after this time. The attempt counts.
    RetryAfter(Duration),
    /// The error is no fault of the event. The handler is called again, and the attempt does not count.
    Transient,
    /// The event can never be handled. It is written to the dead-letter topic.
    DeadLetter,
}

type Classify = dyn Fn(&(dyn Error + 'static)) -> Option<ErrorClass> + Send + Sync;

/// The application's own function that classifies errors.
#[derive(Clone)]
pub(crate) struct Classifier(Arc<Classify>);

impl Classifier {
    pub(crate) fn new(classify: impl Fn(&(dyn Error + 'static)) -> Option<ErrorClass> + Send + Sync + 'static) -> Self {
        Self(Arc::new(classify))
    }

    /// Returns the class of the first error that the function knows: the error itself, or else one of its sources.
    pub(super) fn class(&self, error: &(dyn Error + 'static)) -> Option<ErrorClass> {
        sources(error).find_map(|error| (self.0)(error))
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}

/// Returns the class of an error that the application does not classify.
pub(super) fn class(error: &(dyn Error + 'static)) -> ErrorClass {
    let is_transient = |error: &(dyn Error + 'static)| is_transient_postgres(error) || is_transient_sqlx(error);
    if sources(error).any(is_transient) { ErrorClass::Transient } else { ErrorClass::Retry }
}

/// Returns an error and its sources.
pub(super) fn sources<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn Error + 'static)| {
        // `io::Error::source` skips the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(move || error.source())
    })
}

fn is_transient_postgres(error: &(dyn Error + 'static)) -> bool {
    use tokio_postgres::error::DbError;
    // Some error types hide the client's error and show only its source.
    if let Some(error) = error.downcast_ref::<DbError>() {
        return is_environment(error.code().code());
    }
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else { return false };
    match error.code() {
        Some(code) => is_environment(code.code()),
        // What has neither a code nor an I/O error as its source is known by its text only.
        None => {
            error.is_closed()
                || error.source().and_then(<dyn Error>::downcast_ref).is_some_and(is_of_connection)
                || ["timeout waiting for server", "error performing TLS handshake"].contains(&&*error.to_string())
        }
    }
}

/// Returns whether an I/O error is one of the connection. The others say that a value cannot be sent or read.
fn is_of_connection(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

#[cfg(feature = "sqlx")]
fn is_transient_sqlx(error: &(dyn Error + 'static)) -> bool {
    use sqlx::Error as Sqlx;
    let Some(error) = error.downcast_ref::<Sqlx>() else { return false };
    if let Some(code) = error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
        return is_environment(&code);
    }
    matches!(error, Sqlx::Io(error) if is_of_connection(error))
        || matches!(error, Sqlx::Tls(_) | Sqlx::PoolTimedOut | Sqlx::PoolClosed | Sqlx::WorkerCrashed)
}

#[cfg(not(feature = "sqlx"))]
fn is_transient_sqlx(_: &(dyn Error + 'static)) -> bool {
    false
}

fn is_environment(sqlstate: &str) -> bool {
    sqlstate::cause(sqlstate) == Cause::Environment
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of an HTTP client, for example.
    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Wrapped(#[source] Box<dyn Error + Send + Sync>);

    fn refused() -> io::Error {
        io::Error::from(io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn a_refused_connection_of_another_client_counts_as_an_attempt() {
        assert_eq!(class(&refused()), ErrorClass::Retry);
        assert_eq!(class(&Wrapped(Box::new(refused()))), ErrorClass::Retry);
    }

    #[test]
    fn a_classifier_is_asked_about_an_error_and_each_of_its_sources() {
        let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let classifier = Classifier::new(move |error| {
            error.downcast_ref::<io::Error>().is_some_and(is_refused).then_some(ErrorClass::Transient)
        });
        assert_eq!(classifier.class(&Wrapped(Box::new(refused()))), Some(ErrorClass::Transient));
        assert_eq!(classifier.class(&io::Error::other(refused())), Some(ErrorClass::Transient));
        assert_eq!(classifier.class(&io::Error::other("no")), None);
    }

    #[cfg(feature = "sqlx")]
    #[test]
    fn errors_of_sqlx_are_classified_like_those_of_tokio_postgres() {
        let transient = [
            sqlx::Error::Io(io::Error::from(io::ErrorKind::NotFound)),
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::Tls("no".into()),
        ];
        for error in transient {
            assert_eq!(class(&Wrapped(Box::new(error))), ErrorClass::Transient);
        }
        for error in [sqlx::Error::RowNotFound, sqlx::Error::Io(io::Error::from(io::ErrorKind::InvalidInput))] {
            assert_eq!(class(&error), ErrorClass::Retry);
        }
    }
}
