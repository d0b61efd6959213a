//! The outbox table to Kafka, by queries, for databases where the right to replicate is refused.
//!
//! ```text
//!   BEGIN -> claim buckets -> lock and read rows -> row -> route -> outlet --> Kafka
//!                                   |                                |
//!   COMMIT <----- mark as published <------ all of them delivered <--+
//! ```
//!
//! A row that is not marked as published is an event that may be missing in Kafka; there is no other memory, and none of a
//! number that was seen last. Invariants:
//!
//! - **Nothing lost.** A row is marked only after the delivery report of its own record, in the transaction that has held
//!   it since it was read. If that transaction ends in any other way, the row is published again.
//! - **Order.** A key belongs to one bucket, a bucket to one transaction, and of a key no row goes while an earlier one is
//!   unpublished elsewhere. Earlier is by `sequence`. That is the order of commits if, and only if, the application takes a
//!   lock for the key before it inserts and holds it until it commits, and the sequence hands out its numbers one by one.
//! - **Never in the database's way.** A transaction lasts no longer than `batch_timeout`: then the producer is dropped,
//!   what it still had is purged, and PostgreSQL is let go of until Kafka answers.
//! - **Let go in this order.** The producer goes before the buckets: whoever claims them next finds nothing on the way, as
//!   far as a client can know.
//!
//! - **No order but one.** Numbers that are no order any more (a sequence that has started over behind its rows, two rows of a
//!   key with one number) stop the relay before anything of them is published.
//! - **Nobody's session.** Nothing is left behind on a session: a pooler may give it to somebody else after each transaction.
//!
//! `sweep`, `choice`, `numbers`, `sql` and `outlet` decide; `source`, `turn` and `verify` ask. What is inserted and deleted by one
//! transaction is not seen, and rows of several tables have no common order: the log source is better at both.

mod batch_publisher;
pub(super) mod error;
pub(super) mod grants;
mod interval;
mod numbers;
pub(super) mod outbox;
mod outlet;
mod selection;
mod source;
pub(super) mod sql;
mod sweep;
mod value;
pub(super) mod verify;

use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::lsn::Lsn;
use crate::relay::error::Error as RelayError;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::postgres;
use crate::relay::postgres::Target;
use crate::relay::publish;
use crate::relay::publish::Failure;
use crate::relay::publish::Verdict;
use crate::relay::record::route::Scratch;
use crate::relay::retry::recovery::Recovery;
use crate::relay::retry::stalls::Stalls;
use crate::relay::settings::Settings;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::chain;

use batch_publisher::BatchPublisher;
use batch_publisher::BatchRun;
use batch_publisher::PollEnd;
pub use error::Error;
use interval::PollInterval;
use outbox::Outbox;
use outbox::outboxes;
use selection::BatchSize;
use source::Source;
use sweep::Sweep;

/// The server ends a transaction that is left alone for so much longer than it may take.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// For so long the rest is published after a row that cannot be; then the relay ends, or nobody would notice while rows keep coming.
const HALT_AFTER: Duration = Duration::from_secs(30);
/// How long the server may take to show what the tables are.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked how much is unpublished.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What is remembered of an outbox from one transaction to the next.
struct TableState {
    outbox: Outbox,
    sweep: Sweep,
    batch_size: BatchSize,
    scratch: Scratch,
    /// Rows up to this one are published one at a time: one of them was refused among others.
    cautious_until: Option<i64>,
    /// Such a row was met in this sweep.
    saw_cautious: bool,
    /// Rows that cannot be published, if there are any.
    halt: Option<Halt>,
    /// How many percent of its numbers a sequence had used when that was told of last.
    warned_percent: u64,
}

/// Rows that a person must look at: the first of them ends the relay, once what is not behind one of them has gone.
struct Halt {
    error: RelayError,
    /// Buckets of keys that wait for a person.
    buckets: Vec<i32>,
    since: Instant,
}

struct Poller {
    settings: Settings,
    target: Target,
    metrics: Metrics,
    stop: CancellationToken,
    states: Vec<TableState>,
    publisher: BatchPublisher,
    stalls: Stalls,
}

/// What follows a connection.
enum PollStep {
    Over,
    Again,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
    Pause,
}

pub(super) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), RelayError> {
    let target = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres("read the configuration"))?;
    let budget = settings.delivery.max_in_flight_bytes;
    let kafka = publish::Settings::new(settings.kafka.clone(), settings.relay.name.clone(), budget);
    // Mistakes in the options are told now, not after the servers have come up.
    kafka.client()?;
    metrics.max_in_flight_bytes.set(budget);
    let seed = now_micros() ^ u64::from(std::process::id());
    let state = |outbox| TableState {
        outbox,
        sweep: Sweep::starting_at(seed),
        // Half for the rows in hand, half for their records on the way.
        batch_size: BatchSize::new(settings.source.poll.max_batch_rows, budget / 2),
        scratch: Scratch::default(),
        cautious_until: None,
        saw_cautious: false,
        halt: None,
        warned_percent: 0,
    };
    let recovery = Recovery::new(kafka, metrics.clone(), stop.clone());
    let mut poller = Poller {
        states: outboxes(&settings)?.into_iter().map(state).collect(),
        publisher: BatchPublisher::new(recovery, &settings, metrics.clone(), stop.clone()),
        target,
        metrics,
        stop,
        settings,
        stalls: Stalls::default(),
    };
    let ended = Box::pin(poller.supervise()).await;
    poller.metrics.enter(State::Stopped);
    ended
}

impl Poller {
    async fn supervise(&mut self) -> Result<(), RelayError> {
        let mut next = PollStep::AwaitKafka(Duration::ZERO);
        loop {
            match next {
                // What was in hand is unpublished again, and nobody waits for it.
                PollStep::Over => return self.publisher.stopped(),
                _ if self.stop.is_cancelled() => return self.publisher.stopped(),
                PollStep::AwaitKafka(pause) => {
                    self.await_kafka(pause).await?;
                    next = PollStep::Again;
                }
                PollStep::Pause => {
                    let pause = self.publisher.recovery.next_backoff();
                    self.publisher.recovery.pause(pause).await;
                    next = PollStep::Again;
                }
                PollStep::Again => {
                    self.publisher.await_answers().await;
                    let began = Instant::now();
                    let ended = Box::pin(self.connect_and_poll()).await;
                    self.metrics.postgres.lost(ended.as_ref().map_or(Loss::Failed, |_| Loss::Disconnected));
                    self.publisher.recovery.connection_lasted(began.elapsed());
                    next = self.after(ended)?;
                }
            }
        }
    }

    /// Pauses, then waits for Kafka. Meanwhile it is looked whether the tables could be polled.
    async fn await_kafka(&mut self, pause: Duration) -> Result<(), RelayError> {
        let (recovery, target, settings, states) =
            (&mut self.publisher.recovery, &self.target, &self.settings, &self.states);
        recovery.pause(pause).await;
        recovery.await_kafka(async || open(target, settings, states).await.map(drop)).await
    }

    async fn connect_and_poll(&mut self) -> Result<PollEnd, RelayError> {
        let opened = open(&self.target, &self.settings, &self.states);
        let opened = self.publisher.recovery.tick_during(opened);
        let mut source = tokio::select! {
            opened = opened => opened?,
            () = self.stop.cancelled() => return Ok(PollEnd::Stopped),
        };
        self.publisher.recovery.connected();
        self.publisher.ready()?;
        tracing::info!(tables = source.tables.len(), "polling");
        self.metrics.postgres.connected();
        self.metrics.enter(State::Streaming);
        let ended = Box::pin(self.poll(&mut source)).await;
        // Before the connection and its locks: whoever takes over must find nothing on the way.
        self.publisher.drop_unacked();
        drop(source);
        ended
    }

    /// Sweeps over all outboxes, again and again; at once while there is more, else after a while.
    async fn poll(&mut self, source: &mut Source) -> Result<PollEnd, RelayError> {
        let mut looked: Option<Instant> = None;
        let mut interval = PollInterval::new(self.settings.source.poll.interval);
        loop {
            if let Some(failure) = self.publisher.failure() {
                return Ok(PollEnd::SinkFailed { failure, was_alone: false });
            }
            let (mut has_more, marked) = (false, self.publisher.marked());
            for (index, state) in self.states.iter_mut().enumerate() {
                state.begin_sweep();
                while state.sweep.is_under_way() {
                    if self.stop.is_cancelled() {
                        return Ok(PollEnd::Stopped);
                    }
                    match Box::pin(self.publisher.run_batch(source, index, state)).await? {
                        BatchRun::Over { is_full } => has_more |= is_full,
                        BatchRun::Abandoned(end) => return Ok(end),
                    }
                }
                state.end_sweep();
            }
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
                looked = Some(Instant::now());
                self.publisher.look(source, &mut self.states).await?;
            }
            // What a row that cannot be published does not hold back has gone, or takes too long to go.
            let is_over = |halt: &mut Halt| !has_more || halt.since.elapsed() > HALT_AFTER;
            if let Some(halt) = self.states.iter_mut().find_map(|state| state.halt.take_if(is_over)) {
                return Err(halt.error);
            }
            if has_more {
                continue;
            }
            self.publisher.has_caught_up();
            let pause = self.publisher.recovery.pause(interval.after(self.publisher.marked() > marked));
            tokio::select! {
                biased;
                error = &mut source.ended => return Err(batch_publisher::closed(error)),
                () = pause => {}
            }
        }
    }

    fn after(&mut self, ended: Result<PollEnd, RelayError>) -> Result<PollStep, RelayError> {
        match ended {
            Ok(PollEnd::Stopped) => Ok(PollStep::Over),
            Ok(PollEnd::Stalled) => {
                self.metrics.kafka.lost(Loss::Stalled);
                tracing::warn!(code = "WR-6933", "Kafka takes nothing: letting go of PostgreSQL until it does");
                self.metrics.enter(State::SinkBlocked);
                // Rows that arrived come again with their batch: the less often, the longer nothing is marked.
                let marked = Lsn::from_wire(self.publisher.marked());
                Ok(PollStep::AwaitKafka(self.stalls.pause(marked, self.settings.source.poll.batch_timeout)))
            }
            Ok(PollEnd::SinkFailed { failure, was_alone }) => self.after_failure(failure, was_alone),
            Err(error) => {
                self.publisher.recovery.classify(error)?;
                self.metrics.enter(State::SourceReconnecting);
                Ok(PollStep::Pause)
            }
        }
    }

    /// A record failed, or its producer did.
    fn after_failure(&mut self, failure: Failure, was_alone: bool) -> Result<PollStep, RelayError> {
        match failure.verdict {
            // A permanent error fails a whole batch: only alone is a record known to be the culprit.
            Verdict::Record if !was_alone => {
                self.publisher.recovery.batch_refused(&failure);
                Ok(PollStep::Again)
            }
            Verdict::Record | Verdict::Topic => Err(failure.into()),
            Verdict::Rights | Verdict::Transient => {
                self.metrics.enter(State::SinkBlocked);
                let is_about_brokers = failure.verdict == Verdict::Transient;
                self.publisher.recovery.learn(&failure);
                self.publisher.recovery.report(&failure.into());
                Ok(if is_about_brokers {
                    PollStep::AwaitKafka(self.publisher.recovery.next_backoff())
                } else {
                    PollStep::Pause
                })
            }
        }
    }
}

/// Connects, and verifies every table. Nothing is locked and nothing is written.
async fn open(target: &Target, settings: &Settings, states: &[TableState]) -> Result<Source, RelayError> {
    let ordinary = postgres::connect_shared(target, &settings.postgres, &settings.relay.name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL"))?;
    let outboxes: Vec<Outbox> = states.iter().map(|state| state.outbox.clone()).collect();
    let idle_limit = settings.source.poll.batch_timeout + IDLE_GRACE;
    let begin = sql::begin(idle_limit, ordinary.stores_any_bytes);
    let client = &ordinary.client;
    let verified = async {
        client.batch_execute(&begin).await.map_err(RelayError::postgres("read the catalog"))?;
        let mut found = Vec::new();
        for outbox in &outboxes {
            found.push(verify::verify(client, outbox).await?);
        }
        client.batch_execute("COMMIT").await.map_err(RelayError::postgres("read the catalog"))?;
        Ok(found)
    };
    let late =
        RelayError::Postgres { action: "read the catalog", source: postgres::Error::NoAnswer { limit: OPEN_LIMIT } };
    let found = tokio::time::timeout(OPEN_LIMIT, verified).await.unwrap_or(Err(late))?;
    Ok(Source::new(ordinary, begin, found))
}

impl TableState {
    fn begin_sweep(&mut self) {
        self.sweep.begin();
        self.saw_cautious = false;
    }

    fn end_sweep(&mut self) {
        if !self.saw_cautious {
            self.cautious_until = None;
        }
    }

    /// Sets the keys of a bucket aside, for a row that cannot be published is among them.
    fn set_aside(&mut self, bucket: i32, error: RelayError) {
        tracing::warn!(
            code = %error.code(), error = chain(&error),
            "a row cannot be published: stopping once the rows of other keys are published"
        );
        let halt = self.halt.get_or_insert_with(|| Halt { error, buckets: Vec::new(), since: Instant::now() });
        halt.buckets.push(bucket);
    }

    /// Gives the buckets to try next.
    fn candidates(&self) -> Vec<i32> {
        let mut candidates = self.sweep.candidates();
        candidates.retain(|bucket| self.halt.as_ref().is_none_or(|halt| !halt.buckets.contains(bucket)));
        candidates
    }

    /// Says whether this row is published alone.
    fn is_cautious(&mut self, sequence: i64) -> bool {
        let is_cautious = self.cautious_until.is_some_and(|until| sequence <= until);
        self.saw_cautious |= is_cautious;
        is_cautious
    }
}
