//! Retrying, for both sources: backoff, recurring errors, stalls, and what is logged meanwhile.

pub(super) mod backoff;
pub(super) mod recovery;
pub(super) mod recurrence;
pub(super) mod stalls;
