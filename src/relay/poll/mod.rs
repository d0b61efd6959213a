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

mod choice;
pub(super) mod error;
pub(super) mod grants;
mod numbers;
pub(super) mod outbox;
mod outlet;
mod source;
pub(super) mod sql;
mod sweep;
mod tempo;
mod turn;
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
use crate::relay::record::route::Scratch;
use crate::relay::retry::patience::AfterFailure;
use crate::relay::retry::patience::Patience;
use crate::relay::retry::stalls::Stalls;
use crate::relay::settings::Settings;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::chain;

use choice::Appetite;
pub use error::Error;
use outbox::Outbox;
use outbox::outboxes;
use source::Source;
use sweep::Sweep;
use tempo::Tempo;
use turn::Hands;
use turn::Left;
use turn::Turn;

/// The server ends a transaction that is left alone for so much longer than it may take.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// For so long the rest is published after a row that cannot be; then the relay ends, or nobody would notice while rows keep coming.
const HALT_AFTER: Duration = Duration::from_secs(30);
/// How long the server may take to show what the tables are.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked how much is unpublished.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What is remembered of an outbox from one transaction to the next.
struct Desk {
    outbox: Outbox,
    sweep: Sweep,
    appetite: Appetite,
    scratch: Scratch,
    /// Rows up to this one are published one at a time: one of them was refused among others.
    cautious_until: Option<i64>,
    /// Such a row was met in this sweep.
    met_cautious: bool,
    /// Rows that cannot be published, if there are any.
    halt: Option<Halt>,
    /// How many percent of its numbers a sequence had used when that was told of last.
    percent_told: u64,
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
    desks: Vec<Desk>,
    hands: Hands,
    /// By the rows that were marked.
    stalls: Stalls<u64>,
}

/// What follows a connection.
enum Next {
    Over,
    Again,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
    Pause(Duration),
}

pub(super) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), RelayError> {
    let target = Target::resolve(&settings.postgres.url).map_err(RelayError::wal("read the configuration"))?;
    let budget = settings.delivery.max_in_flight_bytes;
    let kafka = publish::Settings::new(settings.kafka.clone(), settings.relay.name.clone(), budget);
    // Mistakes in the options are told now, not after the servers have come up.
    kafka.client()?;
    metrics.inflight_limit_bytes.set(budget);
    let seed = now_micros() ^ u64::from(std::process::id());
    let desk = |outbox| Desk {
        outbox,
        sweep: Sweep::starting_at(seed),
        // Half for the rows in hand, half for their records on the way.
        appetite: Appetite::new(settings.source.poll.batch_max, budget / 2),
        scratch: Scratch::default(),
        cautious_until: None,
        met_cautious: false,
        halt: None,
        percent_told: 0,
    };
    let patience = Patience::new(kafka, metrics.clone(), stop.clone());
    let mut poller = Poller {
        desks: outboxes(&settings)?.into_iter().map(desk).collect(),
        hands: Hands::new(patience, &settings, metrics.clone(), stop.clone()),
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
        let mut next = Next::AwaitKafka(Duration::ZERO);
        loop {
            match next {
                // What was in hand is unpublished again, and nobody waits for it.
                Next::Over => return self.hands.stopped(),
                _ if self.stop.is_cancelled() => return self.hands.stopped(),
                Next::AwaitKafka(pause) => {
                    self.await_kafka(pause).await?;
                    next = Next::Again;
                }
                Next::Pause(pause) => {
                    self.hands.patience.pause(pause).await;
                    next = Next::Again;
                }
                Next::Again => {
                    self.hands.await_answers().await;
                    let began = Instant::now();
                    let ended = Box::pin(self.connect_and_poll()).await;
                    self.metrics.postgres.lost(ended.as_ref().map_or(Loss::Failed, |_| Loss::LetGo));
                    self.hands.patience.held_for(began.elapsed());
                    next = self.after(ended)?;
                }
            }
        }
    }

    /// Pauses, then waits for Kafka. Meanwhile it is looked whether the tables could be polled.
    async fn await_kafka(&mut self, pause: Duration) -> Result<(), RelayError> {
        let (patience, target, settings, desks) = (&mut self.hands.patience, &self.target, &self.settings, &self.desks);
        let looking = patience.beside().until_wrong(async || open(target, settings, desks).await.map(drop));
        patience.pause(pause).await;
        patience.await_kafka(looking).await
    }

    async fn connect_and_poll(&mut self) -> Result<Left, RelayError> {
        let opened = open(&self.target, &self.settings, &self.desks);
        let opened = self.hands.patience.tick_during(opened);
        let mut source = tokio::select! {
            opened = opened => opened?,
            () = self.stop.cancelled() => return Ok(Left::Stopped),
        };
        self.hands.patience.let_in();
        self.hands.ready()?;
        tracing::info!(tables = source.tables.len(), "polling");
        self.metrics.postgres.connected();
        self.metrics.enter(State::Streaming);
        let ended = Box::pin(self.poll(&mut source)).await;
        // Before the connection and its locks: whoever takes over must find nothing on the way.
        self.hands.let_go_of_what_is_on_the_way();
        drop(source);
        ended
    }

    /// Sweeps over all outboxes, again and again; at once while there is more, else after a while.
    async fn poll(&mut self, source: &mut Source) -> Result<Left, RelayError> {
        let mut looked: Option<Instant> = None;
        let mut tempo = Tempo::new(self.settings.source.poll.interval);
        loop {
            if let Some(failure) = self.hands.failure() {
                return Ok(Left::SinkFailed { failure, was_alone: false });
            }
            let (mut has_more, marked) = (false, self.hands.marked());
            for (place, desk) in self.desks.iter_mut().enumerate() {
                desk.begin_sweep();
                while desk.sweep.is_under_way() {
                    if self.stop.is_cancelled() {
                        return Ok(Left::Stopped);
                    }
                    match Box::pin(self.hands.turn(source, place, desk)).await? {
                        Turn::Over { is_full } => has_more |= is_full,
                        Turn::Left(left) => return Ok(left),
                    }
                }
                desk.end_sweep();
            }
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
                looked = Some(Instant::now());
                self.hands.look(source, &mut self.desks).await?;
            }
            // What a row that cannot be published does not hold back has gone, or takes too long to go.
            let is_over = |halt: &mut Halt| !has_more || halt.since.elapsed() > HALT_AFTER;
            if let Some(halt) = self.desks.iter_mut().find_map(|desk| desk.halt.take_if(is_over)) {
                return Err(halt.error);
            }
            if has_more {
                continue;
            }
            self.hands.has_caught_up();
            let pause = self.hands.patience.pause(tempo.after(self.hands.marked() > marked));
            tokio::select! {
                biased;
                error = &mut source.ended => return Err(turn::closed(error)),
                () = pause => {}
            }
        }
    }

    fn after(&mut self, ended: Result<Left, RelayError>) -> Result<Next, RelayError> {
        match ended {
            Ok(Left::Stopped) => Ok(Next::Over),
            Ok(Left::Stalled) => {
                self.metrics.kafka.lost(Loss::Stalled);
                tracing::warn!(code = "WR-6933", "Kafka takes nothing: letting go of PostgreSQL until it does");
                self.metrics.enter(State::SinkBlocked);
                // Rows that arrived come again with their batch: the less often, the longer nothing is marked.
                let marked = self.hands.marked();
                Ok(Next::AwaitKafka(self.stalls.pause(marked, self.settings.source.poll.batch_timeout)))
            }
            Ok(Left::SinkFailed { failure, was_alone }) => {
                Ok(match self.hands.patience.after_failure(failure, was_alone)? {
                    AfterFailure::OneByOne => Next::Again,
                    AfterFailure::AwaitKafka(pause) => Next::AwaitKafka(pause),
                    AfterFailure::Pause(pause) => Next::Pause(pause),
                })
            }
            Err(error) => {
                self.hands.patience.judge(error)?;
                self.metrics.enter(State::SourceReconnecting);
                Ok(Next::Pause(self.hands.patience.next_pause()))
            }
        }
    }
}

/// Connects, and verifies every table. Nothing is locked and nothing is written.
async fn open(target: &Target, settings: &Settings, desks: &[Desk]) -> Result<Source, RelayError> {
    let ordinary = postgres::connect_shared(target, &settings.postgres, &settings.relay.name)
        .await
        .map_err(RelayError::wal("connect to PostgreSQL"))?;
    let outboxes: Vec<Outbox> = desks.iter().map(|desk| desk.outbox.clone()).collect();
    let idle_limit = settings.source.poll.batch_timeout + IDLE_GRACE;
    let begin = sql::begin(idle_limit, ordinary.stores_any_bytes);
    let client = &ordinary.client;
    let verified = async {
        client.batch_execute(&begin).await.map_err(RelayError::wal("read the catalog"))?;
        let mut found = Vec::new();
        for outbox in &outboxes {
            found.push(verify::verify(client, outbox).await?);
        }
        client.batch_execute("COMMIT").await.map_err(RelayError::wal("read the catalog"))?;
        Ok(found)
    };
    let late = RelayError::Wal { action: "read the catalog", source: postgres::Error::NoAnswer { limit: OPEN_LIMIT } };
    let found = tokio::time::timeout(OPEN_LIMIT, verified).await.unwrap_or(Err(late))?;
    Ok(Source::new(ordinary, begin, found))
}

impl Desk {
    fn begin_sweep(&mut self) {
        self.sweep.begin();
        self.met_cautious = false;
    }

    fn end_sweep(&mut self) {
        if !self.met_cautious {
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
        self.met_cautious |= is_cautious;
        is_cautious
    }
}
