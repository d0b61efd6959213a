//! The interface of the producer.

use std::time::Duration;

use crate::relay::ledger::Completed;
use crate::relay::ledger::Ticket;
use crate::relay::record::route::ProducerRecord;

/// Accepts records.
pub trait Sink {
    /// Gives the index under which a topic is counted.
    fn topic_index(&mut self, topic: &str) -> u16;

    /// Accepts a record, or gives the reason why not. An accepted record is reported with its ticket eventually.
    fn accept(&mut self, record: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), Refused>;

    /// Observes a transaction whose last record was acknowledged before its end was read.
    fn completed(&mut self, completed: Completed);

    /// Learns how old the row of a record that was taken is, where its table says when rows are made.
    fn aged(&mut self, age: Duration);
}

/// Why a sink rejects a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The queue is full: offer it again after an acknowledgement.
    Full,
    /// It is too large.
    TooLarge {
        /// The record's size.
        size: usize,
        limit: usize,
    },
    /// The topic has no partition with this number, as far as the sink knows. The sink is broken: a new one asks the
    /// brokers again.
    NoPartition(i32),
    /// The sink is broken; its owner knows the failure.
    Broken,
}
