//! Errors by code, and the last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use walrelay_events::fault;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Fate;

/// The longest stored text of an error, in characters.
const MAX_TEXT_CHARS: usize = 1_000;

/// The part of the relay that failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Component {
    /// A connection or query to PostgreSQL.
    Postgres,
    /// The check of tables, publication and slot.
    Catalog,
    /// The stored position.
    Position,
    /// Decoding and routing.
    Pipeline,
    /// Polling the outbox.
    Poll,
    /// Publishing to Kafka.
    Publish,
    /// Anything else.
    Relay,
}

impl Component {
    /// Gives its name in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Catalog => "catalog",
            Self::Position => "position",
            Self::Pipeline => "pipeline",
            Self::Poll => "poll",
            Self::Publish => "publish",
            Self::Relay => "relay",
        }
    }
}

/// One error, as it is reported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    pub code: Code,
    /// The error with its causes.
    pub text: String,
    /// The next step.
    pub help: Option<String>,
    /// When, in microseconds since 1970.
    pub at_micros: u64,
}

/// The count of one kind of error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FailureCount {
    /// The part that failed.
    pub component: Component,
    pub code: Code,
    /// Whether a retry may help.
    pub retryable: bool,
    /// The number of times.
    pub count: u64,
}

/// All errors of the relay. Codes are constants of the program, so their number is bounded.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    counts: BTreeMap<(Component, Code, bool), u64>,
    last: Option<Failure>,
}

impl Failures {
    /// Counts an error and stores it as the last one.
    pub fn note(&self, component: Component, error: &dyn Diagnose, now_micros: u64) {
        let failure = Failure {
            code: error.code(),
            text: capped(&fault::chain(error)),
            help: error.help().map(|help| capped(&help)),
            at_micros: now_micros,
        };
        let retryable = match error.fate() {
            Fate::Transient => true,
            Fate::Fatal => false,
        };
        let mut notes = self.lock();
        *notes.counts.entry((component, failure.code, retryable)).or_default() += 1;
        notes.last = Some(failure);
    }

    /// Gives the last error.
    #[must_use]
    pub fn last(&self) -> Option<Failure> {
        self.lock().last.clone()
    }

    /// Gives the counts by component and code.
    #[must_use]
    pub fn counts(&self) -> Vec<FailureCount> {
        let notes = self.lock();
        notes
            .counts
            .iter()
            .map(|((component, code, retryable), count)| FailureCount {
                component: *component,
                code: *code,
                retryable: *retryable,
                count: *count,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn capped(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use walrelay_events::fault::Exit;

    #[derive(Debug, thiserror::Error)]
    #[error("send status")]
    struct Refused(#[source] std::io::Error);

    impl Diagnose for Refused {
        fn code(&self) -> Code {
            Code::new(Exit::Unavailable, 3)
        }

        fn fate(&self) -> Fate {
            Fate::Transient
        }

        fn help(&self) -> Option<String> {
            Some("x".repeat(5_000))
        }
    }

    #[test]
    fn failures_are_counted_and_the_last_is_kept_with_its_causes() {
        let failures = Failures::default();
        assert_eq!(failures.last(), None);
        failures.note(Component::Postgres, &Refused(std::io::Error::other("first")), 1);
        failures.note(Component::Postgres, &Refused(std::io::Error::other("second")), 2);
        let last = failures.last().unwrap();
        assert_eq!((last.text.as_str(), last.at_micros), ("send status: second", 2));
        assert_eq!(last.help.map(|help| help.len()), Some(MAX_TEXT_CHARS));
        assert_eq!(
            failures.counts(),
            [FailureCount {
                component: Component::Postgres,
                code: Code::new(Exit::Unavailable, 3),
                retryable: true,
                count: 2
            }]
        );
    }
}
