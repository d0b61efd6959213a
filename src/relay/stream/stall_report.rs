//! Stalls of Kafka: whether one lasts, from one connection to the next, and what is logged of it.

use std::time::Duration;
use std::time::Instant;

use crate::relay::metrics::Component;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::pipeline::Pipeline;
use crate::relay::publish::Cause;
use crate::relay::publish::Stalled;
use crate::relay::publish::Waiting;
use walrelay_events::fault::Diagnose as _;

/// How often the same reason is logged.
const INTERVAL: Duration = Duration::from_secs(60);

/// A stall of Kafka. Each reason is logged once, and again once a minute while it lasts.
#[derive(Debug, Default)]
pub(in crate::relay) struct StallReport {
    /// The last logged reason, and when.
    said: Option<(Option<(String, Cause)>, Instant)>,
    /// Kafka was stalled, and no record is acknowledged since.
    in_doubt: bool,
    /// What this connection still has to see before the stall of an earlier one is over.
    recovery_check: Option<RecoveryCheck>,
}

impl StallReport {
    /// Begins a connection.
    pub(in crate::relay) fn begin(&mut self, pipeline: &Pipeline) {
        self.recovery_check = self.in_doubt.then(|| RecoveryCheck::of(pipeline));
    }

    /// Keeps Kafka in doubt: the next connection must see it recover.
    pub(in crate::relay) const fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Says whether the stall of an earlier connection lasts.
    pub(in crate::relay) const fn is_in_doubt(&self) -> bool {
        self.recovery_check.is_some()
    }

    /// Logs a stall with its reason, and its end. The relay disconnects only later.
    pub(in crate::relay) fn note(
        &mut self,
        is_slow: bool,
        waiting: Option<Waiting>,
        pipeline: &Pipeline,
        metrics: &Metrics,
    ) {
        let lacks_topic = waiting.as_ref().is_some_and(|waiting| waiting.cause == Cause::NoTopic);
        self.recovery_check = self.recovery_check.filter(|check| !check.has_recovered(pipeline));
        let was_blocked = metrics.state.load() == State::SinkBlocked;
        if is_slow || lacks_topic {
            self.doubt();
            if !was_blocked {
                metrics.kafka.lost(Loss::Stalled);
                metrics.enter(State::SinkBlocked);
            }
            self.report(Stalled { waiting }, metrics);
        } else if was_blocked && self.recovery_check.is_none() {
            tracing::info!("kafka delivery resumed");
            self.over();
            metrics.kafka.connected();
            metrics.enter(State::Streaming);
        }
    }

    /// Logs a stall, unless the same was logged recently.
    pub(in crate::relay) fn report(&mut self, stalled: Stalled, metrics: &Metrics) {
        let cause = stalled.waiting.as_ref().map(|waiting| (waiting.topic.clone(), waiting.cause.clone()));
        if self.said.as_ref().is_some_and(|(said, at)| *said == cause && at.elapsed() < INTERVAL) {
            return;
        }
        tracing::warn!(code = %stalled.code(), error = %stalled, next = stalled.help(), "kafka delivery stalled");
        metrics.failed(Component::Publish, &stalled);
        self.said = Some((cause, Instant::now()));
    }

    /// Ends the stall: the next one is logged at once.
    pub(in crate::relay) fn over(&mut self) {
        self.said = None;
        self.in_doubt = false;
    }
}

/// The numbers at the time of a stall, to detect its end.
#[derive(Clone, Copy, Debug)]
struct RecoveryCheck {
    acked_records: u64,
    keepalives: u64,
}

impl RecoveryCheck {
    fn of(pipeline: &Pipeline) -> Self {
        Self { acked_records: pipeline.reports().acked_records(), keepalives: pipeline.tally().keepalives }
    }

    /// Says whether a record was acknowledged since, or there is nothing to deliver.
    fn has_recovered(self, pipeline: &Pipeline) -> bool {
        let has_nothing = pipeline.ledger().records() == 0 && !pipeline.is_within_transaction();
        pipeline.reports().acked_records() > self.acked_records
            || has_nothing && pipeline.tally().keepalives > self.keepalives
    }
}
