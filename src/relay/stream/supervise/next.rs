//! What follows from how a connection ended, or a producer.

use std::time::Duration;

use crate::relay::error::Error;
use crate::relay::metrics::State;
use crate::relay::postgres;
use crate::relay::publish::Verdict;
use crate::relay::retry::patience::AfterFailure;
use crate::relay::stream::follow::Left;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

use super::Supervisor;

/// A producer without rights on the cluster is tried so often: they may just be changing.
const CLUSTER_ATTEMPTS: u32 = 3;
/// How long our own walsender is left alone that has not noticed that we left it.
const WALSENDER_PAUSE: Duration = Duration::from_secs(1);

/// What the supervisor does next.
pub(super) enum Next {
    Over,
    Again,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
    /// A record must be acknowledged first.
    AwaitProgress,
    /// Another connection holds the slot.
    StandBy,
    Pause(Duration),
}

impl Supervisor {
    pub(super) fn after(&mut self, ended: Result<Left, Error>) -> Result<Next, Error> {
        match ended {
            Ok(Left::Stopped) => self.stopped().map(|()| Next::Over),
            // Whatever ended the connection, the stop is what counts: it says what is still in flight.
            Ok(_) if self.stop.is_cancelled() => self.stopped().map(|()| Next::Over),
            Ok(Left::StoppedBefore) => Ok(Next::Again),
            Ok(Left::ServerLeaves) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(Next::Pause(self.patience.next_pause()))
            }
            Ok(Left::ServerLeavesAhead) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(Next::Pause(Duration::ZERO))
            }
            Ok(Left::Stalled) => {
                self.metrics.enter(State::SinkBlocked);
                tracing::warn!(
                    code = "WR-6933",
                    "kafka delivery stalled: disconnecting from PostgreSQL until a record is acknowledged"
                );
                Ok(Next::AwaitProgress)
            }
            Ok(Left::SinkFailed) => self.after_failure(),
            Err(error) => self.after_error(error),
        }
    }

    /// A record failed, or its producer did.
    pub(super) fn after_failure(&mut self) -> Result<Next, Error> {
        let Some(held) = &mut self.held else { return Ok(Next::AwaitKafka(Duration::ZERO)) };
        let frontier = held.pipeline.frontier();
        let Some(failure) = held.publisher.failure() else { return Ok(Next::AwaitKafka(Duration::ZERO)) };
        let was_cautious = held.pipeline.is_cautious();
        if held.pipeline.reports().left_records() > 0 {
            self.cluster_refused = 0;
        }
        self.let_go();
        let is_refused = failure.verdict == Verdict::Rights;
        if is_refused {
            if failure.fate() == Fate::Fatal {
                self.cluster_refused += 1;
                if self.cluster_refused >= CLUSTER_ATTEMPTS {
                    return Err(failure.into());
                }
            }
            self.patience.refused();
        }
        // Where one topic is refused, only what stands before its record is handed over again.
        let is_topic_refused = is_refused && failure.topic().is_some();
        let after = self.patience.after_failure(failure, was_cautious)?;
        let is_one_by_one = matches!(after, AfterFailure::OneByOne);
        self.cautious_until = (is_one_by_one || was_cautious || is_topic_refused).then_some(frontier);
        self.in_doubt |= !is_one_by_one;
        Ok(match after {
            AfterFailure::OneByOne => Next::Again,
            AfterFailure::AwaitKafka(pause) => Next::AwaitKafka(pause),
            AfterFailure::Pause(pause) => Next::Pause(pause),
        })
    }

    pub(super) fn after_error(&mut self, error: Error) -> Result<Next, Error> {
        if let Error::Wal { source, .. } = &error
            && source.is_slot_active()
        {
            if self.is_own_walsender(source) {
                self.metrics.enter(State::SourceReconnecting);
                self.patience.tell(&error);
                return Ok(Next::Pause(WALSENDER_PAUSE));
            }
            // Whoever holds it may publish what we still have in our queue, and moves the position on.
            self.let_go();
            self.remembered = None;
            self.purged_records = 0;
            self.follows_another = true;
            return Ok(Next::StandBy);
        }
        self.patience.judge(error)?;
        self.metrics.enter(State::SourceReconnecting);
        Ok(Next::Pause(self.patience.next_pause()))
    }

    /// Says whether what holds the slot is the walsender that we left: it has not noticed yet.
    fn is_own_walsender(&self, error: &postgres::Error) -> bool {
        let holder = error.slot_holder().map(|process| (self.server_started.as_str(), process));
        let ours = self.walsender.as_ref().map(|(started, process)| (started.as_str(), *process));
        holder.is_some() && holder == ours
    }

    /// A stop is in order if a restart repeats nothing: whatever this process has handed to Kafka is acknowledged.
    pub(super) fn stopped(&mut self) -> Result<(), Error> {
        let in_flight = self.held.as_ref().map_or(0, |held| held.pipeline.ledger().records());
        let records = in_flight.max(self.purged());
        if records > 0 { Err(Error::Unacknowledged { records }) } else { Ok(()) }
    }
}
