//! What happens to an event of a type that has no handler.
//!
//! A producer may add a type at any time, before its consumers know it. The default must be safe for that: such an
//! event is skipped, and neither fills the dead-letter topic nor delays later events of its key. It is not silent:
//! skipped events are counted, and each type is logged once.

use crate::consumer::outcome::Outcome;

/// How many characters of an event type a reason shows.
const MAX_TYPE_CHARS: usize = 64;

/// What happens to an event of a type that has no handler. [`Router`](crate::consumer::Router) and
/// [`typed`](crate::consumer::typed) have the same default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnUnknown {
    /// The event is skipped, counted, and logged once per type.
    #[default]
    Skip,
    /// The event is retried like after a failure. The last attempt dead-letters it.
    Retry,
    /// The event is dead-lettered. Use a dead-letter budget that the events of a new type do not exhaust.
    DeadLetter,
    /// The consumer stops before the event.
    Stop,
}

impl OnUnknown {
    /// Returns the outcome for an event of this type.
    pub(super) fn outcome(self, event_type: &str) -> Outcome {
        let shown: String = event_type.chars().take(MAX_TYPE_CHARS).collect();
        let reason = format!("no handler for event type {shown:?}");
        match self {
            Self::Skip => Outcome::skip(reason),
            Self::Retry => Outcome::retry(reason),
            Self::DeadLetter => Outcome::dead_letter(reason),
            Self::Stop => Outcome::stop(reason),
        }
    }
}
