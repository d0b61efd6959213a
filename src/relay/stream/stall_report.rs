//! What is said of a Kafka that acknowledges nothing: each cause once, and again once a minute while it lasts.

use std::time::Duration;
use std::time::Instant;

use crate::relay::metrics::Component;
use crate::relay::metrics::Metrics;
use crate::relay::pipeline::Pipeline;
use crate::relay::publish::Cause;
use crate::relay::publish::Stalled;
use walrelay_events::fault::Diagnose as _;

/// How often the same cause is said again.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(in crate::relay) struct StallReport {
    said: Option<(Option<(String, Cause)>, Instant)>,
}

impl StallReport {
    /// Reports a stall, unless that was just done.
    pub(in crate::relay) fn report(&mut self, stalled: Stalled, metrics: &Metrics) {
        let cause = stalled.waiting.as_ref().map(|waiting| (waiting.topic.clone(), waiting.cause.clone()));
        if self.said.as_ref().is_some_and(|(said, at)| *said == cause && at.elapsed() < INTERVAL) {
            return;
        }
        tracing::warn!(code = %stalled.code(), error = %stalled, help = stalled.help(), "kafka delivery stalled");
        metrics.failed(Component::Publish, &stalled);
        self.said = Some((cause, Instant::now()));
    }

    /// The next stall is news.
    pub(in crate::relay) fn over(&mut self) {
        self.said = None;
    }
}

/// What was so when Kafka was in doubt.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct Unproven {
    acked_records: u64,
    keepalives: u64,
}

impl Unproven {
    pub(in crate::relay) fn of(pipeline: &Pipeline) -> Self {
        Self { acked_records: pipeline.reports().left_records(), keepalives: pipeline.tally().keepalives }
    }

    /// Says whether something was delivered since, or there is nothing to deliver.
    pub(in crate::relay) fn is_proven(self, pipeline: &Pipeline) -> bool {
        let has_nothing = pipeline.ledger().records() == 0 && !pipeline.is_within_transaction();
        pipeline.reports().left_records() > self.acked_records
            || has_nothing && pipeline.tally().keepalives > self.keepalives
    }
}
