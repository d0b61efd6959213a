//! The loop over one replication connection.
//!
//! Leave, settle, keep time, and only then take on more work: all of it that is already here. Reads and writes may be given
//! up at any await without losing a byte. The frames of a buffer are walked to completion between two awaits, so a status
//! is never later than one buffer takes.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::relay::Error;
use crate::relay::coalesce::Coalesce;
use crate::relay::feedback::Feedback;
use crate::relay::feedback::Pace;
use crate::relay::feedback::Persist;
use crate::relay::keeper::Keeper;
use crate::relay::keeper::News;
use crate::relay::metrics::Cause;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::noting::Noting;
use crate::relay::pipeline::Pipeline;
use crate::relay::pipeline::Ran;
use crate::relay::pipeline::Stopped;
use crate::relay::publish::Publisher;
use crate::relay::wal;
use crate::relay::wal::ServerError;
use crate::relay::wal::Stream;

/// How long records on the way may still arrive once the server is shutting down. It waits for us meanwhile.
const PARK_GRACE: Duration = Duration::from_secs(2);
/// How long the orderly end of the stream may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// A position that waits this long to be stored is told of.
const PERSIST_ALARM: Duration = Duration::from_secs(10);

/// Why a connection ended that need not have failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// A stop was asked for, and everything is delivered and confirmed.
    Stopped,
    /// A stop was asked for before events flowed.
    StoppedBefore,
    /// The server is shutting down; everything on the way has arrived.
    ServerLeaves,
    /// The server is shutting down, and records are still on the way.
    ServerLeavesAhead,
    /// Kafka has made no progress for too long.
    Stalled,
    /// A record failed, or the producer did: ask it why.
    SinkFailed,
}

/// What outlives a connection: as long as both live, what was handed over is not handed over again.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pipeline: Pipeline,
    pub(super) publisher: Publisher,
}

/// One connection and everything it needs.
pub(super) struct Follow<'a> {
    pub(super) stream: Stream,
    pub(super) held: &'a mut Held,
    pub(super) keeper: Keeper,
    pub(super) pace: Pace,
    pub(super) drain: Duration,
    pub(super) wake: Arc<Notify>,
    pub(super) metrics: &'a Metrics,
    pub(super) stop: &'a CancellationToken,
    pub(super) noting: Noting<'a>,
    /// Why the relay must stop, once what was read has arrived.
    pub(super) failed: Option<Error>,
}

/// How a walk over the buffer ended, with nothing borrowed from it.
enum Walked {
    /// All whole frames are taken; the next one needs so many bytes, if that is known.
    Needs(usize),
    /// Nothing more is taken for now.
    Held(Cause),
    /// The server ends the stream.
    Over(wal::Error),
}

/// What the loop is doing besides reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Events flow.
    Flowing,
    /// A stop was asked for; it must be over at this time.
    Draining(Instant),
    /// An event cannot be published: what was read before it may arrive until this time.
    Clearing(Instant),
    /// The exact last position is being stored.
    Storing(Instant),
    /// The server is shutting down; records on the way may arrive until this time.
    Parking(Instant),
}

impl Follow<'_> {
    /// Runs until the connection must be left.
    pub(super) async fn run(mut self) -> Result<Left, Error> {
        let start = Instant::now();
        let mut feedback = Feedback::new(self.pace, self.held.pipeline.confirmation(), start);
        let mut coalesce = Coalesce::new(start);
        let mut phase = Phase::Flowing;
        let mut full: Option<(Cause, Instant)> = None;
        // What an earlier connection left in the pipeline's hands is walked before anything is read.
        loop {
            let now = Instant::now();
            self.settle(&mut feedback, now);
            if self.held.publisher.failure().is_some() {
                return Ok(Left::SinkFailed);
            }
            if let Some(left) = self.advance(&mut phase, &mut feedback, now)? {
                let failed = self.failed.take();
                let left = self.leave(left).await?;
                return failed.map_or(Ok(left), Err);
            }
            self.report(&mut feedback, now);
            if phase == Phase::Flowing {
                if feedback.is_stalled(now) {
                    return Ok(Left::Stalled);
                }
                self.tell_of_the_sink(feedback.is_blocked(now));
            }
            let reads = full.is_none() && self.listens(phase);
            if !reads {
                feedback.not_listening(now);
            }
            if feedback.is_silent(now) {
                return Err(Error::Silent { limit: self.pace.wal_sender_timeout });
            }
            if feedback.is_storm() && matches!(phase, Phase::Flowing | Phase::Draining(_)) {
                phase = self.park(now);
            }
            if self.noting.is_due(now) {
                self.noting.note(&self.held.pipeline, self.stream.position(), now);
                if feedback.persist_waits(now) > PERSIST_ALARM {
                    tracing::warn!(code = "WR-7101", "the confirmed position has been waiting to be stored for 10 s");
                }
            }

            let deadline = self.deadline(phase, &feedback);
            if full.is_none() && !reads {
                self.held.pipeline.ledger().await_all();
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if phase == Phase::Flowing => phase = self.begin_to_drain(now),
                news = self.keeper.news() => self.hear(news, &mut phase, &mut feedback, now)?,
                () = self.wake.notified() => {
                    if let Some((cause, since)) = full.take() {
                        self.metrics.held_back(cause, since.elapsed());
                        full = self.walk(&mut phase, &mut feedback)?;
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
                read = self.stream.exchange(reads) => {
                    let read = read.map_err(Error::wal("follow the log"))?;
                    if read > 0 {
                        let now = Instant::now();
                        feedback.received(now);
                        full = self.walk(&mut phase, &mut feedback)?;
                        if let Some(moment) = coalesce.after_read(read, now) {
                            // This thread has nothing else to do: a timer of the runtime is a hundred times coarser.
                            thread::sleep(moment);
                        }
                    }
                }
            }
        }
    }

    /// Says whether there is anything to read for.
    fn listens(&self, phase: Phase) -> bool {
        match phase {
            Phase::Flowing | Phase::Draining(_) => !self.held.pipeline.is_at_border(),
            Phase::Clearing(_) | Phase::Storing(_) | Phase::Parking(_) => false,
        }
    }

    /// Walks on. At an event that cannot be published nothing more is read, and what comes before it may still arrive.
    fn walk(&mut self, phase: &mut Phase, feedback: &mut Feedback) -> Result<Option<(Cause, Instant)>, Error> {
        match self.walk_buffer(feedback) {
            Err(error @ Error::Pipeline(_)) if matches!(phase, Phase::Flowing | Phase::Draining(_)) => {
                tracing::info!(
                    on_the_way = self.held.pipeline.ledger().records(),
                    "stopping: what was read may arrive"
                );
                self.metrics.enter(State::Draining);
                self.failed = Some(error);
                *phase = Phase::Clearing(Instant::now() + self.drain);
                Ok(None)
            }
            walked => walked,
        }
    }

    /// Walks every whole frame of the buffer. Tells why and since when the log is not read, if nothing more is taken.
    fn walk_buffer(&mut self, feedback: &mut Feedback) -> Result<Option<(Cause, Instant)>, Error> {
        loop {
            let Held { pipeline, publisher } = &mut *self.held;
            let Ran { used, stopped } = pipeline.run(self.stream.buffer(), publisher)?;
            let walked = match stopped {
                Stopped::Drained(needs) => Walked::Needs(needs),
                Stopped::Full => Walked::Held(Cause::Inflight),
                Stopped::SinkFull => Walked::Held(Cause::Kafka),
                Stopped::SinkBroken | Stopped::AtBorder => Walked::Needs(0),
                Stopped::ServerError(fields) => Walked::Over(ServerError::parse(fields).into()),
                Stopped::Ended => Walked::Over(wal::Error::Closed),
            };
            self.stream.consume(used);
            if pipeline.take_reply_request() {
                feedback.asked(Instant::now());
            }
            let cause = match walked {
                Walked::Needs(0) => return Ok(None),
                Walked::Needs(bytes) => {
                    self.stream.make_room(bytes).map_err(Error::wal("make room for a row"))?;
                    return Ok(None);
                }
                Walked::Over(source) => return Err(Error::Wal { action: "follow the log", source }),
                Walked::Held(cause) => cause,
            };
            // Unless half has arrived in the meantime, wait to be woken.
            if !pipeline.ledger().await_half() || pipeline.ledger().is_poisoned() {
                return Ok(Some((cause, Instant::now())));
            }
            pipeline.confirmation();
        }
    }

    fn settle(&mut self, feedback: &mut Feedback, now: Instant) {
        let pipeline = &mut self.held.pipeline;
        let confirmed = pipeline.confirmation();
        let delivered = pipeline.reports().left_records();
        feedback.settled(confirmed, delivered, pipeline.ledger().records() > 0, now);
    }

    /// Moves from phase to phase. Says when the connection is to be left.
    fn advance(&mut self, phase: &mut Phase, feedback: &mut Feedback, now: Instant) -> Result<Option<Left>, Error> {
        if matches!(phase, Phase::Flowing | Phase::Draining(_) | Phase::Clearing(_))
            && let Some(persist) = feedback.to_persist(now)
        {
            self.keeper.store(persist);
        }
        let pipeline = &self.held.pipeline;
        match *phase {
            Phase::Draining(until) | Phase::Clearing(until) if self.has_arrived(*phase) => {
                let Some(persist) = feedback.exact() else { return Ok(Some(Left::Stopped)) };
                self.keeper.store(persist);
                *phase = Phase::Storing(until);
                Ok(None)
            }
            Phase::Storing(_) if feedback.exact().is_none() => Ok(Some(Left::Stopped)),
            Phase::Draining(until) | Phase::Clearing(until) | Phase::Storing(until) if now >= until => {
                let records = pipeline.ledger().records();
                Err(self.failed.take().unwrap_or(Error::DrainTimeout { records, limit: self.drain }))
            }
            Phase::Parking(until) => {
                let has_arrived = self.has_arrived(*phase);
                let left = if has_arrived { Left::ServerLeaves } else { Left::ServerLeavesAhead };
                Ok((has_arrived || now >= until).then_some(left))
            }
            Phase::Flowing | Phase::Draining(_) | Phase::Clearing(_) | Phase::Storing(_) => Ok(None),
        }
    }

    /// Says whether everything has arrived that is waited for before the end.
    fn has_arrived(&self, phase: Phase) -> bool {
        let pipeline = &self.held.pipeline;
        match phase {
            Phase::Draining(_) => pipeline.is_at_border() && pipeline.is_drained(),
            Phase::Clearing(_) | Phase::Parking(_) => pipeline.ledger().records() == 0,
            Phase::Flowing | Phase::Storing(_) => false,
        }
    }

    fn report(&mut self, feedback: &mut Feedback, now: Instant) {
        if let Some(confirmed) = feedback.reportable() {
            self.stream.confirm(confirmed);
        }
        if let Some(wants_answer) = feedback.to_report(now) {
            self.stream.queue_status(wants_answer);
        }
    }

    fn hear(&mut self, news: News, phase: &mut Phase, feedback: &mut Feedback, now: Instant) -> Result<(), Error> {
        match news {
            News::Stored(Persist { confirmed, .. }) => feedback.persisted(confirmed),
            News::PassedOver => feedback.passed_over(),
            News::ServerLeaves if matches!(phase, Phase::Parking(_)) => {}
            // Also in the middle of a stop of ours: the server waits for us, and stores nothing any more.
            News::ServerLeaves => *phase = self.park(now),
            News::Broken(error) => return Err(error.into()),
            News::Uncovered(error) => return Err(*error),
        }
        Ok(())
    }

    /// Takes no new transaction on: a stop was asked for.
    fn begin_to_drain(&mut self, now: Instant) -> Phase {
        tracing::info!(on_the_way = self.held.pipeline.ledger().records(), "stopping: draining");
        self.metrics.enter(State::Draining);
        self.held.pipeline.stop();
        Phase::Draining(now + self.drain)
    }

    /// Stops reading: the server is shutting down and waits for us.
    fn park(&self, now: Instant) -> Phase {
        tracing::info!(on_the_way = self.held.pipeline.ledger().records(), "PostgreSQL is shutting down: letting go");
        self.metrics.enter(State::SourceReconnecting);
        Phase::Parking(now + PARK_GRACE)
    }

    /// Says when Kafka takes nothing, and when it does again. PostgreSQL is let go only later, or by option never.
    fn tell_of_the_sink(&self, is_blocked: bool) {
        let was_blocked = self.metrics.state.load() == State::SinkBlocked;
        if is_blocked && !was_blocked {
            tracing::warn!(code = "WR-6933", "Kafka has taken nothing for a while; the log waits");
            self.metrics.kafka.lost(Loss::Stalled);
            self.metrics.enter(State::SinkBlocked);
        } else if was_blocked && !is_blocked {
            tracing::info!("Kafka takes records again");
            self.metrics.kafka.connected();
            self.metrics.enter(State::Streaming);
        }
    }

    async fn leave(mut self, left: Left) -> Result<Left, Error> {
        if left == Left::Stopped {
            let feedback_position = self.held.pipeline.confirmation();
            self.stream.confirm(feedback_position);
            self.metrics.flushed_lsn.set(self.stream.position().to_wire());
            self.stream.finish(GOODBYE).await.map_err(Error::wal("end the stream"))?;
        }
        Ok(left)
    }

    fn deadline(&self, phase: Phase, feedback: &Feedback) -> Instant {
        let noting = self.noting.due();
        match phase {
            Phase::Flowing => feedback.deadline().min(noting),
            Phase::Draining(until) | Phase::Clearing(until) => feedback.deadline().min(noting).min(until),
            // Nothing more is stored as it comes.
            Phase::Storing(until) | Phase::Parking(until) => feedback.report_due().min(noting).min(until),
        }
    }
}
