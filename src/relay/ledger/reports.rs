//! The side of the delivery reports: one atomic step per record, no lock, nothing that can panic.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;

use super::Ticket;

/// Counts deliveries for [`super::Ledger`]. Written by one thread, the one that polls the producer.
#[derive(Debug)]
pub struct Reports {
    tallies: Box<[Tally]>,
    acked_records: AtomicU64,
    left_bytes: AtomicU64,
    wake_at: AtomicU64,
    poisoned: AtomicBool,
}

/// One entry. While it is open, deliveries take it below zero; closing adds the number of records, so that it comes to
/// zero exactly when all have arrived. That way a record costs one contended step, not two.
#[derive(Debug, Default)]
struct Tally {
    missing: AtomicI64,
    committed_micros: AtomicI64,
    handed_micros: AtomicI64,
}

/// A transaction of which everything has arrived, in microseconds of the Unix clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Completed {
    /// When it committed.
    pub committed_micros: i64,
    /// When its last record was handed to the producer; 0 if nobody said so.
    pub handed_micros: i64,
}

/// What follows from a delivery.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delivered {
    /// The transaction is complete.
    pub completed: Option<Completed>,
    /// The relay thread waits for this.
    pub wake: bool,
}

impl Reports {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            tallies: (0..capacity).map(|_| Tally::default()).collect(),
            acked_records: AtomicU64::new(0),
            left_bytes: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Notes that Kafka has the record.
    pub fn delivered(&self, ticket: Ticket) -> Delivered {
        let Some(tally) = self.tallies.get(ticket.place()) else {
            return Delivered::default();
        };
        // Read before the count goes down: afterwards the place may be used again.
        let times = tally.times();
        let before = tally.missing.fetch_sub(1, AcqRel);
        // One thread writes these two, so a load and a store do.
        self.acked_records.store(self.acked_records.load(Relaxed) + 1, Relaxed);
        let left_bytes = self.left_bytes.load(Relaxed) + ticket.bytes();
        self.left_bytes.store(left_bytes, SeqCst);
        let wake = left_bytes >= self.wake_at.load(SeqCst);
        if wake {
            self.wake_at.store(u64::MAX, Relaxed);
        }
        Delivered { completed: (before == 1).then_some(times), wake }
    }

    /// Notes when a record is handed to the producer. Called before it is, by the one thread that hands records over.
    pub fn handed(&self, ticket: Ticket, now_micros: i64) {
        if let Some(tally) = self.tallies.get(ticket.place()) {
            tally.handed_micros.store(now_micros, Relaxed);
        }
    }

    /// Notes that the record will not reach Kafka. Its entry never settles.
    pub fn failed(&self) {
        self.poisoned.store(true, Release);
    }

    /// Says whether a record failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Acquire)
    }

    /// Counts the records that have arrived.
    #[must_use]
    pub fn acked_records(&self) -> u64 {
        self.acked_records.load(Relaxed)
    }

    pub(super) fn left_bytes(&self) -> u64 {
        self.left_bytes.load(SeqCst)
    }

    pub(super) fn wake_at(&self, left_bytes: u64) {
        self.wake_at.store(left_bytes, SeqCst);
    }

    pub(super) fn reset(&self, place: usize, committed_micros: i64) {
        if let Some(tally) = self.tallies.get(place) {
            tally.missing.store(0, Relaxed);
            tally.committed_micros.store(committed_micros, Relaxed);
            tally.handed_micros.store(0, Relaxed);
        }
    }

    pub(super) fn close(&self, place: usize, records: i64) -> bool {
        self.tallies.get(place).is_some_and(|tally| tally.missing.fetch_add(records, AcqRel) + records == 0)
    }

    pub(super) fn is_settled(&self, place: usize) -> bool {
        self.tallies.get(place).is_some_and(|tally| tally.missing.load(Acquire) == 0)
    }

    pub(super) fn times(&self, place: usize) -> Option<Completed> {
        self.tallies.get(place).map(Tally::times)
    }

    pub(super) fn committed_micros(&self, place: usize) -> i64 {
        self.tallies.get(place).map_or(0, |tally| tally.committed_micros.load(Relaxed))
    }
}

impl Tally {
    fn times(&self) -> Completed {
        Completed {
            committed_micros: self.committed_micros.load(Relaxed),
            handed_micros: self.handed_micros.load(Relaxed),
        }
    }
}
