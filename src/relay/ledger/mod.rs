//! What is on the way to Kafka, and up to where everything has arrived.
//!
//! ```text
//!   oldest                                   newest
//!   [ T1: 0 left ][ keepalive ][ T2: 3 left ][ T3: open ]
//!         `----- settle() -----'     ^ the head stops here
//! ```
//!
//! A ring of entries, one per transaction, in the order of the log. The relay thread opens and closes them; the thread of
//! the delivery reports takes one off an entry's count for each record that Kafka has acknowledged. Invariants:
//!
//! - **Nothing lost.** The head passes an entry only when it is closed and each of its records was reported as delivered.
//! - **Never back.** The confirmed position does not decrease.
//! - **Whole transactions.** A position is confirmed at the end of an entry. A keepalive is an entry without records, so it
//!   counts only after everything before it: there is no rule for it.
//! - **Poison stays.** A failed report takes nothing off; the entry never settles, and no position after it is confirmed.
//!
//! It deliberately has no clock, no memory of keys or events, and no way to take a failure back: after one, the whole
//! ledger is dropped and the log is read again from the confirmed position.

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

/// How many transactions may be on the way at once.
pub const CAPACITY: usize = 1 << 16;

/// Proof that everything up to here is in Kafka. Only [`Ledger`] can make one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confirmed(Lsn);

impl Confirmed {
    /// Gives the position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// What the relay thread knows of an entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Entry {
    /// Its end has not been received.
    #[default]
    Open,
    /// It ends here.
    Closed(Lsn),
}

/// The relay thread's side. The reports' side is [`Reports`].
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
    /// Starts at a position up to which everything is known to be delivered.
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

    /// Gives the side of the delivery reports.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        Arc::clone(&self.reports)
    }

    /// Opens an entry for a transaction that committed at `committed_micros` of the Unix clock. There must be room.
    pub fn open(&mut self, committed_micros: i64) {
        debug_assert!(self.open.is_none() && self.has_room(), "the caller asks for room and closes first");
        self.reports.reset(place(self.next), committed_micros);
        self.put(self.next, Entry::Open);
        self.next += 1;
        self.open = Some(0);
    }

    /// Enters one record of `bytes` into the open entry. Before the record is handed over: its report may come at once.
    pub fn enter(&mut self, topic: u16, bytes: usize) -> Ticket {
        let ticket = Ticket::new(place(self.next.saturating_sub(1)), topic, bytes);
        if let Some(records) = &mut self.open {
            *records += 1;
        }
        self.entered_records += 1;
        self.entered_bytes += ticket.bytes();
        ticket
    }

    /// Takes back a record that was entered but not handed over.
    pub fn withdraw(&mut self, ticket: Ticket) {
        if let Some(records) = &mut self.open {
            *records -= 1;
        }
        self.entered_records -= 1;
        self.entered_bytes -= ticket.bytes();
    }

    /// Closes the open entry at the end of its transaction. If all its records have already arrived, tells of it.
    pub fn close(&mut self, end: Lsn) -> Option<Completed> {
        let records = self.open.take().unwrap_or_default();
        let last = self.next.saturating_sub(1);
        self.put(last, Entry::Closed(end));
        let complete = self.reports.close(place(last), records);
        if complete && records > 0 { self.reports.times(place(last)) } else { None }
    }

    /// Closes the open entry, if there is one, without its end: the connection broke inside the transaction, which will
    /// come again whole. Its records are waited for, but move no position.
    pub fn abandon(&mut self) {
        if self.open.is_some() {
            self.close(Lsn::ZERO);
        }
    }

    /// Notes that PostgreSQL has nothing for us before `end`: a transaction without records. Nothing while one is open.
    pub fn idle(&mut self, end: Lsn) {
        if self.open.is_some() {
            return;
        }
        let last = self.next.saturating_sub(1);
        if self.next > self.oldest && self.reports.is_settled(place(last)) {
            // Nothing of the newest entry is on the way any more: it may as well end here.
            self.put(last, Entry::Closed(end.max(self.end(last))));
        } else if self.has_room() {
            self.open(0);
            self.close(end);
        }
    }

    /// Moves the head over everything that has arrived.
    pub fn settle(&mut self) -> Confirmed {
        while self.oldest < self.next
            && let Entry::Closed(end) = self.at(self.oldest)
            && self.reports.is_settled(place(self.oldest))
        {
            self.confirmed = self.confirmed.max(end);
            self.oldest += 1;
        }
        Confirmed(self.confirmed)
    }

    /// Says whether another entry fits.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.next - self.oldest < CAPACITY as u64
    }

    /// Says whether nothing is on the way and no transaction is open. Up to date after [`Ledger::settle`].
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oldest == self.next
    }

    /// Says whether a record failed: nothing behind it will ever be confirmed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.reports.is_poisoned()
    }

    /// Counts the bytes on the way.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entered_bytes.saturating_sub(self.reports.left_bytes())
    }

    /// Counts the records on the way.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.entered_records.saturating_sub(self.reports.acked_records())
    }

    /// Gives the commit time, in microseconds of the Unix clock, of the oldest transaction on the way.
    #[must_use]
    pub fn oldest_committed_micros(&self) -> Option<i64> {
        (self.oldest < self.next && self.records() > 0)
            .then(|| self.reports.committed_micros(place(self.oldest)))
            .filter(|micros| *micros != 0)
    }

    /// Asks to be woken when half of what is on the way has arrived. Says whether that is already so.
    pub fn await_half(&self) -> bool {
        let on_the_way = self.bytes();
        self.reports.wake_at(self.entered_bytes - on_the_way / 2);
        self.bytes() <= on_the_way / 2
    }

    /// Asks to be woken when the next record has arrived.
    pub fn await_any(&self) {
        self.reports.wake_at(self.reports.left_bytes() + 1);
    }

    /// Asks to be woken when everything on the way has arrived. Says whether that is already so.
    pub fn await_all(&self) -> bool {
        self.reports.wake_at(self.entered_bytes);
        self.bytes() == 0
    }

    fn at(&self, number: u64) -> Entry {
        self.entries.get(place(number)).copied().unwrap_or_default()
    }

    fn end(&self, number: u64) -> Lsn {
        match self.at(number) {
            Entry::Closed(end) => end,
            Entry::Open => Lsn::ZERO,
        }
    }

    fn put(&mut self, number: u64, entry: Entry) {
        if let Some(slot) = self.entries.get_mut(place(number)) {
            *slot = entry;
        }
    }
}

/// Where in the ring an entry stands.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below CAPACITY")]
const fn place(number: u64) -> usize {
    (number % CAPACITY as u64) as usize
}
