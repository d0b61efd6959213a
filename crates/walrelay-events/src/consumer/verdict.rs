//! What follows from a handler's decision: done, later, or never. The runtime and the harness for tests both ask here.

use std::time::Duration;

use crate::consumer::outcome::Outcome;
use crate::consumer::retry::Policy;

/// What follows from a handler's decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The record is done.
    Done,
    /// It is tried again after a pause.
    Later {
        /// How long.
        pause: Duration,
        /// Why.
        reason: String,
    },
    /// It goes to the dead-letter topic.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// Judges a decision, and counts it as a try, or as a wait if it is no fault of the event. `noise` is any number; different records should bring
/// different ones.
pub(crate) fn judge(outcome: Outcome, tries: &mut u32, waits: &mut u32, policy: &Policy, noise: u64) -> Verdict {
    match outcome {
        Outcome::Done => Verdict::Done,
        Outcome::Again { reason } => {
            *waits = waits.saturating_add(1);
            Verdict::Later { pause: policy.again(*waits, noise), reason }
        }
        Outcome::Retry { after, reason } => {
            *tries += 1;
            *waits = 0;
            match policy.pause(*tries, noise ^ u64::from(*tries)) {
                Some(pause) => Verdict::Later { pause: after.unwrap_or(pause), reason },
                None => Verdict::Rejected { reason: format!("after {tries} tries: {reason}") },
            }
        }
        Outcome::Reject { reason } => {
            *tries += 1;
            Verdict::Rejected { reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_count_unless_the_database_asked_to_begin_again_and_the_last_one_rejects() {
        let policy = Policy { tries_max: 2, ..Policy::default() };
        let (mut tries, mut waits, after) = (0, 0, Duration::from_secs(9));
        let mut judge = |outcome| (judge(outcome, &mut tries, &mut waits, &policy, 7), tries);
        let again = judge(Outcome::Again { reason: "40001".to_owned() });
        assert!(matches!(again, (Verdict::Later { pause, .. }, 0) if pause < Duration::from_secs(1)), "{again:?}");
        let later = Verdict::Later { pause: after, reason: "away".to_owned() };
        assert_eq!(judge(Outcome::retry_after(after, "away")), (later, 1));
        let rejected = Verdict::Rejected { reason: "after 2 tries: away".to_owned() };
        assert_eq!(judge(Outcome::retry("away")), (rejected, 2));
        assert_eq!(judge(Outcome::reject("no")), (Verdict::Rejected { reason: "no".to_owned() }, 3));
        assert_eq!(judge(Outcome::Done), (Verdict::Done, 3));
    }
}
