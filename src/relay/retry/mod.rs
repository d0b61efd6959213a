//! How both sources wait and retry: backoff, what counts as a stall, and what is said meanwhile.

pub(super) mod backoff;
pub(super) mod recovery;
pub(super) mod recurrence;
pub(super) mod stalls;
