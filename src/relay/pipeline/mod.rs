//! What happens to the log: frames in, records out, positions earned.
//!
//! `run` walks every complete frame of a buffer and hands each row to the sink as borrowed slices, under a ticket of the
//! ledger. No channel, task or allocation per event stands between the socket and the producer. Invariants:
//!
//! - **Nothing lost.** A row is entered into the ledger before it is handed over; what is not handed over is offered again.
//! - **Whole transactions.** Rows go out as they come, since a transaction that begins here has already committed; its
//!   position counts at its end.
//! - **Bounded.** Beyond the budget no frame is taken, whatever the size of a transaction. One record may always be on the
//!   way, or a record larger than the budget would never leave.
//! - **No filter by position,** with one exception: a transaction that this same pipeline has already handed over whole.
//!
//! It has no clock, no socket and no producer: `Sink` is the seam, a `Vec` implements it in tests.

mod error;
mod sink;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::lsn::Lsn;
use crate::relay::decode::frame;
use crate::relay::decode::frame::Frame;
use crate::relay::decode::frame::Next;
use crate::relay::decode::pgoutput;
use crate::relay::decode::pgoutput::Message;
use crate::relay::decode::pgoutput::Relation;
use crate::relay::decode::pgoutput::Tuple;
use crate::relay::decode::transaction::Begun;
use crate::relay::decode::transaction::Place;
use crate::relay::decode::transaction::Violation;
use crate::relay::ledger::Confirmed;
use crate::relay::ledger::Ledger;
use crate::relay::ledger::Reports;
use crate::relay::record::route;
use crate::relay::record::route::Reason;
use crate::relay::record::route::Route;
use crate::relay::record::route::Scratch;
use crate::relay::record::row;
use crate::relay::record::row::Plan;

pub use error::Error;
pub use sink::Refused;
pub use sink::Sink;
pub use tally::Clock;
pub use tally::Tally;

/// What a record costs besides its bytes, in the producer's queues and allocator.
pub(super) const RECORD_OVERHEAD: usize = 448;

/// What is read, and how much may be on the way.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The budget for records on the way.
    pub in_flight_bytes: u64,
    /// The largest frame.
    pub frame_bytes: usize,
}

/// How far `run` came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ran<'b> {
    /// How many bytes of the buffer are done with.
    pub used: usize,
    /// Why it stopped.
    pub stopped: Stopped<'b>,
}

/// Why `run` stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped<'b> {
    /// No whole frame is left; the next one has this many bytes, as far as is known.
    Drained(usize),
    /// The budget or the ledger is full. The rest is offered again when something has been delivered.
    Full,
    /// So is the sink.
    SinkFull,
    /// The sink is broken.
    SinkBroken,
    /// A stop was asked for, and the last transaction is whole.
    AtBorder,
    /// The server ends the stream with an error.
    ServerError(&'b [u8]),
    /// The server ends the stream.
    Ended,
}

/// A table of the stream.
#[derive(Debug)]
enum Shape {
    /// An outbox: the number of its route, and how to walk its rows.
    Outbox(usize, Plan),
    /// Some other table, such as a partition whose rows come under its root.
    Foreign(String),
}

/// The pure half of the relay.
#[derive(Debug)]
pub struct Pipeline {
    routes: Vec<Route>,
    limits: Limits,
    shapes: HashMap<u32, Shape>,
    /// The built-in types that domains rest on: columns carry a domain's own id.
    domains: HashMap<u32, u32>,
    place: Place,
    /// The commit end of the last transaction handed over whole.
    handed_over: Lsn,
    /// The commit end received last on this connection.
    last_end: Lsn,
    /// How many rows of the open transaction have been taken.
    rows: u64,
    ledger: Ledger,
    scratch: Scratch,
    server_end: Lsn,
    reply_requested: bool,
    is_stopping: bool,
    cautious_until: Option<Lsn>,
    /// An earlier pipeline has handed over whatever ends before.
    handed_before: Lsn,
    clock: Clock,
    tally: Tally,
}

impl Pipeline {
    /// Starts at a position up to which everything is known to be delivered.
    #[must_use]
    pub fn new(routes: Vec<Route>, limits: Limits, start: Lsn) -> Self {
        Self {
            routes,
            limits,
            shapes: HashMap::new(),
            domains: HashMap::new(),
            place: Place::Between,
            handed_over: Lsn::ZERO,
            last_end: Lsn::ZERO,
            rows: 0,
            ledger: Ledger::new(start),
            scratch: Scratch::default(),
            server_end: start,
            reply_requested: false,
            is_stopping: false,
            cautious_until: None,
            handed_before: Lsn::ZERO,
            clock: Clock::default(),
            tally: Tally::default(),
        }
    }

    /// Walks every complete frame of `buffer`.
    pub fn run<'b>(&mut self, buffer: &'b [u8], sink: &mut impl Sink) -> Result<Ran<'b>, Error> {
        let mut used = 0;
        loop {
            if self.is_stopping && self.place == Place::Between {
                return Ok(Ran { used, stopped: Stopped::AtBorder });
            }
            let rest = buffer.get(used..).unwrap_or_default();
            let (frame, length) = match frame::next(rest, self.limits.frame_bytes) {
                Ok(Next::Whole(frame, length)) => (frame, length),
                Ok(Next::Partial(needs)) => return Ok(Ran { used, stopped: Stopped::Drained(needs) }),
                Err(error) => return Err(self.unreadable(error)),
            };
            let stopped = match frame {
                Frame::Data { sent_at, message } => {
                    self.clock.server_micros = route::unix_micros(sent_at);
                    self.message(message, sink)?
                }
                Frame::Keepalive { wal_end, sent_at, reply_requested } => {
                    self.clock.server_micros = route::unix_micros(sent_at);
                    self.clock.lag_micros = 0;
                    self.tally.keepalives += 1;
                    self.server_end = self.server_end.max(wal_end);
                    self.reply_requested |= reply_requested;
                    self.ledger.idle(wal_end);
                    None
                }
                Frame::Aside(_) => {
                    self.tally.asides += 1;
                    None
                }
                Frame::Error(fields) => Some(Stopped::ServerError(fields)),
                Frame::End => Some(Stopped::Ended),
            };
            if let Some(stopped) = stopped {
                return Ok(Ran { used, stopped });
            }
            used += length;
            self.tally.frames += 1;
        }
    }

    /// A new connection of the same server follows, from the confirmed position: what was half received comes again.
    pub fn reconnect(&mut self) {
        self.shapes.clear();
        self.domains.clear();
        self.place = Place::Between;
        self.last_end = Lsn::ZERO;
        self.reply_requested = false;
        self.ledger.abandon();
    }

    /// Takes no transaction any more; the one that is open is taken to its end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Keeps at most one record on the way until the confirmed position lies behind this one, so that a failure names its
    /// record.
    pub fn be_cautious(&mut self, until: Lsn) {
        self.cautious_until = Some(until);
    }

    /// Counts events up to this position as handed over before: whatever became of them, they come again.
    pub const fn follow(&mut self, handed_before: Lsn) {
        self.handed_before = handed_before;
    }

    /// Takes note of what has been delivered.
    pub fn confirmation(&mut self) -> Confirmed {
        let confirmed = self.ledger.settle();
        if self.cautious_until.is_some_and(|until| confirmed.lsn() >= until) {
            self.cautious_until = None;
        }
        confirmed
    }

    /// Says whether at most one record is on the way.
    #[must_use]
    pub const fn is_cautious(&self) -> bool {
        self.cautious_until.is_some()
    }

    /// Says once whether the server has asked for a status update.
    pub fn take_reply_request(&mut self) -> bool {
        std::mem::take(&mut self.reply_requested)
    }

    /// Says whether everything taken has been delivered, and no transaction is open.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.place == Place::Between && self.ledger.is_empty()
    }

    /// Says whether a transaction is open.
    #[must_use]
    pub fn is_within_transaction(&self) -> bool {
        self.place != Place::Between
    }

    /// Says whether a stop has come to the end of the last transaction.
    #[must_use]
    pub fn is_at_border(&self) -> bool {
        self.is_stopping && self.place == Place::Between
    }

    /// Gives what is on the way.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Gives the side of the delivery reports.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        self.ledger.reports()
    }

    /// Gives what has been seen so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Gives the last position that the server has told of.
    #[must_use]
    pub const fn server_end(&self) -> Lsn {
        self.server_end
    }

    /// Gives the position up to which the log has been received on this connection.
    #[must_use]
    pub fn received_end(&self) -> Lsn {
        if self.place == Place::Between { self.server_end } else { self.last_end.max(self.handed_over) }
    }

    /// Gives the end of the last transaction handed over whole.
    #[must_use]
    pub const fn handed_over(&self) -> Lsn {
        self.handed_over
    }

    /// Gives a position that lies behind everything handed over so far, the open transaction included.
    #[must_use]
    pub fn frontier(&self) -> Lsn {
        self.place.within().map_or(self.handed_over, |begun| begun.commit_lsn.max(self.handed_over))
    }

    /// Gives where the stream stands: the commit of the open transaction and how many of its rows have been taken, or the end
    /// of the last transaction handed over.
    #[must_use]
    pub fn stands_at(&self) -> (Lsn, Option<u64>) {
        self.place.within().map_or((self.handed_over, None), |begun| (begun.commit_lsn, Some(self.rows)))
    }

    /// Gives what the server's clock said last.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    fn message<'b>(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<Option<Stopped<'b>>, Error> {
        match pgoutput::decode(bytes)? {
            Message::Insert { relation, row } => return self.insert(relation, row, sink),
            Message::Begin { final_lsn, committed_at, xid } => {
                return self.begin(Begun { commit_lsn: final_lsn, committed_at, xid });
            }
            Message::Commit { commit_lsn, end_lsn, .. } => self.commit(commit_lsn, end_lsn, sink)?,
            Message::Relation(relation) => self.relation(relation)?,
            Message::Type { id, schema: "", name } => {
                self.tally.asides += 1;
                self.domains.extend(row::type_id(name).map(|type_id| (id, type_id)));
            }
            Message::Update { .. } | Message::Delete { .. } | Message::Truncate => self.tally.unexpected += 1,
            Message::Origin | Message::Type { .. } | Message::Logical => self.tally.asides += 1,
        }
        Ok(None)
    }

    fn begin<'b>(&mut self, begun: Begun) -> Result<Option<Stopped<'b>>, Error> {
        // Its commit record starts before the end of one that was handed over, so it ends no later than that one.
        if begun.commit_lsn < self.handed_over {
            self.place.skip(begun)?;
            self.rows = 0;
            return Ok(None);
        }
        if !self.ledger.has_room() {
            return Ok(Some(Stopped::Full));
        }
        self.place.enter(begun)?;
        self.rows = 0;
        let committed = route::unix_micros(begun.committed_at);
        self.clock.committed_micros = committed;
        self.clock.lag_micros = self.clock.server_micros.saturating_sub(committed).max(0);
        self.ledger.open(committed);
        Ok(None)
    }

    fn commit(&mut self, commit_lsn: Lsn, end: Lsn, sink: &mut impl Sink) -> Result<(), Error> {
        let left = self.place.leave(commit_lsn, end)?;
        if end <= self.last_end {
            return Err(Violation::BackwardCommit { earlier: self.last_end, found: end }.into());
        }
        self.last_end = end;
        self.server_end = self.server_end.max(end);
        if matches!(left, Place::Skipping(_)) {
            self.tally.skipped_transactions += 1;
            return Ok(());
        }
        self.tally.transactions += 1;
        self.handed_over = end;
        if let Some(completed) = self.ledger.close(end) {
            sink.completed(completed);
        }
        Ok(())
    }

    fn relation(&mut self, mut relation: Relation<'_>) -> Result<(), Error> {
        for column in &mut relation.columns {
            column.type_id = self.domains.get(&column.type_id).copied().unwrap_or(column.type_id);
        }
        let found = self.routes.iter().enumerate().find(|(_, route)| route.is_for(relation.schema, relation.name));
        let misfit = |mismatch| Error::Mismatch { at: self.stands_at().0, mismatch };
        let shape = match found {
            Some((number, route)) => {
                let plan = Plan::new(&relation, route.names()).map_err(misfit)?;
                if let Some(Shape::Outbox(_, earlier)) = self.shapes.get(&relation.id) {
                    plan.insist_on(earlier, &relation, route.names()).map_err(misfit)?;
                }
                Shape::Outbox(number, plan)
            }
            None => Shape::Foreign(format!("{}.{}", relation.schema, relation.name)),
        };
        self.shapes.insert(relation.id, shape);
        Ok(())
    }

    fn insert<'b>(
        &mut self,
        relation: u32,
        tuple: Tuple<'_>,
        sink: &mut impl Sink,
    ) -> Result<Option<Stopped<'b>>, Error> {
        let begun = self.place.within()?;
        let (route, plan) = match self.shapes.get(&relation) {
            Some(Shape::Outbox(number, plan)) => (self.routes.get(*number), plan),
            Some(Shape::Foreign(table)) => {
                return Err(Error::UnknownTable { at: begun.commit_lsn, table: table.clone() });
            }
            None => return Err(Violation::UnknownRelation { relation }.into()),
        };
        let Some(route) = route else { return Err(Violation::UnknownRelation { relation }.into()) };
        if matches!(self.place, Place::Skipping(_)) {
            return Ok(None);
        }
        let row = plan.read(tuple)?;
        let poison = |reason| {
            let (schema, table) = route.table();
            let table = format!("{schema}.{table}");
            Error::Poison { table, event_id: route::event_id(&row), at: begun.commit_lsn, reason }
        };
        let record = route.record(&row, begun.committed_at, &mut self.scratch).map_err(poison)?;
        let cost = record.size() + RECORD_OVERHEAD;
        let on_the_way = self.ledger.bytes();
        let budget = if self.cautious_until.is_some() { 0 } else { self.limits.in_flight_bytes };
        if on_the_way > 0 && on_the_way + cost as u64 > budget {
            return Ok(Some(Stopped::Full));
        }
        let ticket = self.ledger.enter(sink.topic_index(record.topic), cost);
        match sink.accept(&record, ticket) {
            Ok(()) => {
                self.tally.events += 1;
                self.rows += 1;
                self.tally.replayed += u64::from(begun.commit_lsn < self.handed_before);
                if let Some(made) = record.timestamp_millis.filter(|_| route.tells_when_rows_were_made()) {
                    // Both by the server's clock.
                    let age = self.clock.server_micros / 1_000 - made;
                    sink.aged(Duration::from_millis(u64::try_from(age).unwrap_or_default()));
                }
                Ok(None)
            }
            Err(refused) => {
                self.ledger.withdraw(ticket);
                match refused {
                    Refused::Full => Ok(Some(Stopped::SinkFull)),
                    // Asked anew for this one record, the brokers still say so.
                    Refused::NoPartition(number) if self.cautious_until.is_some() => {
                        Err(poison(record.no_partition(number)))
                    }
                    Refused::NoPartition(_) | Refused::Broken => Ok(Some(Stopped::SinkBroken)),
                    Refused::TooLarge { size, limit } => Err(poison(Reason::TooLarge { size, limit })),
                }
            }
        }
    }

    fn unreadable(&self, error: frame::Error) -> Error {
        match error {
            frame::Error::Malformed(malformed) => Error::Malformed(malformed),
            frame::Error::TooLarge { length, limit } => {
                let at = self.place.within().map_or(Lsn::ZERO, |begun| begun.commit_lsn);
                Error::RowTooLarge { length, limit, at }
            }
        }
    }
}
