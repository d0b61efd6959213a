//! What the consumer does after a handler returned. The runtime and the test harness share this decision.

use std::time::Duration;

use crate::consumer::outcome::Outcome;
use crate::consumer::retry::RetryPolicy;

/// What the consumer does with a record after its handler returned.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The record is done. Its offset can be committed.
    Ack,
    /// The handler is called again.
    Retry {
        /// The time until then.
        backoff: Duration,
        /// Why, for a person.
        reason: String,
    },
    /// The record is written to the dead-letter topic.
    DeadLetter {
        /// Why, for a person.
        reason: String,
    },
}

impl Verdict {
    /// Returns the name that metrics use: `ack`, `retry` or `dead_letter`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry { .. } => "retry",
            Self::DeadLetter { .. } => "dead_letter",
        }
    }
}

/// Decides what follows from an outcome. A transient failure raises `transient_failures`, any other failure `attempts`.
/// The jitter comes from `seed`, which should differ between records.
pub(crate) fn decide(
    outcome: Outcome,
    attempts: &mut u32,
    transient_failures: &mut u32,
    policy: &RetryPolicy,
    seed: u64,
) -> Verdict {
    match outcome {
        Outcome::Ack => Verdict::Ack,
        Outcome::Transient { reason } => {
            *transient_failures = transient_failures.saturating_add(1);
            Verdict::Retry { backoff: policy.transient_backoff(*transient_failures, seed), reason }
        }
        Outcome::Retry { after, reason } => {
            *attempts += 1;
            *transient_failures = 0;
            match policy.backoff(*attempts, seed ^ u64::from(*attempts)) {
                Some(backoff) => Verdict::Retry { backoff: after.unwrap_or(backoff), reason },
                None => Verdict::DeadLetter { reason: format!("after {attempts} attempts: {reason}") },
            }
        }
        Outcome::DeadLetter { reason } => {
            *attempts += 1;
            Verdict::DeadLetter { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_unless_the_failure_is_transient_and_the_last_one_dead_letters() {
        let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let (mut attempts, mut failures, after) = (0, 0, Duration::from_secs(9));
        let mut decide = |outcome| (decide(outcome, &mut attempts, &mut failures, &policy, 7), attempts);
        let transient = decide(Outcome::transient("40001"));
        assert!(
            matches!(transient, (Verdict::Retry { backoff, .. }, 0) if backoff < Duration::from_secs(1)),
            "{transient:?}"
        );
        let later = Verdict::Retry { backoff: after, reason: "down".to_owned() };
        assert_eq!(decide(Outcome::retry_after(after, "down")), (later, 1));
        let exhausted = Verdict::DeadLetter { reason: "after 2 attempts: down".to_owned() };
        assert_eq!(decide(Outcome::retry("down")), (exhausted, 2));
        assert_eq!(decide(Outcome::dead_letter("no")), (Verdict::DeadLetter { reason: "no".to_owned() }, 3));
        assert_eq!(decide(Outcome::Ack), (Verdict::Ack, 3));
    }
}
