//! What follows the end of a connection or a failed producer.

use std::time::Duration;

use crate::relay::error::Error;
use crate::relay::metrics::State;
use crate::relay::postgres;
use crate::relay::publish::Verdict;
use crate::relay::retry::recovery::AfterFailure;
use crate::relay::stream::follow::StreamEnd;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

use super::Supervisor;
use super::step::StreamStep;

/// The attempts of a producer without authorization on the cluster: it may be changing.
const CLUSTER_ATTEMPTS: u32 = 3;
/// The pause while the old walsender of this relay still holds the slot.
const WALSENDER_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) fn after(&mut self, ended: Result<StreamEnd, Error>) -> Result<StreamStep, Error> {
        match ended {
            Ok(StreamEnd::Stopped) => self.stopped().map(|()| StreamStep::Over),
            // The stop takes precedence: it reports what is in flight.
            Ok(_) if self.stop.is_cancelled() => self.stopped().map(|()| StreamStep::Over),
            Ok(StreamEnd::StoppedBefore) => Ok(StreamStep::Again),
            Ok(StreamEnd::ServerShutdown) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(StreamStep::Pause(self.recovery.next_backoff()))
            }
            Ok(StreamEnd::ServerShutdownUnacked) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(StreamStep::Pause(Duration::ZERO))
            }
            Ok(StreamEnd::Stalled) => {
                self.metrics.enter(State::SinkBlocked);
                tracing::warn!(
                    code = "WR-6933",
                    "kafka delivery stalled: disconnecting from PostgreSQL until a record is acknowledged"
                );
                Ok(StreamStep::AwaitProgress)
            }
            Ok(StreamEnd::SinkFailed) => self.after_failure(),
            Err(error) => self.after_error(error),
        }
    }

    /// A record or its producer failed.
    pub(super) fn after_failure(&mut self) -> Result<StreamStep, Error> {
        let Some(held) = &mut self.held else { return Ok(StreamStep::AwaitKafka(Duration::ZERO)) };
        let frontier = held.pipeline.frontier();
        let Some(failure) = held.publisher.failure() else { return Ok(StreamStep::AwaitKafka(Duration::ZERO)) };
        let was_cautious = held.pipeline.is_cautious();
        if held.pipeline.reports().acked_records() > 0 {
            self.cluster_refused = 0;
        }
        self.drop_producer();
        let is_refused = failure.verdict == Verdict::Rights;
        if is_refused {
            if failure.fate() == Fate::Fatal {
                self.cluster_refused += 1;
                if self.cluster_refused >= CLUSTER_ATTEMPTS {
                    return Err(failure.into());
                }
            }
            self.recovery.refused();
        }
        // If one topic is denied, only the events before its record are published.
        let is_topic_refused = is_refused && failure.topic().is_some();
        let after = self.recovery.after_failure(failure, was_cautious)?;
        let is_one_by_one = matches!(after, AfterFailure::OneByOne);
        self.cautious_until = (is_one_by_one || was_cautious || is_topic_refused).then_some(frontier);
        if !is_one_by_one {
            self.stalls.doubt();
        }
        Ok(match after {
            AfterFailure::OneByOne => StreamStep::Again,
            AfterFailure::AwaitKafka(pause) => StreamStep::AwaitKafka(pause),
            AfterFailure::Pause(pause) => StreamStep::Pause(pause),
        })
    }

    pub(super) fn after_error(&mut self, error: Error) -> Result<StreamStep, Error> {
        if let Error::Postgres { source, .. } = &error
            && source.is_slot_active()
        {
            if self.is_own_walsender(source) {
                self.metrics.enter(State::SourceReconnecting);
                self.recovery.report(&error);
                return Ok(StreamStep::Pause(WALSENDER_PAUSE));
            }
            // The holder may publish the records in this queue, and advances the position.
            self.drop_producer();
            self.remembered = None;
            self.purged_records = 0;
            self.follows_another = true;
            return Ok(StreamStep::StandBy);
        }
        self.recovery.classify(error)?;
        self.metrics.enter(State::SourceReconnecting);
        Ok(StreamStep::Pause(self.recovery.next_backoff()))
    }

    /// Says whether the old walsender of this relay holds the slot.
    fn is_own_walsender(&self, error: &postgres::Error) -> bool {
        let holder = error.slot_holder().map(|process| (self.server_started.as_str(), process));
        let ours = self.walsender.as_ref().map(|(started, process)| (started.as_str(), *process));
        holder.is_some() && holder == ours
    }

    /// Ends the relay. The stop is orderly if a restart repeats nothing: every enqueued record is acknowledged.
    pub(super) fn stopped(&mut self) -> Result<(), Error> {
        let in_flight = self.held.as_ref().map_or(0, |held| held.pipeline.ledger().records());
        let records = in_flight.max(self.purged());
        if records > 0 { Err(Error::Unacknowledged { records }) } else { Ok(()) }
    }
}
