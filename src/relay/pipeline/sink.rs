//! The seam towards whoever takes records.

use std::time::Duration;

use crate::relay::ledger::Completed;
use crate::relay::ledger::Ticket;
use crate::relay::record::route::Record;

/// Where records go.
pub trait Sink {
    /// Gives the index under which a topic is counted.
    fn topic_index(&mut self, topic: &str) -> u16;

    /// Takes a record, or says why not. A record that is taken is reported under its ticket, sooner or later.
    fn accept(&mut self, record: &Record<'_>, ticket: Ticket) -> Result<(), Refused>;

    /// Learns that a transaction is complete, whose last record arrived before its end was read.
    fn completed(&mut self, completed: Completed);

    /// Learns how old the row of a record that was taken is, where its table says when rows are made.
    fn aged(&mut self, age: Duration);
}

/// Why a sink does not take a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Not now: offer it again when something has been delivered.
    Full,
    /// Never.
    TooLarge {
        /// The record's size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The topic has no partition of this number, as far as the sink knows; and it is broken, for a new one to look again.
    NoPartition(i32),
    /// The sink is broken; its owner knows why.
    Broken,
}
