//! What comes after a connection: wait, start again, let go, or stop.
//!
//! The pipeline and its producer outlive a broken connection, so that nothing is handed over twice. They are dropped, and
//! what was on the way is purged, whenever somebody else might publish in our place meanwhile (the slot is held by another,
//! the relay is parked with records on the way) and after any failed record. Then the log is read again from the confirmed
//! position: a key may be rewound, never swapped.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::fault::Diagnose;
use crate::lsn::Lsn;
use crate::relay::Error;
use crate::relay::Settings;
use crate::relay::contract;
use crate::relay::contract::Facts;
use crate::relay::feedback::Pace;
use crate::relay::follow::Follow;
use crate::relay::follow::Held;
use crate::relay::follow::Left;
use crate::relay::keeper::Keeper;
use crate::relay::keeper::Work;
use crate::relay::lookout;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::patience::Patience;
use crate::relay::pipeline::Limits;
use crate::relay::pipeline::Pipeline;
use crate::relay::position;
use crate::relay::publish;
use crate::relay::publish::Publisher;
use crate::relay::publish::Verdict;
use crate::relay::resume;
use crate::relay::resume::Identity;
use crate::relay::resume::Server;
use crate::relay::resume::Start;
use crate::relay::resume::Stored;
use crate::relay::route::Route;
use crate::relay::wal;
use crate::relay::wal::Session;
use crate::relay::wal::Target;

/// How often a standby looks whether the slot is free.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

struct Supervisor {
    settings: Settings,
    routes: Vec<Route>,
    target: Target,
    metrics: Metrics,
    stop: CancellationToken,
    patience: Patience,
    wake: Arc<Notify>,
    held: Option<Held>,
    /// Up to where this process has delivered, and on which server.
    remembered: Option<Stored>,
    /// One record at a time until the confirmed position has passed this one.
    cautious_until: Option<Lsn>,
}

/// What the supervisor does next.
enum Next {
    Over,
    Again,
    /// Kafka must answer first.
    AwaitKafka,
    Pause(Duration),
}

pub(super) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    let target = Target::resolve(&settings.postgres.url)
        .map_err(wal::Error::from)
        .map_err(Error::wal("read the configuration"))?;
    let kafka = publish::Settings::new(
        settings.kafka.clone(),
        settings.relay.name.clone(),
        settings.delivery.max_in_flight_bytes,
    );
    // Mistakes in the options are told now, not after the servers have come up.
    kafka.client()?;
    metrics.inflight_limit_bytes.set(settings.delivery.max_in_flight_bytes);
    let mut supervisor = Supervisor {
        routes: settings.routes()?,
        target,
        patience: Patience::new(kafka, metrics.clone(), stop.clone()),
        metrics,
        stop,
        wake: Arc::new(Notify::new()),
        held: None,
        remembered: None,
        cautious_until: None,
        settings,
    };
    let ended = supervisor.supervise().await;
    supervisor.metrics.enter(State::Stopped);
    ended
}

impl Supervisor {
    async fn supervise(&mut self) -> Result<(), Error> {
        let mut next = Next::AwaitKafka;
        loop {
            if self.stop.is_cancelled() && !matches!(next, Next::Over) {
                return self.stop_without_connection();
            }
            next = match next {
                Next::Over => return Ok(()),
                Next::AwaitKafka => {
                    self.await_kafka().await?;
                    Next::Again
                }
                Next::Pause(pause) => {
                    self.patience.pause(pause).await;
                    Next::Again
                }
                Next::Again => {
                    let connected = self.connect_and_follow().await;
                    self.after(connected)?
                }
            };
        }
    }

    /// Waits for Kafka. What the slot keeps meanwhile goes on being looked at.
    async fn await_kafka(&mut self) -> Result<(), Error> {
        let (target, config) = (self.target.clone(), self.settings.postgres.clone());
        let name = format!("{} lookout", self.settings.relay.name);
        let lookout = lookout::alone(target, config, name, self.settings.source.slot.clone(), self.metrics.clone());
        tokio::select! {
            biased;
            awaited = self.patience.await_kafka() => awaited,
            never = Box::pin(lookout) => match never {},
        }
    }

    async fn connect_and_follow(&mut self) -> Result<Left, Error> {
        let (stop, config) = (self.stop.clone(), self.settings.postgres.clone());
        let name = self.settings.relay.name.clone();
        let opened = async {
            let mut session = Session::connect(&self.target, &config, &name)
                .await
                .map_err(Error::wal("connect to PostgreSQL for replication"))?;
            let system = session.identify_system().await.map_err(Error::wal("identify the server"))?;
            let identity = Identity { system_id: system.system_id, timeline: system.timeline };
            let (facts, stored) = self.examine().await?;
            let server = Server { identity, wal_end: system.wal_end, slot_confirmed: facts.slot_confirmed };
            Ok::<_, Error>((session, server, facts, stored))
        };
        let (session, server, facts, stored) = tokio::select! {
            opened = opened => opened?,
            () = stop.cancelled() => return Ok(Left::Stopped),
        };
        let start = self.decide(&server, stored.as_ref())?;
        let (slot, publication) = (self.settings.source.slot.clone(), self.settings.source.publication.clone());
        let stream = session
            .start(&slot, start.lsn(), &publication, facts.wants_binary)
            .await
            .map_err(Error::wal("start replication"))?;
        self.patience.let_in();
        self.prepare(start.lsn(), stream.frame_max())?;
        let keeper = Keeper::start(Work {
            target: self.target.clone(),
            config,
            application_name: format!("{name} keeper"),
            slot: slot.clone(),
            identity: server.identity.clone(),
            metrics: self.metrics.clone(),
        })
        .map_err(Error::Thread)?;
        tracing::info!(from = %start.lsn(), slot, publication, "streaming");
        self.metrics.postgres.connected();
        self.metrics.enter(State::Streaming);
        let began = Instant::now();
        let Some(held) = &mut self.held else { return Ok(Left::SinkFailed) };
        let (noted, delivered) = (held.pipeline.tally(), held.pipeline.reports().left_records());
        let follow = Follow {
            stream,
            held,
            keeper,
            pace: Pace {
                wal_sender_timeout: self.settings.postgres.wal_sender_timeout,
                store_position: self.settings.source.store_position,
                stall_release_after: self.settings.source.stall_release_after,
            },
            drain: self.settings.shutdown.drain,
            wake: Arc::clone(&self.wake),
            metrics: &self.metrics,
            stop: &self.stop,
            noted,
            delivered,
        };
        let ended = Box::pin(follow.run()).await;
        self.metrics.postgres.lost();
        self.remember(server.identity);
        self.patience.held_for(began.elapsed());
        ended
    }

    /// Reads the contract and the stored position, on a short connection of its own.
    async fn examine(&self) -> Result<(Facts, Option<Stored>), Error> {
        let source = &self.settings.source;
        let name = format!("{} check", self.settings.relay.name);
        let ordinary = wal::connect_ordinary(&self.target, &self.settings.postgres, &name)
            .await
            .map_err(Error::wal("connect to PostgreSQL"))?;
        let client = &ordinary.client;
        let facts = contract::verify(client, &source.slot, &source.publication, &self.routes).await?;
        let stored = if source.store_position { Some(position::load(client, &source.slot).await?) } else { None };
        Ok((facts, stored))
    }

    /// Chooses where to start. What this process remembers is at least as far as what is stored.
    fn decide(&mut self, server: &Server, stored: Option<&Stored>) -> Result<Start, Error> {
        let same = self.remembered.as_ref().filter(|stored| stored.identity == server.identity);
        if same.is_none() {
            self.remembered = None;
            self.held = None;
        }
        let start = resume::decide(server, self.remembered.as_ref().or(stored))?;
        if matches!(start, Start::Slot(_)) && stored.is_some() {
            tracing::warn!(
                slot = %server.slot_confirmed,
                timeline = server.identity.timeline,
                "the server was promoted: starting at the slot; events may be repeated, and events that are in Kafka may be \
                 missing in the database"
            );
        }
        Ok(start)
    }

    /// Makes the pipeline and its producer, or readies the ones that live.
    fn prepare(&mut self, start: Lsn, frame_bytes: usize) -> Result<(), Error> {
        if let Some(held) = &mut self.held {
            held.pipeline.reconnect();
            return Ok(());
        }
        let limits = Limits { in_flight_bytes: self.settings.delivery.max_in_flight_bytes, frame_bytes };
        let mut pipeline = Pipeline::new(self.routes.clone(), limits, start);
        if let Some(until) = self.cautious_until.take() {
            pipeline.be_cautious(until);
        }
        let publisher =
            Publisher::new(self.patience.kafka(), pipeline.reports(), Arc::clone(&self.wake), self.metrics.clone())?;
        self.held = Some(Held { pipeline, publisher });
        Ok(())
    }

    fn remember(&mut self, identity: Identity) {
        if let Some(held) = &mut self.held {
            let position = held.pipeline.confirmation().lsn();
            self.remembered = Some(Stored { identity, position });
        }
    }

    fn after(&mut self, ended: Result<Left, Error>) -> Result<Next, Error> {
        match ended {
            Ok(Left::Stopped) => Ok(Next::Over),
            Ok(Left::ServerLeaves) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(Next::Pause(self.patience.next_pause()))
            }
            Ok(Left::ServerLeavesAhead) => {
                self.metrics.enter(State::SourceReconnecting);
                self.let_go();
                Ok(Next::AwaitKafka)
            }
            Ok(Left::Stalled) => {
                self.metrics.kafka.lost();
                tracing::warn!(code = "WR-6933", "Kafka takes nothing: letting go of PostgreSQL until it does");
                self.metrics.enter(State::SinkBlocked);
                self.let_go();
                Ok(Next::AwaitKafka)
            }
            Ok(Left::SinkFailed) => self.after_failure(),
            Err(error) => self.after_error(error),
        }
    }

    /// A record failed, or its producer did.
    fn after_failure(&mut self) -> Result<Next, Error> {
        let Some(held) = &mut self.held else { return Ok(Next::AwaitKafka) };
        let frontier = held.pipeline.frontier();
        let Some(failure) = held.publisher.failure() else { return Ok(Next::AwaitKafka) };
        let was_cautious = held.pipeline.is_cautious();
        self.let_go();
        match failure.verdict {
            // A permanent error fails a whole batch: only alone is a record known to be the culprit.
            Verdict::Record if !was_cautious => {
                tracing::warn!(
                    code = %failure.code(), error = %failure,
                    "a batch was refused: publishing one record at a time until the culprit is known"
                );
                self.cautious_until = Some(frontier);
                Ok(Next::Again)
            }
            Verdict::Record | Verdict::Topic => Err(failure.into()),
            Verdict::Rights | Verdict::Transient => {
                self.cautious_until = was_cautious.then_some(frontier);
                self.metrics.enter(State::SinkBlocked);
                self.patience.tell(&failure.into());
                Ok(Next::Pause(self.patience.next_pause()))
            }
        }
    }

    fn after_error(&mut self, error: Error) -> Result<Next, Error> {
        if let Error::Wal { source, .. } = &error
            && source.is_slot_active()
        {
            // Whoever holds it may publish what we still have in our queue.
            self.let_go();
            self.metrics.enter(State::Standby);
            self.patience.tell(&error);
            return Ok(Next::Pause(STANDBY_PAUSE + self.patience.next_pause() / 30));
        }
        self.patience.judge(error)?;
        self.metrics.enter(State::SourceReconnecting);
        Ok(Next::Pause(self.patience.next_pause()))
    }

    /// Purges what is on the way: from here on somebody else may publish it.
    fn let_go(&mut self) {
        self.held = None;
    }

    /// A stop while no connection stands: what was delivered since the last stored position will be repeated.
    fn stop_without_connection(&mut self) -> Result<(), Error> {
        let records = self.held.as_ref().map_or(0, |held| held.pipeline.ledger().records());
        if records > 0 {
            return Err(Error::DrainTimeout { records, limit: Duration::ZERO });
        }
        Ok(())
    }
}
