//! Processes the WAL: frames in, records out, confirmed positions.
//!
//! `run` processes every complete frame of a buffer and passes each row to the sink as borrowed slices, with a ticket
//! of the ledger. There is no channel, task or allocation per event between the socket and the producer. Invariants:
//!
//! - **Nothing lost.** A row is entered into the ledger before it is enqueued; a record that the sink rejects is
//!   offered again.
//! - **Whole transactions.** Rows are published as they come, since a transaction that begins here has already
//!   committed; its position is confirmed at its end.
//! - **Bounded.** At the in-flight limit no frame is processed, whatever the size of a transaction. One record may
//!   always be in flight, or a record above the limit would never be sent.
//! - **No filter by position,** with one exception: a transaction that this same pipeline has already enqueued
//!   completely.
//!
//! It has no clock, no socket and no producer: the producer implements `Sink`, and so does a `Vec` in tests.

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
use crate::relay::decode::frame::Parsed;
use crate::relay::decode::pgoutput;
use crate::relay::decode::pgoutput::Message;
use crate::relay::decode::pgoutput::Relation;
use crate::relay::decode::pgoutput::Tuple;
use crate::relay::decode::transaction::Begun;
use crate::relay::decode::transaction::TransactionState;
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

/// The overhead of a record in librdkafka's queues and allocator.
pub(super) const RECORD_OVERHEAD: usize = 448;

/// The limits of a pipeline.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The limit of the records in flight.
    pub in_flight_bytes: u64,
    /// The largest frame.
    pub frame_bytes: usize,
}

/// The result of `run`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ran<'b> {
    /// The number of bytes that were processed.
    pub used: usize,
    /// Why it stopped.
    pub stopped: Stopped<'b>,
}

/// Why `run` stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped<'b> {
    /// No complete frame remains; the next one has this many bytes, as far as is known.
    Drained(usize),
    /// The in-flight limit or the ledger's capacity is reached. The rest is offered again after an acknowledgement.
    Full,
    /// The sink is full.
    SinkFull,
    /// The sink is broken.
    SinkBroken,
    /// The pipeline is stopping, and the last transaction is complete.
    AtBorder,
    /// The server ended the stream with an error.
    ServerError(&'b [u8]),
    /// The server ended the stream.
    Ended,
}

/// A table of the stream.
#[derive(Debug)]
enum Shape {
    /// An outbox: the index of its route, the plan of its rows, and the commit of the transaction that described it.
    Outbox(usize, Plan, Lsn),
    /// Another table, such as a partition whose rows come under its root.
    Foreign(String),
}

/// The pure part of the relay.
#[derive(Debug)]
pub struct Pipeline {
    routes: Vec<Route>,
    limits: Limits,
    shapes: HashMap<u32, Shape>,
    /// The built-in base types of domains: columns have the domain's OID.
    domains: HashMap<u32, u32>,
    state: TransactionState,
    /// The commit end of the last transaction that was enqueued completely.
    handed_over: Lsn,
    /// The last commit end received on this connection.
    last_end: Lsn,
    /// The number of processed rows of the open transaction.
    rows: u64,
    ledger: Ledger,
    scratch: Scratch,
    server_end: Lsn,
    reply_requested: bool,
    is_stopping: bool,
    cautious_until: Option<Lsn>,
    /// An earlier pipeline has enqueued every transaction that ends before.
    handed_before: Lsn,
    clock: Clock,
    tally: Tally,
}

impl Pipeline {
    /// Starts at a position up to which everything is delivered.
    #[must_use]
    pub fn new(routes: Vec<Route>, limits: Limits, start: Lsn) -> Self {
        Self {
            routes,
            limits,
            shapes: HashMap::new(),
            domains: HashMap::new(),
            state: TransactionState::Between,
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

    /// Processes every complete frame of `buffer`.
    pub fn run<'b>(&mut self, buffer: &'b [u8], sink: &mut impl Sink) -> Result<Ran<'b>, Error> {
        let mut used = 0;
        loop {
            if self.is_stopping && self.state == TransactionState::Between {
                return Ok(Ran { used, stopped: Stopped::AtBorder });
            }
            let rest = buffer.get(used..).unwrap_or_default();
            let (frame, length) = match frame::next(rest, self.limits.frame_bytes) {
                Ok(Parsed::Whole(frame, length)) => (frame, length),
                Ok(Parsed::Partial(needs)) => return Ok(Ran { used, stopped: Stopped::Drained(needs) }),
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
                Frame::Ignored(_) => {
                    self.tally.ignored += 1;
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

    /// Prepares for a new connection to the same server, from the confirmed position: an incomplete transaction comes
    /// again.
    pub fn reconnect(&mut self) {
        self.shapes.clear();
        self.domains.clear();
        self.state = TransactionState::Between;
        self.last_end = Lsn::ZERO;
        self.reply_requested = false;
        self.ledger.abandon();
    }

    /// Starts no further transaction; the open one is processed to its end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Keeps at most one record in flight until the confirmed position has passed this one, so that a failure names its
    /// record.
    pub fn be_cautious(&mut self, until: Lsn) {
        self.cautious_until = Some(until);
    }

    /// Counts events up to this position as replayed: an earlier pipeline has enqueued them.
    pub const fn follow(&mut self, handed_before: Lsn) {
        self.handed_before = handed_before;
    }

    /// Settles the ledger, and gives the confirmed position.
    pub fn confirmation(&mut self) -> Confirmed {
        let confirmed = self.ledger.settle();
        if self.cautious_until.is_some_and(|until| confirmed.lsn() >= until) {
            self.cautious_until = None;
        }
        confirmed
    }

    /// Says whether at most one record may be in flight.
    #[must_use]
    pub const fn is_cautious(&self) -> bool {
        self.cautious_until.is_some()
    }

    /// Says once whether the server has requested a status update.
    pub fn take_reply_request(&mut self) -> bool {
        std::mem::take(&mut self.reply_requested)
    }

    /// Says whether every record is acknowledged and no transaction is open.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.state == TransactionState::Between && self.ledger.is_empty()
    }

    /// Says whether a transaction is open.
    #[must_use]
    pub fn is_within_transaction(&self) -> bool {
        self.state != TransactionState::Between
    }

    /// Says whether the pipeline is stopping and the last transaction is complete.
    #[must_use]
    pub fn is_at_border(&self) -> bool {
        self.is_stopping && self.state == TransactionState::Between
    }

    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Gives the part of the delivery reports.
    #[must_use]
    pub fn reports(&self) -> Arc<Reports> {
        self.ledger.reports()
    }

    /// Gives the counts.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Gives the last position that the server has reported.
    #[must_use]
    pub const fn server_end(&self) -> Lsn {
        self.server_end
    }

    /// Gives the position up to which WAL was received on this connection.
    #[must_use]
    pub fn received_end(&self) -> Lsn {
        if self.state == TransactionState::Between { self.server_end } else { self.last_end.max(self.handed_over) }
    }

    /// Gives the end of the last transaction that was enqueued completely.
    #[must_use]
    pub const fn handed_over(&self) -> Lsn {
        self.handed_over
    }

    /// Gives a position after everything enqueued so far, including the open transaction.
    #[must_use]
    pub fn frontier(&self) -> Lsn {
        self.state.within().map_or(self.handed_over, |begun| begun.commit_lsn.max(self.handed_over))
    }

    /// Gives the position of the stream: the commit of the open transaction and the number of its processed rows, or
    /// the end of the last transaction.
    #[must_use]
    pub fn stands_at(&self) -> (Lsn, Option<u64>) {
        self.state.within().map_or((self.handed_over, None), |begun| (begun.commit_lsn, Some(self.rows)))
    }

    /// Gives the times of the server.
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
                self.tally.ignored += 1;
                self.domains.extend(row::type_id(name).map(|type_id| (id, type_id)));
            }
            Message::Update { .. } | Message::Delete { .. } | Message::Truncate => self.tally.unexpected += 1,
            Message::Origin | Message::Type { .. } | Message::Logical => self.tally.ignored += 1,
        }
        Ok(None)
    }

    fn begin<'b>(&mut self, begun: Begun) -> Result<Option<Stopped<'b>>, Error> {
        // Its commit record starts before the end of an enqueued one, so it ends no later than that one.
        if begun.commit_lsn < self.handed_over {
            self.state.skip(begun)?;
            self.rows = 0;
            return Ok(None);
        }
        if !self.ledger.has_room() {
            return Ok(Some(Stopped::Full));
        }
        self.state.enter(begun)?;
        self.rows = 0;
        let committed = route::unix_micros(begun.committed_at);
        self.clock.committed_micros = committed;
        self.clock.lag_micros = self.clock.server_micros.saturating_sub(committed).max(0);
        self.ledger.open(committed);
        Ok(None)
    }

    fn commit(&mut self, commit_lsn: Lsn, end: Lsn, sink: &mut impl Sink) -> Result<(), Error> {
        let left = self.state.leave(commit_lsn, end)?;
        if end <= self.last_end {
            return Err(Violation::BackwardCommit { earlier: self.last_end, found: end }.into());
        }
        self.last_end = end;
        self.server_end = self.server_end.max(end);
        if matches!(left, TransactionState::Skipping(_)) {
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
        let (commit, _) = self.stands_at();
        let misfit = |mismatch| Error::Mismatch { at: commit, mismatch };
        let shape = match found {
            Some((number, route)) => {
                let plan = Plan::new(&relation, route.names()).map_err(misfit)?;
                // A change within the transaction comes again after each restart: only the first time is it an error.
                if let Some(Shape::Outbox(_, earlier, seen)) = self.shapes.get(&relation.id)
                    && *seen != commit
                {
                    plan.require_roles_of(earlier, &relation, route.names()).map_err(misfit)?;
                }
                Shape::Outbox(number, plan, commit)
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
        let begun = self.state.within()?;
        let (route, plan) = match self.shapes.get(&relation) {
            Some(Shape::Outbox(number, plan, _)) => (self.routes.get(*number), plan),
            Some(Shape::Foreign(table)) => {
                return Err(Error::UnknownTable { at: begun.commit_lsn, table: table.clone() });
            }
            None => return Err(Violation::UnknownRelation { relation }.into()),
        };
        let Some(route) = route else { return Err(Violation::UnknownRelation { relation }.into()) };
        if matches!(self.state, TransactionState::Skipping(_)) {
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
                    // The brokers were asked again for this one record.
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
                let at = self.state.within().map_or(Lsn::ZERO, |begun| begun.commit_lsn);
                Error::RowTooLarge { length, limit, at }
            }
        }
    }
}
