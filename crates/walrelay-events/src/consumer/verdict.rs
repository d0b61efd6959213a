//! What the consumer does after a handler returned. The runtime and the test harness share this decision.

use std::time::Duration;
use std::time::Instant;

use crate::consumer::outcome::Outcome;
use crate::consumer::retry::RetryPolicy;
use crate::consumer::retry::TransientRun;

/// What the consumer does with a record after its handler returned.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The record is done. Its offset can be committed.
    Ack,
    /// The record is done, without having been handled. Its offset can be committed.
    Skip {
        /// Why, for a person.
        reason: String,
    },
    /// The handler is called again.
    Retry {
        /// The time until then.
        backoff: Duration,
        /// How long the record has had nothing but transient failures. None if this attempt counts.
        transient_for: Option<Duration>,
        /// Why, for a person.
        reason: String,
    },
    /// The record is written to the dead-letter topic.
    DeadLetter {
        /// Why, for a person.
        reason: String,
    },
    /// The consumer stops. The record is handled again after the next start.
    Stop {
        /// Why, for a person.
        reason: String,
    },
}

impl Verdict {
    /// Returns the name that metrics use: `ack`, `skip`, `retry`, `transient`, `dead_letter` or `stop`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Skip { .. } => "skip",
            Self::Retry { transient_for: None, .. } => "retry",
            Self::Retry { transient_for: Some(_), .. } => "transient",
            Self::DeadLetter { .. } => "dead_letter",
            Self::Stop { .. } => "stop",
        }
    }
}

/// Decides what follows from an outcome. A transient failure extends the run of them, any other failure raises
/// `attempts` and ends the run. The jitter comes from `seed`, which should differ between records.
pub(crate) fn decide(
    outcome: Outcome,
    attempts: &mut u32,
    transient: &mut TransientRun,
    policy: &RetryPolicy,
    seed: u64,
    now: Instant,
) -> Verdict {
    match outcome {
        Outcome::Ack => Verdict::Ack,
        Outcome::Skip { reason } => Verdict::Skip { reason },
        Outcome::Transient { reason } => {
            let waited = transient.failed(now);
            let remaining = policy.transient_timeout.map(|timeout| timeout.saturating_sub(waited));
            if remaining == Some(Duration::ZERO) {
                *attempts += 1;
                return Verdict::DeadLetter { reason: format!("transient failures for {waited:.0?}: {reason}") };
            }
            let backoff = policy.transient_backoff(transient.failures(), seed);
            let backoff = remaining.map_or(backoff, |remaining| backoff.min(remaining));
            Verdict::Retry { backoff, transient_for: Some(waited), reason }
        }
        Outcome::Retry { after, reason } => {
            *attempts += 1;
            *transient = TransientRun::default();
            match policy.backoff(*attempts, seed ^ u64::from(*attempts)) {
                Some(backoff) => Verdict::Retry { backoff: after.unwrap_or(backoff), transient_for: None, reason },
                None => Verdict::DeadLetter { reason: format!("after {attempts} attempts: {reason}") },
            }
        }
        Outcome::DeadLetter { reason } => {
            *attempts += 1;
            Verdict::DeadLetter { reason }
        }
        Outcome::Stop { reason } => Verdict::Stop { reason },
        Outcome::Failed(error) => decide(error.into_outcome(), attempts, transient, policy, seed, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_unless_the_failure_is_transient_and_the_last_one_dead_letters() {
        let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let (mut attempts, mut transient, after, now) =
            (0, TransientRun::default(), Duration::from_secs(9), Instant::now());
        let mut decide = |outcome| (decide(outcome, &mut attempts, &mut transient, &policy, 7, now), attempts);
        let first = decide(Outcome::transient("40001"));
        assert!(
            matches!(first, (Verdict::Retry { backoff, transient_for: Some(Duration::ZERO), .. }, 0)
                if backoff < Duration::from_secs(1)),
            "{first:?}"
        );
        let later = Verdict::Retry { backoff: after, transient_for: None, reason: "down".to_owned() };
        assert_eq!(decide(Outcome::retry_after(after, "down")), (later, 1));
        let exhausted = Verdict::DeadLetter { reason: "after 2 attempts: down".to_owned() };
        assert_eq!(decide(Outcome::retry("down")), (exhausted, 2));
        assert_eq!(decide(Outcome::dead_letter("no")), (Verdict::DeadLetter { reason: "no".to_owned() }, 3));
        assert_eq!(decide(Outcome::Ack), (Verdict::Ack, 3));
        assert_eq!(decide(Outcome::skip("no")), (Verdict::Skip { reason: "no".to_owned() }, 3));
        assert_eq!(decide(Outcome::stop("no")), (Verdict::Stop { reason: "no".to_owned() }, 3));
    }

    #[test]
    fn transient_failures_end_only_at_their_timeout_which_no_backoff_exceeds() {
        let down = || Outcome::transient("down");
        let forever = RetryPolicy::default();
        let (mut attempts, mut transient, mut now) = (0, TransientRun::default(), Instant::now());
        for _ in 0..100 {
            let verdict = decide(down(), &mut attempts, &mut transient, &forever, 7, now);
            assert_eq!(verdict.name(), "transient");
            now += Duration::from_secs(3_600);
        }
        let limited = RetryPolicy { transient_timeout: Some(Duration::from_secs(10)), ..forever };
        let (mut transient, began, mut now) = (TransientRun::default(), now, now);
        loop {
            let verdict = decide(down(), &mut attempts, &mut transient, &limited, 7, now);
            let Verdict::Retry { backoff, .. } = verdict else {
                let reason = "transient failures for 10s: down".to_owned();
                assert_eq!((verdict, now - began), (Verdict::DeadLetter { reason }, Duration::from_secs(10)));
                break;
            };
            now += backoff;
        }
        assert_eq!(attempts, 1);
    }
}
