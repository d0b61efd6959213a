//! The transactions in flight, and the position up to which every record is acknowledged.
//!
//! ```text
//!   oldest                                   newest
//!   [ T1: 0 unacked ][ keepalive ][ T2: 3 unacked ][ T3: open ]
//!         `----- settle() --------'     ^ the head stops here
//! ```
//!
//! A ring of entries, one per transaction, in the order of the WAL. The relay thread opens and closes them; the thread
//! of the delivery reports decrements an entry's count for each record that Kafka has acknowledged. Invariants:
//!
//! - **Nothing lost.** The head passes an entry only when it is closed and each of its records is acknowledged.
//! - **Never back.** The confirmed position does not decrease.
//! - **Whole transactions.** A position is confirmed at the end of an entry. A keepalive is an entry without records,
//!   so it counts only after everything before it: it needs no rule of its own.
//! - **Failures stay.** A failed report decrements nothing; the entry never settles, and no later position is
//!   confirmed.
//!
//! It has no clock, no memory of keys or events, and no way to undo a failure: after one, the whole ledger is dropped
//! and the WAL is read again from the confirmed position.

mod reports;
#[cfg(test)]
mod tests;
mod ticket;

use std::sync::Arc;

use crate::lsn::Lsn;

pub use reports::Completed;
pub use reports::Delivered;
pub use reports::Reports;
pub use ticket::Ticket;

/// The maximum number of transactions in flight.
pub const CAPACITY: usize = 1 << 16;
const _: () = assert!(CAPACITY <= 1 << ticket::INDEX_BITS, "every index of the ring fits into a ticket");

/// A position up to which every record is acknowledged. Only [`Ledger`] can create one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confirmed(Lsn);

impl Confirmed {
    /// Gives the position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// The relay thread's part of an entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Entry {
    /// Its end was not received yet.
    #[default]
    Open,
    /// It ends here.
    Closed(Lsn),
}

/// The relay thread's part. The other one is [`Reports`].
#[derive(Debug)]
pub struct Ledger {
    reports: Arc<Reports>,
    entries: Box<[Entry]>,
    /// The first entry that has not settled; `oldest <= next <= oldest + CAPACITY`.
    oldest: u64,
    /// The entry that is opened next.
    next: u64,
    /// Records entered into the open entry, if one is open.
    open: Option<i64>,
    entered_records: u64,
    entered_bytes: u64,
    confirmed: Lsn,
}

impl Ledger {
    /// Starts at a position up to which everything is delivered.
    #[must_use]
    pub fn new(start: Lsn) -> Self {
        Self {
            reports: Arc::new(Reports::new(CAPACITY)),
            entries: vec![Entry::Open; CAPACITY].into(),
            oldest: 0,
            next: 0,
            open: None,
            entered_records: 0,
            entered_bytes: 0,
            confirmed: start,
        }
    }

    /// Gives the part of the delivery reports.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        Arc::clone(&self.reports)
    }

    /// Opens an entry for a transaction that committed at `committed_micros` of the Unix clock. Needs room.
    pub fn open(&mut self, committed_micros: i64) {
        debug_assert!(
            self.open.is_none() && self.has_room(),
            "the caller checks for room and closes the previous entry"
        );
        self.reports.reset(index(self.next), committed_micros);
        self.put(self.next, Entry::Open);
        self.next += 1;
        self.open = Some(0);
    }

    /// Enters one record of `bytes` into the open entry, before it is enqueued: its report may come at once.
    pub fn enter(&mut self, topic: u16, bytes: usize) -> Ticket {
        let ticket = Ticket::new(index(self.next.saturating_sub(1)), topic, bytes);
        if let Some(records) = &mut self.open {
            *records += 1;
        }
        self.entered_records += 1;
        self.entered_bytes += ticket.bytes();
        ticket
    }

    /// Removes a record that was entered but not enqueued.
    pub fn withdraw(&mut self, ticket: Ticket) {
        if let Some(records) = &mut self.open {
            *records -= 1;
        }
        self.entered_records -= 1;
        self.entered_bytes -= ticket.bytes();
    }

    /// Closes the open entry at the end of its transaction. Gives its times if every record is already acknowledged.
    pub fn close(&mut self, end: Lsn) -> Option<Completed> {
        let records = self.open.take().unwrap_or_default();
        let last = self.next.saturating_sub(1);
        self.put(last, Entry::Closed(end));
        let complete = self.reports.close(index(last), records);
        if complete && records > 0 { self.reports.times(index(last)) } else { None }
    }

    /// Closes the open entry, if there is one, without its end: the connection was lost within the transaction, which
    /// will be sent again completely. Its records must be acknowledged, but advance no position.
    pub fn abandon(&mut self) {
        if self.open.is_some() {
            self.close(Lsn::ZERO);
        }
    }

    /// Records a keepalive, as a transaction without records. No effect while a transaction is open.
    pub fn idle(&mut self, end: Lsn) {
        if self.open.is_some() {
            return;
        }
        let last = self.next.saturating_sub(1);
        if self.next > self.oldest && self.reports.is_settled(index(last)) {
            // Every record of the newest entry is acknowledged: it can end here.
            self.put(last, Entry::Closed(end.max(self.end(last))));
        } else if self.has_room() {
            self.open(0);
            self.close(end);
        }
    }

    /// Advances the head over every acknowledged entry.
    pub fn settle(&mut self) -> Confirmed {
        while self.oldest < self.next
            && let Entry::Closed(end) = self.at(self.oldest)
            && self.reports.is_settled(index(self.oldest))
        {
            self.confirmed = self.confirmed.max(end);
            self.oldest += 1;
        }
        Confirmed(self.confirmed)
    }

    /// Says whether there is room for another entry.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.next - self.oldest < CAPACITY as u64
    }

    /// Says whether nothing is in flight and no transaction is open. Current after [`Ledger::settle`].
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oldest == self.next
    }

    /// Says whether a record failed: no later position will be confirmed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.reports.is_poisoned()
    }

    /// Gives the bytes in flight.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entered_bytes.saturating_sub(self.reports.left_bytes())
    }

    /// Gives the records in flight.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.entered_records.saturating_sub(self.reports.acked_records())
    }

    /// Gives the commit time, in microseconds of the Unix clock, of the oldest transaction in flight.
    #[must_use]
    pub fn oldest_committed_micros(&self) -> Option<i64> {
        (self.oldest < self.next && self.records() > 0)
            .then(|| self.reports.committed_micros(index(self.oldest)))
            .filter(|micros| *micros != 0)
    }

    /// Requests a wake-up when half of the records in flight are acknowledged. Says whether they are already.
    pub fn await_half(&self) -> bool {
        let on_the_way = self.bytes();
        self.reports.wake_at(self.entered_bytes - on_the_way / 2);
        self.bytes() <= on_the_way / 2
    }

    /// Requests a wake-up at the next acknowledgement.
    pub fn await_any(&self) {
        self.reports.wake_at(self.reports.left_bytes() + 1);
    }

    /// Requests a wake-up when every record is acknowledged. Says whether it is already.
    pub fn await_all(&self) -> bool {
        self.reports.wake_at(self.entered_bytes);
        self.bytes() == 0
    }

    fn at(&self, number: u64) -> Entry {
        self.entries.get(index(number)).copied().unwrap_or_default()
    }

    fn end(&self, number: u64) -> Lsn {
        match self.at(number) {
            Entry::Closed(end) => end,
            Entry::Open => Lsn::ZERO,
        }
    }

    fn put(&mut self, number: u64, entry: Entry) {
        if let Some(slot) = self.entries.get_mut(index(number)) {
            *slot = entry;
        }
    }
}

/// The index of an entry in the ring.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below CAPACITY")]
const fn index(number: u64) -> usize {
    (number % CAPACITY as u64) as usize
}
