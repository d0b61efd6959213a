//! Copies the numbers of one connection to the metrics.

use std::time::Duration;
use std::time::Instant;

use crate::lsn::Lsn;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::now_micros;
use crate::relay::pipeline::Pipeline;
use crate::relay::pipeline::Tally;

const INTERVAL: Duration = Duration::from_millis(250);

/// The numbers that were copied last, and when.
pub(in crate::relay) struct PipelineMetrics<'m> {
    metrics: &'m Metrics,
    tally: Tally,
    delivered: u64,
    at: Instant,
}

impl<'m> PipelineMetrics<'m> {
    /// Starts with the pipeline's numbers from an earlier connection, which are copied already.
    pub(in crate::relay) fn new(metrics: &'m Metrics, pipeline: &Pipeline) -> Self {
        Self { metrics, tally: pipeline.tally(), delivered: pipeline.reports().acked_records(), at: Instant::now() }
    }

    /// Gives the time of the next copy.
    pub(in crate::relay) fn due(&self) -> Instant {
        self.at + INTERVAL
    }

    /// Copies if it is time; the WAL is confirmed up to `position`.
    pub(in crate::relay) fn note(&mut self, pipeline: &Pipeline, position: Lsn, now: Instant) {
        if now < self.due() {
            return;
        }
        self.at = now;
        let metrics = self.metrics;
        let (tally, clock, now_unix) = (pipeline.tally(), pipeline.clock(), now_micros());
        let noted = std::mem::replace(&mut self.tally, tally);
        metrics.tick();
        if tally.frames != noted.frames {
            metrics.heard(pipeline.received_end(), pipeline.server_end(), unsigned(clock.server_micros), now_unix);
            metrics.receive_lag_micros.set(unsigned(clock.lag_micros));
            metrics.last_event_commit_micros.set(unsigned(clock.committed_micros));
        }
        metrics.flushed_lsn.set(position.to_wire());
        let ledger = pipeline.ledger();
        metrics.in_flight(ledger.records(), ledger.bytes(), ledger.oldest_committed_micros().map(unsigned));
        metrics.events_received.add(tally.events - noted.events);
        metrics.events_replayed.add(tally.replayed - noted.replayed);
        metrics.transactions.add(tally.transactions - noted.transactions);
        metrics.keepalives.add(tally.keepalives - noted.keepalives);
        metrics.messages_skipped.add(tally.ignored + tally.unexpected - noted.ignored - noted.unexpected);
        let delivered = pipeline.reports().acked_records();
        if delivered != std::mem::replace(&mut self.delivered, delivered) {
            metrics.last_delivery_micros.set(now_unix);
        }
    }
}

fn unsigned(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default()
}
