//! Publishes the outbox table by queries, for roles without REPLICATION.
//!
//! ```text
//!   BEGIN -> claim buckets -> lock and read rows -> row -> route -> outlet --> Kafka
//!                                   |                                |
//!   COMMIT <----- mark as published <------ all acknowledged <-------+
//! ```
//!
//! A row that is not marked as published is an event that may be missing in Kafka. There is no other memory, in
//! particular no last sequence number. Invariants:
//!
//! - **Nothing lost.** A row is marked only after the acknowledgement of its own record, in the transaction that has
//!   locked it since it was read. If that transaction ends in any other way, the row is published again.
//! - **Order.** A key belongs to one bucket, a bucket to one transaction, and a row is not published while an earlier
//!   one of its key is unpublished elsewhere. Earlier means a lower `sequence`. That is the commit order if and only if
//!   the application locks the key before it inserts and until it commits, and the sequence assigns its numbers one by
//!   one.
//! - **The database is not held up.** A transaction lasts no longer than `batch_timeout`: then the producer is dropped,
//!   its queue is purged, and the relay disconnects from PostgreSQL until Kafka answers.
//! - **Producer before locks.** The producer is dropped before the buckets are released: the next owner finds no
//!   request in flight, as far as a client can know.
//! - **A valid order.** If the numbers are not an order any more (a reset sequence, two rows of a key with one number),
//!   the relay stops before it publishes any of those rows.
//! - **No session state.** Nothing is set on a session: a pooler may use another one for each transaction.
//!
//! `sweep`, `selection`, `numbers`, `sql` and `outlet` decide; `source`, `batch_publisher` and `verify` do I/O. A row
//! that is inserted and deleted by one transaction is not seen, and rows of several tables have no common order: mode
//! `wal` has neither limit.

mod batch_publisher;
mod end;
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
mod table;
mod table_state;
pub(super) mod unpublished;
mod value;
pub(super) mod verify;

use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::relay::error::Error as RelayError;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::postgres;
use crate::relay::postgres::Target;
use crate::relay::publish;
use crate::relay::retry::recovery::AfterFailure;
use crate::relay::retry::recovery::Recovery;
use crate::relay::retry::stalls::Stalls;
use crate::relay::settings::Settings;

use batch_publisher::BatchPublisher;
use end::BatchRun;
use end::PollEnd;
pub use error::Error;
use interval::PollInterval;
use outbox::Outbox;
use outbox::outboxes;
use selection::BatchSize;
use source::Source;
use table_state::Halt;
use table_state::TableState;

/// The server's timeout of an idle transaction is so much longer than the batch timeout.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// After a row that cannot be published, rows of other keys are published for at most so long, and then the relay ends.
const HALT_AFTER: Duration = Duration::from_secs(30);
/// The timeout of the check of the tables.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How often the unpublished rows are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

struct Poller {
    settings: Settings,
    target: Target,
    metrics: Metrics,
    stop: CancellationToken,
    states: Vec<TableState>,
    publisher: BatchPublisher,
    /// By the number of rows that were marked.
    stalls: Stalls<u64>,
}

/// What follows the end of a connection.
enum PollStep {
    Over,
    Again,
    /// Wait for Kafka, after a pause.
    AwaitKafka(Duration),
    Pause(Duration),
}

pub(super) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), RelayError> {
    let target = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres("read the configuration"))?;
    let budget = settings.delivery.max_in_flight_bytes;
    let kafka = publish::Settings::new(settings.kafka.clone(), settings.relay.name.clone(), budget);
    // Report mistakes in the options now, not after the servers are up.
    kafka.client()?;
    metrics.max_in_flight_bytes.set(budget);
    let seed = now_micros() ^ u64::from(std::process::id());
    // Half for the locked rows, half for their records in flight.
    let batch_size = BatchSize::new(settings.source.poll.max_batch_rows, budget / 2);
    let state = |outbox| TableState::new(outbox, seed, batch_size.clone());
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
                // The transaction is rolled back, and its rows are unpublished.
                PollStep::Over => return self.publisher.stopped(),
                _ if self.stop.is_cancelled() => return self.publisher.stopped(),
                PollStep::AwaitKafka(pause) => {
                    self.await_kafka(pause).await?;
                    next = PollStep::Again;
                }
                PollStep::Pause(pause) => {
                    self.publisher.recovery.pause(pause).await;
                    next = PollStep::Again;
                }
                PollStep::Again => {
                    self.publisher.await_retired().await;
                    let began = Instant::now();
                    let ended = Box::pin(self.connect_and_poll()).await;
                    self.metrics.postgres.lost(ended.as_ref().map_or(Loss::Failed, |_| Loss::Disconnected));
                    self.publisher.recovery.connection_lasted(began.elapsed());
                    next = self.after(ended)?;
                }
            }
        }
    }

    /// Pauses, then waits for Kafka. Meanwhile the tables are checked.
    async fn await_kafka(&mut self, pause: Duration) -> Result<(), RelayError> {
        let (recovery, target, settings, states) =
            (&mut self.publisher.recovery, &self.target, &self.settings, &self.states);
        let checks = recovery.source().until_fatal(async || open(target, settings, states).await.map(drop));
        recovery.pause(pause).await;
        recovery.await_kafka(checks).await
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
        for (table, state) in source.tables.iter().zip(&mut self.states) {
            state.compare(table)?;
            table.warn_of_missing_index(&mut state.is_index_warned);
        }
        tracing::info!(tables = source.tables.len(), "polling started");
        self.metrics.postgres.connected();
        self.metrics.enter(State::Streaming);
        let ended = Box::pin(self.poll(&mut source)).await;
        // Before the connection and its locks: the next owner must find no request in flight.
        self.publisher.drop_unacked();
        drop(source);
        ended
    }

    /// Sweeps over all outboxes repeatedly: at once while there are more rows, else after a pause.
    async fn poll(&mut self, source: &mut Source) -> Result<PollEnd, RelayError> {
        let mut counted: Option<Instant> = None;
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
            if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
                counted = Some(Instant::now());
                self.publisher.update_backlog(source, &mut self.states).await?;
            }
            // The rows that are not held back are published, or that takes too long.
            let is_over = |halt: &mut Halt| !has_more || halt.since.elapsed() > HALT_AFTER;
            if let Some(halt) = self.states.iter_mut().find_map(|state| state.halt.take_if(is_over)) {
                return Err(halt.error);
            }
            if has_more {
                continue;
            }
            self.publisher.has_caught_up();
            self.publisher.recovery.forget_failures();
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
                tracing::warn!(
                    code = "WR-6933",
                    "kafka delivery stalled: disconnecting from PostgreSQL until brokers answer"
                );
                self.metrics.enter(State::SinkBlocked);
                // Acknowledged rows are repeated with their batch: less often, the longer nothing is marked.
                let marked = self.publisher.marked();
                Ok(PollStep::AwaitKafka(self.stalls.pause(marked, self.settings.source.poll.batch_timeout)))
            }
            Ok(PollEnd::SinkFailed { failure, was_alone }) => {
                Ok(match self.publisher.recovery.after_failure(failure, was_alone)? {
                    AfterFailure::OneByOne => PollStep::Again,
                    AfterFailure::AwaitKafka(pause) => PollStep::AwaitKafka(pause),
                    AfterFailure::Pause(pause) => PollStep::Pause(pause),
                })
            }
            Err(error) if self.publisher.recovery.must_recheck(&error) => Ok(PollStep::Again),
            Err(error) => {
                self.publisher.recovery.classify(error)?;
                self.metrics.enter(State::SourceReconnecting);
                Ok(PollStep::Pause(self.publisher.recovery.next_backoff()))
            }
        }
    }
}

/// Connects and checks every table. Nothing is locked and nothing is written.
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
