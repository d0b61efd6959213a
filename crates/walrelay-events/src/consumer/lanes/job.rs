//! A record on its way through a handler, and the run that it is part of.

use std::time::Duration;
use std::time::Instant;

use crate::consumer::retry::TransientRun;

/// A record on its way through a handler.
#[derive(Debug)]
pub(crate) struct Job<R> {
    pub(crate) record: R,
    /// How many attempts failed before.
    pub(crate) attempts: u32,
    /// The transient failures since the last attempt that counts.
    pub(crate) transient: TransientRun,
    /// How long the handler took. Set by the one who ran it.
    pub(crate) took: Duration,
    /// The record is a run of its own, because a batch with it has failed.
    pub(super) is_alone: bool,
    /// The record's number in the prefix of its partition.
    pub(super) number: u64,
    /// The hash of its key.
    pub(super) key: u64,
    pub(super) bytes: u64,
}

impl<R> Job<R> {
    /// Returns a number that differs between records.
    pub(crate) const fn jitter_seed(&self) -> u64 {
        self.key ^ self.number
    }

    /// Makes the record a run of its own.
    pub(crate) fn alone(self) -> Self {
        Self { is_alone: true, ..self }
    }

    /// Returns whether the record is a run of its own.
    pub(super) const fn is_alone(&self) -> bool {
        self.is_alone || self.attempts > 0 || self.transient.failures() > 0
    }
}

/// Consecutive records of one lane that are handed over together. They are handled one after another, or as a batch.
#[derive(Debug)]
pub(crate) struct Run<R> {
    pub(crate) ticket: Ticket,
    pub(crate) jobs: Vec<Job<R>>,
}

/// The one record that remains of a run. It keeps its lane busy.
#[derive(Debug)]
pub(crate) struct LastJob<R> {
    pub(crate) ticket: Ticket,
    pub(crate) job: Job<R>,
}

/// The lane that a run keeps busy. `Lanes::end`, `Lanes::retry` or `Lanes::end_late` takes it back.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) slot: usize,
    pub(super) epoch: u64,
    /// The place of the lane in its partition's buffer.
    pub(super) lane: usize,
    /// The hash of the lane's key.
    pub(super) key: u64,
    /// When the run was started.
    pub(super) started: Instant,
}

impl Ticket {
    /// Returns a small number of the partition, and the number of its assignment.
    pub(crate) const fn assignment(&self) -> (usize, u64) {
        (self.slot, self.epoch)
    }
}
