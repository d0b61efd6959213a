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

use crate::relay::error::Error;
use crate::relay::metrics::Cause;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::pipeline::Pipeline;
use crate::relay::pipeline::Ran;
use crate::relay::pipeline::Stopped;
use crate::relay::postgres;
use crate::relay::postgres::ServerError;
use crate::relay::postgres::Stream;
use crate::relay::publish;
use crate::relay::publish::Publisher;
use crate::relay::publish::Stalled;
use crate::relay::stream::coalesce::Coalesce;
use crate::relay::stream::feedback::Feedback;
use crate::relay::stream::feedback::Pace;
use crate::relay::stream::feedback::Persist;
use crate::relay::stream::keeper::Keeper;
use crate::relay::stream::keeper::News;
use crate::relay::stream::noting::Noting;
use crate::relay::stream::stall_report::StallReport;
use crate::relay::stream::stall_report::Unproven;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// How long records on the way may still arrive once the server is shutting down. It waits for us meanwhile.
const PARK_GRACE: Duration = Duration::from_secs(2);
/// How long the orderly end of the stream may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long it may take to store that the stored position is the last one.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// Why a connection ended that need not have failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::relay) enum Left {
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
pub(in crate::relay) struct Held {
    pub(in crate::relay) pipeline: Pipeline,
    pub(in crate::relay) publisher: Publisher,
}

/// One connection and everything it needs.
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
    pub(in crate::relay) noting: Noting<'a>,
    /// Why the relay must stop, once what was read has arrived.
    pub(in crate::relay) failed: Option<Error>,
    /// Before this moment nothing is read, and so nothing published; none once it has passed.
    pub(in crate::relay) publishes_from: Option<Instant>,
    /// Kafka took nothing before, and nothing shows yet that it does.
    pub(in crate::relay) unproven: Option<Unproven>,
    /// Kafka is in doubt from one connection to the next, until something was delivered.
    pub(in crate::relay) in_doubt: &'a mut bool,
    /// A relay before us may have requests at the brokers, until we publish.
    pub(in crate::relay) follows_another: &'a mut bool,
    pub(in crate::relay) stalls: &'a mut StallReport,
}

/// How a walk over the buffer ended, with nothing borrowed from it.
enum Walked {
    /// All whole frames are taken; the next one needs so many bytes, if that is known.
    Needs(usize),
    /// Nothing more is taken for now.
    Held(Cause),
    /// The server ends the stream.
    Over(postgres::Error),
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
    /// Runs until the connection must be left. The reason to stop outlives whatever goes wrong while stopping; only a
    /// producer that failed comes first, since it speaks of earlier events.
    pub(in crate::relay) async fn run(mut self) -> Result<Left, Error> {
        let ended = self.follow().await;
        let failed = self.failed.take();
        if let Ok(left @ Left::SinkFailed) = ended {
            return Ok(left);
        }
        let ended = match ended {
            Ok(left) => self.leave(left, failed.is_some()).await,
            Err(error) => Err(error),
        };
        match (failed, ended) {
            (Some(failed), Ok(_)) => Err(failed),
            (Some(failed), Err(error)) => {
                tracing::info!(error = chain(&error), "the connection ended before the orderly stop");
                Err(failed)
            }
            (None, ended) => ended,
        }
    }

    async fn follow(&mut self) -> Result<Left, Error> {
        let start = Instant::now();
        let mut feedback = Feedback::new(self.pace, self.held.pipeline.confirmation(), start);
        let mut coalesce = Coalesce::new(start);
        let mut phase = Phase::Flowing;
        let mut full: Option<(Cause, Instant)> = None;
        // What an earlier connection left in the pipeline's hands is walked before anything is read.
        loop {
            let now = Instant::now();
            self.begin_to_publish(now);
            self.settle(&mut feedback, now);
            if self.held.publisher.failure().is_some() {
                return Ok(Left::SinkFailed);
            }
            if let Some(left) = self.advance(&mut phase, &mut feedback, now)? {
                // Nothing is reported that is not stored.
                if left == Left::Stopped
                    && let Some(stored) = feedback.reportable()
                {
                    self.stream.confirm(stored);
                }
                return Ok(left);
            }
            self.report(&mut feedback, now);
            if phase == Phase::Flowing {
                if feedback.is_stalled(now) {
                    return Ok(Left::Stalled);
                }
                self.report_the_sink(feedback.is_blocked(now));
            }
            let reads = full.is_none() && self.publishes_from.is_none() && self.listens(phase);
            if !reads {
                feedback.not_listening(now);
            }
            if feedback.is_silent(now) {
                return Err(Error::Silent { limit: self.pace.silence_max });
            }
            if feedback.is_storm() && matches!(phase, Phase::Flowing | Phase::Draining(_)) {
                phase = self.park(now);
            }
            if self.noting.is_due(now) {
                self.noting.note(&self.held.pipeline, self.stream.position(), now);
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

    fn begin_to_publish(&mut self, now: Instant) {
        if self.publishes_from.is_some_and(|from| now >= from) {
            self.publishes_from = None;
            *self.follows_another = false;
            self.metrics.enter(if self.unproven.is_none() { State::Streaming } else { State::SinkBlocked });
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
            Err(error @ (Error::Pipeline(_) | Error::Raised { .. }))
                if error.fate() == Fate::Fatal && matches!(phase, Phase::Flowing | Phase::Draining(_)) =>
            {
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
                Stopped::Ended => Walked::Over(postgres::Error::Closed),
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
                Walked::Over(source @ postgres::Error::Server(_)) => {
                    let ((at, row), slot) = (pipeline.stands_at(), self.slot.to_owned());
                    return Err(Error::Raised { at, row, slot, is_again: false, source: Box::new(source) });
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
            // Nothing was published: what the row says of the relay before us stays.
            Phase::Draining(_) if self.publishes_from.is_some() => Ok(Some(Left::Stopped)),
            Phase::Draining(until) | Phase::Clearing(until) if self.has_arrived(*phase) => {
                // The last acknowledgement may have come after the settling of this round.
                self.settle(feedback, now);
                *phase = Phase::Storing(if feedback.is_persisted() { until.min(now + RELEASE_LIMIT) } else { until });
                Ok(self.store_last(feedback))
            }
            Phase::Storing(until) if now < until => Ok(self.store_last(feedback)),
            // Only that it is the last one is not stored.
            Phase::Storing(_) if feedback.is_persisted() => Ok(Some(Left::Stopped)),
            Phase::Draining(until) | Phase::Clearing(until) | Phase::Storing(until) if now >= until => {
                let (records, is_open) = (pipeline.ledger().records(), pipeline.is_within_transaction());
                Err(Error::undrained(records, is_open, self.drain))
            }
            Phase::Parking(until) => {
                let has_arrived = self.has_arrived(*phase);
                let left = if has_arrived { Left::ServerLeaves } else { Left::ServerLeavesAhead };
                Ok((has_arrived || now >= until).then_some(left))
            }
            Phase::Flowing | Phase::Draining(_) | Phase::Clearing(_) | Phase::Storing(_) => Ok(None),
        }
    }

    /// Stores the last position, and says to leave once that is done.
    fn store_last(&self, feedback: &mut Feedback) -> Option<Left> {
        if let Some(persist) = feedback.to_persist_last() {
            self.keeper.store(persist);
        }
        feedback.is_released().then_some(Left::Stopped)
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
        if let Some(stored) = feedback.reportable() {
            self.stream.confirm(stored);
        }
        if let Some(wants_answer) = feedback.to_report(now) {
            self.stream.queue_status(wants_answer);
        }
    }

    fn hear(&mut self, news: News, phase: &mut Phase, feedback: &mut Feedback, now: Instant) -> Result<(), Error> {
        match news {
            News::Stored(Persist { confirmed, is_last, .. }) => {
                feedback.persisted(confirmed);
                if is_last {
                    feedback.released(confirmed);
                }
            }
            News::PassedOver => feedback.passed_over(),
            News::ServerLeaves if matches!(phase, Phase::Parking(_)) => {}
            // Also in the middle of a stop of ours: the server waits for us, and stores nothing any more.
            News::ServerLeaves => *phase = self.park(now),
            News::Broken(error) => return Err(error.into()),
            News::Synchronous(names) => return Err(Error::Synchronous { names }),
            News::Ended => return Err(Error::Thread(std::io::Error::other("the keeper ended"))),
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

    /// Says when Kafka acknowledges nothing and why, and when it does again. PostgreSQL is let go only later, or by option never.
    fn report_the_sink(&mut self, has_stalled: bool) {
        let waiting = self.held.publisher.waiting();
        let lacks_topic = waiting.as_ref().is_some_and(|waiting| waiting.cause == publish::Cause::NoTopic);
        self.unproven = self.unproven.filter(|unproven| !unproven.is_proven(&self.held.pipeline));
        let was_blocked = self.metrics.state.load() == State::SinkBlocked;
        if has_stalled || lacks_topic {
            let stalled = Stalled { waiting };
            *self.in_doubt = true;
            if !was_blocked {
                self.metrics.kafka.lost(Loss::Stalled);
                self.metrics.enter(State::SinkBlocked);
            }
            self.stalls.report(stalled, self.metrics);
        } else if was_blocked && self.unproven.is_none() {
            tracing::info!("kafka delivery resumed");
            *self.in_doubt = false;
            self.stalls.over();
            self.metrics.kafka.connected();
            self.metrics.enter(State::Streaming);
        }
    }

    /// Ends the stream in order. In the middle of a transaction the server sends the rest before it looks at an end of ours:
    /// then it is told the last position, and no answer is waited for.
    async fn leave(self, left: Left, has_failed: bool) -> Result<Left, Error> {
        if left == Left::Stopped {
            self.metrics.flushed_lsn.set(self.stream.position().to_wire());
            let ended = if has_failed && self.held.pipeline.is_within_transaction() {
                self.stream.abandon(GOODBYE).await
            } else {
                self.stream.finish(GOODBYE).await
            };
            ended.map_err(Error::wal("end the stream"))?;
        }
        Ok(left)
    }

    fn deadline(&self, phase: Phase, feedback: &Feedback) -> Instant {
        let noting = self.noting.due();
        match phase {
            Phase::Flowing => {
                let due = feedback.deadline().min(noting);
                self.publishes_from.map_or(due, |from| due.min(from))
            }
            Phase::Draining(until) | Phase::Clearing(until) => feedback.deadline().min(noting).min(until),
            // Nothing more is stored as it comes.
            Phase::Storing(until) | Phase::Parking(until) => feedback.report_due().min(noting).min(until),
        }
    }
}
