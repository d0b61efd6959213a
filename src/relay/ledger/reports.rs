//! The part of the delivery reports: one atomic step per record, no lock, no panic.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;

use super::ticket::Ticket;

/// Counts acknowledgements for [`super::Ledger`]. Only the thread that polls the producer writes it.
#[derive(Debug)]
pub struct Reports {
    counts: Box<[EntryCount]>,
    acked_records: AtomicU64,
    left_bytes: AtomicU64,
    wake_at: AtomicU64,
    poisoned: AtomicBool,
}

/// One entry. While it is open, acknowledgements make it negative; closing adds the number of records, so that it is
/// zero when all are acknowledged. So a record costs one contended step, not two.
#[derive(Debug, Default)]
struct EntryCount {
    missing: AtomicI64,
    committed_micros: AtomicI64,
    handed_micros: AtomicI64,
}

/// The times of a completely acknowledged transaction, in microseconds of the Unix clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Completed {
    /// When it committed.
    pub committed_micros: i64,
    /// When its last record was enqueued; 0 if unknown.
    pub handed_micros: i64,
}

/// What follows from an acknowledgement.
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
            counts: (0..capacity).map(|_| EntryCount::default()).collect(),
            acked_records: AtomicU64::new(0),
            left_bytes: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Records an acknowledgement.
    pub fn delivered(&self, ticket: Ticket) -> Delivered {
        let Some(count) = self.counts.get(ticket.index()) else {
            return Delivered::default();
        };
        // Read before the decrement: afterwards the entry may be used again.
        let times = count.times();
        let before = count.missing.fetch_sub(1, AcqRel);
        // Only one thread writes these two, so a load and a store suffice.
        self.acked_records.store(self.acked_records.load(Relaxed) + 1, Relaxed);
        let left_bytes = self.left_bytes.load(Relaxed) + ticket.bytes();
        self.left_bytes.store(left_bytes, SeqCst);
        let wake = left_bytes >= self.wake_at.load(SeqCst);
        if wake {
            self.wake_at.store(u64::MAX, Relaxed);
        }
        Delivered { completed: (before == 1).then_some(times), wake }
    }

    /// Records the time at which a record is enqueued. Called before that, by the relay thread.
    pub fn handed(&self, ticket: Ticket, now_micros: i64) {
        if let Some(count) = self.counts.get(ticket.index()) {
            count.handed_micros.store(now_micros, Relaxed);
        }
    }

    /// Records that a record failed. Its entry never settles.
    pub fn failed(&self) {
        self.poisoned.store(true, Release);
    }

    /// Says whether a record failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Acquire)
    }

    /// Gives the number of acknowledged records.
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

    pub(super) fn reset(&self, index: usize, committed_micros: i64) {
        if let Some(count) = self.counts.get(index) {
            count.missing.store(0, Relaxed);
            count.committed_micros.store(committed_micros, Relaxed);
            count.handed_micros.store(0, Relaxed);
        }
    }

    pub(super) fn close(&self, index: usize, records: i64) -> bool {
        self.counts.get(index).is_some_and(|count| count.missing.fetch_add(records, AcqRel) + records == 0)
    }

    pub(super) fn is_settled(&self, index: usize) -> bool {
        self.counts.get(index).is_some_and(|count| count.missing.load(Acquire) == 0)
    }

    pub(super) fn times(&self, index: usize) -> Option<Completed> {
        self.counts.get(index).map(EntryCount::times)
    }

    pub(super) fn committed_micros(&self, index: usize) -> i64 {
        self.counts.get(index).map_or(0, |count| count.committed_micros.load(Relaxed))
    }
}

impl EntryCount {
    fn times(&self) -> Completed {
        Completed {
            committed_micros: self.committed_micros.load(Relaxed),
            handed_micros: self.handed_micros.load(Relaxed),
        }
    }
}
