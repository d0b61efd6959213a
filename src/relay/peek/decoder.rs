//! From the messages of a slot to records, on the same way as in `run`: the pipeline makes them, with its errors. Only
//! the sink differs, which keeps the records and acknowledges them.

use std::sync::Arc;
use std::time::Duration;

use crate::lsn::Lsn;
use crate::relay::decode::pgoutput;
use crate::relay::decode::pgoutput::Message;
use crate::relay::ledger::Completed;
use crate::relay::ledger::Reports;
use crate::relay::ledger::Ticket;
use crate::relay::peek::pending::Collection;
use crate::relay::peek::pending::PendingRecord;
use crate::relay::peek::pending::Place;
use crate::relay::peek::pending::Unpublishable;
use crate::relay::pipeline;
use crate::relay::pipeline::Limits;
use crate::relay::pipeline::Pipeline;
use crate::relay::pipeline::Refused;
use crate::relay::pipeline::Sink;
use crate::relay::record::route::ProducerRecord;
use crate::relay::record::route::Route;

/// The tag, the length and the kind of a frame, its two positions and its time.
const FRAME_HEADER: usize = 30;

/// Decodes the messages of one slot, in order.
pub(super) struct Decoder {
    pipeline: Pipeline,
    kept: Kept,
    /// Everything that commits before is delivered.
    delivered: Lsn,
    frame: Vec<u8>,
}

/// The sink: keeps what `run` would hand to the producer.
struct Kept {
    collection: Collection,
    reports: Arc<Reports>,
    max_record_bytes: usize,
    at: Lsn,
    is_delivered: bool,
}

impl Decoder {
    pub(super) fn new(routes: Vec<Route>, limits: (usize, usize), delivered: Lsn, collection: Collection) -> Self {
        let (frame_bytes, max_record_bytes) = limits;
        let limits = Limits { in_flight_bytes: u64::MAX, frame_bytes };
        let pipeline = Pipeline::new(routes, limits, Lsn::ZERO);
        let reports = pipeline.reports();
        let kept = Kept { collection, reports, max_record_bytes, at: Lsn::ZERO, is_delivered: false };
        Self { pipeline, kept, delivered, frame: Vec::new() }
    }

    /// Takes the next message.
    pub(super) fn take(&mut self, message: &[u8]) -> Result<(), pipeline::Error> {
        if let Message::Begin { final_lsn, .. } = pgoutput::decode(message)? {
            self.kept.at = final_lsn;
            // As the server decides it for a start at this position.
            self.kept.is_delivered = final_lsn < self.delivered;
        }
        frame(message, &mut self.frame);
        match self.pipeline.run(&self.frame, &mut self.kept) {
            Ok(_) => {
                self.pipeline.confirmation();
                Ok(())
            }
            // The event before it and those after it can be shown.
            Err(error @ pipeline::Error::Poison { .. }) => {
                self.kept.add(Err(Unpublishable::new(&error)));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.kept.collection.is_full()
    }

    pub(super) fn into_collection(self) -> Collection {
        self.kept.collection
    }
}

/// Writes the frame in which the server would stream this message.
fn frame(message: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let length = u32::try_from(FRAME_HEADER - 1 + message.len()).unwrap_or(u32::MAX);
    out.push(b'd');
    out.extend_from_slice(&length.to_be_bytes());
    out.push(b'w');
    out.extend_from_slice(&[0; 24]);
    out.extend_from_slice(message);
}

impl Kept {
    fn add(&mut self, record: Result<PendingRecord, Unpublishable>) {
        if !self.is_delivered {
            self.collection.add(Place::Commit(self.at), record);
        }
    }
}

impl Sink for Kept {
    fn topic_index(&mut self, _: &str) -> u16 {
        0
    }

    fn accept(&mut self, record: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), Refused> {
        if record.size() > self.max_record_bytes {
            return Err(Refused::TooLarge { size: record.size(), limit: self.max_record_bytes });
        }
        // Without a copy of what is not kept.
        if !self.is_delivered && !self.collection.is_full() {
            self.add(Ok(PendingRecord::copy(record)));
        }
        self.reports.delivered(ticket);
        Ok(())
    }

    fn completed(&mut self, _: Completed) {}

    fn aged(&mut self, _: Duration) {}
}

#[cfg(test)]
mod tests {
    use crate::relay::decode::frame;
    use crate::relay::decode::frame::Frame;
    use crate::relay::decode::frame::Parsed;

    #[test]
    fn a_message_is_framed_as_in_the_stream() {
        let mut out = vec![1; 99];
        super::frame(b"message", &mut out);
        let parsed = frame::next(&out, 1_000).unwrap();
        assert_eq!(parsed, Parsed::Whole(Frame::Data { sent_at: 0, message: b"message" }, out.len()));
    }
}
