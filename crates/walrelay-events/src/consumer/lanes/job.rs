//! A record on its way through a handler.

use std::time::Instant;

/// A record on its way through a handler. It returns by `Lanes::done` or
/// `Lanes::retry`.
#[derive(Debug)]
pub(crate) struct Job<R> {
    pub(crate) record: R,
    /// How many attempts failed before.
    pub(crate) attempts: u32,
    /// How many transient failures there were since the last attempt that counts.
    pub(crate) transient_failures: u32,
    /// When the record was last started.
    pub(super) started: Option<Instant>,
    pub(super) slot: usize,
    pub(super) epoch: u64,
    /// The record's number in the prefix of its partition.
    pub(super) number: u64,
    pub(super) lane: u64,
    pub(super) bytes: u64,
}

impl<R> Job<R> {
    /// Returns a number that differs between records.
    pub(crate) const fn jitter_seed(&self) -> u64 {
        self.lane ^ self.number
    }
}
