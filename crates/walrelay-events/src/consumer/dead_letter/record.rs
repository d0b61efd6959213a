//! A record in a dead-letter topic.

use crate::consumer::dead_letter::provenance::Provenance;
use crate::consumer::record::Record;

/// A record in a dead-letter topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record in the dead-letter topic.
    pub record: Record,
    /// Where it came from and why, if its headers say so.
    pub provenance: Option<Provenance>,
    /// Whether it was redriven.
    pub is_redriven: bool,
    /// Whether an earlier dead-letter record that was not redriven is about the same event: the consumer ended before
    /// it could commit, or several groups rejected the event.
    pub is_repeated: bool,
}

impl DeadLetter {
    /// Reads the provenance of a record. It counts as neither redriven nor repeated.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { provenance: Provenance::read(&record), record, is_redriven: false, is_repeated: false }
    }
}
