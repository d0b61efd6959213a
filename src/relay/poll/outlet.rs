//! One producer and the ledger of its delivery reports.
//!
//! Each event is an entry of its own, and its position is its number: a batch is acknowledged when the ledger confirms
//! the number of its last event.

use crate::lsn::Lsn;
use crate::relay::ledger::Ledger;
use crate::relay::pipeline::RECORD_OVERHEAD;
use crate::relay::pipeline::Refused;
use crate::relay::pipeline::Sink;
use crate::relay::record::route::ProducerRecord;

/// One producer and its ledger; they go together.
#[derive(Debug)]
pub(super) struct Outlet<S> {
    pub(super) ledger: Ledger,
    pub(super) sink: S,
    /// The number of enqueued events, which is the number of the last one.
    enqueued: u64,
}

impl<S: Sink> Outlet<S> {
    pub(super) const fn new(ledger: Ledger, sink: S) -> Self {
        Self { ledger, sink, enqueued: 0 }
    }

    /// Enqueues a record that was written at this time, in microseconds of the Unix clock.
    pub(super) fn enqueue(&mut self, record: &ProducerRecord<'_>, written_micros: i64) -> Result<(), Refused> {
        self.ledger.settle();
        if !self.ledger.has_room() {
            return Err(Refused::Full);
        }
        self.ledger.open(written_micros);
        let ticket = self.ledger.enter(self.sink.topic_index(record.topic), record.size() + RECORD_OVERHEAD);
        if let Err(refused) = self.sink.accept(record, ticket) {
            self.ledger.withdraw(ticket);
            self.ledger.abandon();
            return Err(refused);
        }
        self.enqueued += 1;
        if let Some(completed) = self.ledger.close(Lsn::from_wire(self.enqueued)) {
            self.sink.completed(completed);
        }
        Ok(())
    }

    /// Says whether every record is acknowledged.
    pub(super) fn is_all_acked(&mut self) -> bool {
        self.ledger.settle().lsn() >= Lsn::from_wire(self.enqueued)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relay::ledger::Completed;
    use crate::relay::ledger::Ticket;
    use crate::relay::record::route::Headers;

    #[derive(Default)]
    struct Taken {
        tickets: Vec<Ticket>,
        is_full: bool,
    }

    impl Sink for Taken {
        fn topic_index(&mut self, _: &str) -> u16 {
            0
        }

        fn accept(&mut self, _: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), Refused> {
            if self.is_full {
                return Err(Refused::Full);
            }
            self.tickets.push(ticket);
            Ok(())
        }

        fn completed(&mut self, _: Completed) {}

        fn aged(&mut self, _: Duration) {}
    }

    #[test]
    fn g1_a_batch_is_acknowledged_only_when_each_of_its_records_is() {
        let headers = Headers::default();
        let record = ProducerRecord {
            topic: "t",
            key: None,
            value: Some(b"v"),
            headers: &headers,
            timestamp_millis: None,
            partition: None,
        };
        let mut outlet = Outlet::new(Ledger::new(Lsn::ZERO), Taken::default());
        let reports = outlet.ledger.reports();
        assert!(outlet.is_all_acked(), "nothing was enqueued over");
        for _ in 0..3 {
            outlet.enqueue(&record, 7).unwrap();
        }
        outlet.sink.is_full = true;
        assert_eq!(outlet.enqueue(&record, 7), Err(Refused::Full));
        for index in [2, 0, 1] {
            assert!(!outlet.is_all_acked());
            reports.delivered(outlet.sink.tickets[index]);
        }
        assert!(outlet.is_all_acked(), "a rejected record is not waited for");
        assert_eq!(outlet.ledger.records(), 0);
        outlet.sink.is_full = false;
        outlet.enqueue(&record, 7).unwrap();
        reports.failed();
        assert!(!outlet.is_all_acked());
    }
}
