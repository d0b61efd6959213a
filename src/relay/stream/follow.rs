//! The loop over one replication connection.
//!
//! In this order: end, settle, timers, and only then new work, which is everything in the buffer. Reads and writes can
//! be cancelled at any await without losing a byte. The frames of a buffer are processed to completion between two
//! awaits, so a status update is at most one buffer late.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::relay::error::Error;
use crate::relay::metrics::Backpressure;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::pipeline::Pipeline;
use crate::relay::pipeline::Ran;
use crate::relay::pipeline::Stopped;
use crate::relay::postgres;
use crate::relay::postgres::ServerError;
use crate::relay::postgres::Stream;
use crate::relay::publish::Publisher;
use crate::relay::stream::coalesce::Coalesce;
use crate::relay::stream::feedback::Feedback;
use crate::relay::stream::feedback::Pace;
use crate::relay::stream::feedback::Persist;
use crate::relay::stream::keeper::Keeper;
use crate::relay::stream::keeper::KeeperEvent;
use crate::relay::stream::phase::Phase;
use crate::relay::stream::pipeline_metrics::PipelineMetrics;
use crate::relay::stream::stall_report::StallReport;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// How long to wait for acknowledgements when the server shuts down: it waits for the relay meanwhile.
const PARK_GRACE: Duration = Duration::from_secs(2);
/// The timeout of the orderly end of the stream.
const FINISH_LIMIT: Duration = Duration::from_secs(2);
/// The timeout of marking the stored position as the last one.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// Why a connection ended without an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::relay) enum StreamEnd {
    /// The relay is stopped; everything is acknowledged and confirmed.
    Stopped,
    /// The relay is stopped before the stream started.
    StoppedBefore,
    /// The server is shutting down; everything is acknowledged.
    ServerShutdown,
    /// The server is shutting down; records are in flight.
    ServerShutdownUnacked,
    /// Kafka has acknowledged nothing for too long.
    Stalled,
    /// A record or the producer failed; the publisher knows why.
    SinkFailed,
}

/// The pipeline and its producer, which may outlive a connection: while they live, no record is enqueued twice.
#[derive(Debug)]
pub(in crate::relay) struct Held {
    pub(in crate::relay) pipeline: Pipeline,
    pub(in crate::relay) publisher: Publisher,
}

/// One connection and everything that the loop needs.
pub(in crate::relay) struct Follow<'a> {
    pub(in crate::relay) stream: Stream,
    pub(in crate::relay) held: &'a mut Held,
    pub(in crate::relay) keeper: Keeper,
    pub(in crate::relay) pace: Pace,
    pub(in crate::relay) drain: Duration,
    pub(in crate::relay) slot: &'a str,
    pub(in crate::relay) wake: Arc<Notify>,
    pub(in crate::relay) metrics: &'a Metrics,
    pub(in crate::relay) stop: &'a CancellationToken,
    pub(in crate::relay) pipeline_metrics: PipelineMetrics<'a>,
    /// The error that ends the relay once the earlier records are acknowledged.
    pub(in crate::relay) failed: Option<Error>,
    /// Nothing is read, and so nothing published, before this time; none once it has passed.
    pub(in crate::relay) publishes_from: Option<Instant>,
    /// Another relay published before this one and may have requests in flight.
    pub(in crate::relay) follows_another: &'a mut bool,
    pub(in crate::relay) stalls: &'a mut StallReport,
}

/// The result of processing the buffer, without a borrow of it.
enum Walked {
    /// All complete frames are processed; the next one needs so many bytes, if that is known.
    Needs(usize),
    /// No further record is accepted for now.
    Held(Backpressure),
    /// The server ended the stream.
    Over(postgres::Error),
}

impl Follow<'_> {
    /// Runs until the connection must end. The error that stops the relay takes precedence over errors while stopping,
    /// except for a failed producer, which concerns earlier events.
    pub(in crate::relay) async fn run(mut self) -> Result<StreamEnd, Error> {
        let ended = self.follow().await;
        let failed = self.failed.take();
        if let Ok(end @ StreamEnd::SinkFailed) = ended {
            return Ok(end);
        }
        let ended = match ended {
            Ok(end) => self.leave(end, failed.is_some()).await,
            Err(error) => Err(error),
        };
        match (failed, ended) {
            (Some(failed), Ok(_)) => Err(failed),
            (Some(failed), Err(error)) => {
                tracing::info!(error = chain(&error), "connection lost before the orderly stop");
                Err(failed)
            }
            (None, ended) => ended,
        }
    }

    async fn follow(&mut self) -> Result<StreamEnd, Error> {
        let start = Instant::now();
        let mut feedback = Feedback::new(self.pace, self.held.pipeline.confirmation(), start);
        let mut coalesce = Coalesce::new(start);
        let mut phase = Phase::Flowing;
        let mut full: Option<(Backpressure, Instant)> = None;
        // Frames that an earlier connection left in the pipeline are processed before anything is read.
        loop {
            let now = Instant::now();
            self.begin_to_publish(now);
            self.settle(&mut feedback, now);
            if self.held.publisher.failure().is_some() {
                return Ok(StreamEnd::SinkFailed);
            }
            if let Some(end) = self.advance(&mut phase, &mut feedback, now)? {
                if end == StreamEnd::Stopped {
                    self.confirm(&mut feedback);
                }
                return Ok(end);
            }
            self.report(&mut feedback, now);
            if phase == Phase::Flowing {
                if feedback.is_stalled(now) {
                    return Ok(StreamEnd::Stalled);
                }
                let Held { pipeline, publisher } = &*self.held;
                self.stalls.note(feedback.is_slow(now), publisher.waiting(), pipeline, self.metrics);
            }
            let reads = full.is_none() && self.publishes_from.is_none() && phase.reads(&self.held.pipeline);
            if !reads {
                feedback.not_listening(now);
            }
            if feedback.is_silent(now) {
                return Err(Error::Silent { limit: self.pace.max_silence });
            }
            if feedback.is_storm() && matches!(phase, Phase::Flowing | Phase::Draining(_)) {
                phase = self.begin_park(now);
            }
            self.pipeline_metrics.note(&self.held.pipeline, self.stream.position(), now);

            let deadline = phase.deadline(&feedback, self.publishes_from).min(self.pipeline_metrics.due());
            if full.is_none() && !reads {
                self.held.pipeline.ledger().await_all();
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if phase == Phase::Flowing => phase = self.begin_to_drain(now),
                event = self.keeper.next_event() => self.handle(event, &mut phase, &mut feedback, now)?,
                () = self.wake.notified() => {
                    if let Some((cause, since)) = full.take() {
                        self.metrics.held_back(cause, since.elapsed());
                        full = self.walk(&mut phase, &mut feedback)?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
                read = self.stream.exchange(reads) => {
                    let read = read.map_err(Error::postgres("read the replication stream"))?;
                    if read > 0 {
                        let now = Instant::now();
                        feedback.received(now);
                        full = self.walk(&mut phase, &mut feedback)?;
                        if let Some(moment) = coalesce.after_read(read, now) {
                            // This thread has nothing else to do, and the runtime's timer is far coarser.
                            thread::sleep(moment);
                        }
                    }
                }
            }
        }
    }

    fn begin_to_publish(&mut self, now: Instant) {
        if self.publishes_from.is_some_and(|from| now >= from) {
            self.publishes_from = None;
            *self.follows_another = false;
            self.metrics.enter(if self.stalls.is_in_doubt() { State::SinkBlocked } else { State::Streaming });
        }
    }

    /// Processes the buffer. After an event that cannot be published nothing more is read, and earlier records may be
    /// acknowledged.
    fn walk(&mut self, phase: &mut Phase, feedback: &mut Feedback) -> Result<Option<(Backpressure, Instant)>, Error> {
        match self.walk_buffer(feedback) {
            Err(error @ (Error::Pipeline(_) | Error::Raised { .. }))
                if error.fate() == Fate::Fatal && matches!(phase, Phase::Flowing | Phase::Draining(_)) =>
            {
                tracing::info!(
                    in_flight = self.held.pipeline.ledger().records(),
                    "stopping after an error: waiting for earlier records"
                );
                self.metrics.enter(State::Draining);
                self.failed = Some(error);
                *phase = Phase::Clearing(Instant::now() + self.drain);
                Ok(None)
            }
            walked => walked,
        }
    }

    /// Processes every complete frame of the buffer. If no further record is accepted, gives why and since when.
    fn walk_buffer(&mut self, feedback: &mut Feedback) -> Result<Option<(Backpressure, Instant)>, Error> {
        loop {
            let Held { pipeline, publisher } = &mut *self.held;
            let Ran { used, stopped } = pipeline.run(self.stream.buffer(), publisher)?;
            let walked = match stopped {
                Stopped::Drained(needs) => Walked::Needs(needs),
                Stopped::Full => Walked::Held(Backpressure::InFlight),
                Stopped::SinkFull => Walked::Held(Backpressure::Kafka),
                Stopped::SinkBroken | Stopped::AtBorder => Walked::Needs(0),
                Stopped::ServerError(fields) => Walked::Over(ServerError::parse(fields).into()),
                Stopped::Ended => Walked::Over(postgres::Error::Closed),
            };
            self.stream.consume(used);
            if pipeline.take_reply_request() {
                feedback.asked(Instant::now());
            }
            let cause = match walked {
                Walked::Needs(0) => return Ok(None),
                Walked::Needs(bytes) => {
                    self.stream.make_room(bytes).map_err(Error::postgres("receive a row"))?;
                    return Ok(None);
                }
                Walked::Over(source @ postgres::Error::Server(_)) => {
                    let ((at, row), slot) = (pipeline.stands_at(), self.slot.to_owned());
                    return Err(Error::Raised { at, row, slot, is_recurring: false, source: Box::new(source) });
                }
                Walked::Over(source) => return Err(Error::Postgres { action: "read the replication stream", source }),
                Walked::Held(cause) => cause,
            };
            // Wait to be woken, unless half is acknowledged by now.
            if !pipeline.ledger().await_half() || pipeline.ledger().is_poisoned() {
                return Ok(Some((cause, Instant::now())));
            }
            pipeline.confirmation();
        }
    }

    fn settle(&mut self, feedback: &mut Feedback, now: Instant) {
        let pipeline = &mut self.held.pipeline;
        let confirmed = pipeline.confirmation();
        let delivered = pipeline.reports().acked_records();
        feedback.settled(confirmed, delivered, pipeline.ledger().records() > 0, now);
    }

    /// Changes the phase. Says when and why the connection must end.
    fn advance(
        &mut self,
        phase: &mut Phase,
        feedback: &mut Feedback,
        now: Instant,
    ) -> Result<Option<StreamEnd>, Error> {
        if matches!(phase, Phase::Flowing | Phase::Draining(_) | Phase::Clearing(_))
            && let Some(persist) = feedback.to_persist(now)
        {
            self.keeper.store(persist);
        }
        let pipeline = &self.held.pipeline;
        match *phase {
            // Nothing was published: the row still describes the previous relay.
            Phase::Draining(_) if self.publishes_from.is_some() => Ok(Some(StreamEnd::Stopped)),
            Phase::Draining(until) | Phase::Clearing(until) if phase.is_acked(&self.held.pipeline) => {
                // The last acknowledgement may have come after this round settled.
                self.settle(feedback, now);
                *phase = Phase::Storing(if feedback.is_persisted() { until.min(now + RELEASE_LIMIT) } else { until });
                Ok(self.store_last(feedback))
            }
            Phase::Storing(until) if now < until => Ok(self.store_last(feedback)),
            // The position is stored, only the mark of the last one is not.
            Phase::Storing(_) if feedback.is_persisted() => Ok(Some(StreamEnd::Stopped)),
            Phase::Draining(until) | Phase::Clearing(until) | Phase::Storing(until) if now >= until => {
                let (records, is_open) = (pipeline.ledger().records(), pipeline.is_within_transaction());
                Err(Error::undrained(records, is_open, self.drain))
            }
            Phase::Parking(until) => {
                let is_acked = phase.is_acked(&self.held.pipeline);
                let end = if is_acked { StreamEnd::ServerShutdown } else { StreamEnd::ServerShutdownUnacked };
                Ok((is_acked || now >= until).then_some(end))
            }
            Phase::Flowing | Phase::Draining(_) | Phase::Clearing(_) | Phase::Storing(_) => Ok(None),
        }
    }

    /// Stores the last position, and ends the connection once that is done.
    fn store_last(&self, feedback: &mut Feedback) -> Option<StreamEnd> {
        if let Some(persist) = feedback.to_persist_last() {
            self.keeper.store(persist);
        }
        feedback.is_released().then_some(StreamEnd::Stopped)
    }

    /// Confirms the position that is stored: no other is reported.
    fn confirm(&mut self, feedback: &mut Feedback) {
        if let Some(confirmed) = feedback.reportable() {
            self.stream.confirm(confirmed);
        }
    }

    fn report(&mut self, feedback: &mut Feedback, now: Instant) {
        self.confirm(feedback);
        if let Some(wants_answer) = feedback.to_report(now) {
            self.stream.queue_status(wants_answer);
        }
    }

    fn handle(
        &mut self,
        event: KeeperEvent,
        phase: &mut Phase,
        feedback: &mut Feedback,
        now: Instant,
    ) -> Result<(), Error> {
        match event {
            KeeperEvent::Stored(Persist { confirmed, is_last, .. }) => {
                feedback.persisted(confirmed);
                if is_last {
                    feedback.released(confirmed);
                }
            }
            KeeperEvent::Skipped => feedback.skipped(),
            KeeperEvent::ServerShutdown if matches!(phase, Phase::Parking(_)) => {}
            // Also while the relay stops: the server waits for it, and stores nothing any more.
            KeeperEvent::ServerShutdown => *phase = self.begin_park(now),
            KeeperEvent::Broken(error) => return Err(error.into()),
            KeeperEvent::Synchronous(names) => return Err(Error::Synchronous { names }),
            KeeperEvent::Ended => return Err(Error::Thread(std::io::Error::other("the keeper thread ended"))),
            KeeperEvent::Uncovered(error) => return Err(*error),
        }
        Ok(())
    }

    /// Starts no further transaction: the relay is stopped.
    fn begin_to_drain(&mut self, now: Instant) -> Phase {
        tracing::info!(in_flight = self.held.pipeline.ledger().records(), "draining");
        self.metrics.enter(State::Draining);
        self.held.pipeline.stop();
        Phase::Draining(now + self.drain)
    }

    /// Stops reading: the server is shutting down and waits for the relay.
    fn begin_park(&self, now: Instant) -> Phase {
        tracing::info!(in_flight = self.held.pipeline.ledger().records(), "server shutdown: disconnecting");
        self.metrics.enter(State::SourceReconnecting);
        Phase::Parking(now + PARK_GRACE)
    }

    /// Ends the stream in order. Within a transaction the server sends the rest of it before it handles CopyDone: then
    /// only the last position is reported, without waiting for a reply.
    async fn leave(self, end: StreamEnd, has_failed: bool) -> Result<StreamEnd, Error> {
        if end == StreamEnd::Stopped {
            self.metrics.flushed_lsn.set(self.stream.position().to_wire());
            let ended = if has_failed && self.held.pipeline.is_within_transaction() {
                self.stream.abandon(FINISH_LIMIT).await
            } else {
                self.stream.finish(FINISH_LIMIT).await
            };
            ended.map_err(Error::postgres("end replication"))?;
        }
        Ok(end)
    }
}
