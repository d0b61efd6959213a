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

use crate::lsn::Lsn;
use crate::relay::Error;
use crate::relay::Settings;
use crate::relay::catalog_watch::Watch;
use crate::relay::contract;
use crate::relay::contract::Facts;
use crate::relay::feedback::Pace;
use crate::relay::follow::Follow;
use crate::relay::follow::Held;
use crate::relay::follow::Left;
use crate::relay::keeper::Keeper;
use crate::relay::keeper::Work;
use crate::relay::lookout;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::noting::Noting;
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
use crate::relay::stalls::Stalls;
use crate::relay::wal;
use crate::relay::wal::Session;
use crate::relay::wal::Target;

/// How often a standby looks whether the slot is free.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);
/// How long what was on the way may still arrive after the connection was lost.
const ARRIVAL_GRACE: Duration = Duration::from_secs(1);
/// How long a relay that takes over waits before it publishes: the one before must have let go by then.
const TAKEOVER_PAUSE: Duration = ARRIVAL_GRACE.saturating_mul(2);
/// How long the server may take to start the stream.
const START_LIMIT: Duration = Duration::from_secs(30);

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
    stalls: Stalls,
    /// Up to where this process has handed events over, whatever became of them.
    handed_before: Lsn,
    /// Another relay has published since we last did.
    stood_by: bool,
}

/// What the supervisor does next.
enum Next {
    Over,
    Again,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
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
        stalls: Stalls::default(),
        handed_before: Lsn::ZERO,
        stood_by: false,
        settings,
    };
    let ended = supervisor.supervise().await;
    supervisor.metrics.enter(State::Stopped);
    ended
}

impl Supervisor {
    async fn supervise(&mut self) -> Result<(), Error> {
        let mut next = Next::AwaitKafka(Duration::ZERO);
        loop {
            if self.stop.is_cancelled() && !matches!(next, Next::Over) {
                return self.stop_without_connection();
            }
            next = match next {
                Next::Over => return Ok(()),
                Next::AwaitKafka(pause) => {
                    self.await_kafka(pause).await?;
                    Next::Again
                }
                Next::Pause(pause) => {
                    self.let_arrive().await;
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

    /// Pauses, then waits for Kafka. What the slot keeps meanwhile goes on being looked at.
    async fn await_kafka(&mut self, pause: Duration) -> Result<(), Error> {
        let (target, config) = (self.target.clone(), self.settings.postgres.clone());
        let name = format!("{} lookout", self.settings.relay.name);
        let lookout = lookout::alone(target, config, name, self.settings.source.slot.clone(), self.metrics.clone());
        let patience = &mut self.patience;
        let answering = async {
            patience.pause(pause).await;
            patience.await_kafka().await
        };
        tokio::select! {
            biased;
            awaited = answering => awaited,
            never = Box::pin(lookout) => match never {},
        }
    }

    async fn connect_and_follow(&mut self) -> Result<Left, Error> {
        let (stop, config) = (self.stop.clone(), self.settings.postgres.clone());
        let name = self.settings.relay.name.clone();
        let opened = async {
            // In this order another relay that moves row and slot meanwhile is not mistaken for a loss: the slot is never
            // ahead of the row, and the row never ahead of the log.
            let (facts, stored, watch) = self.examine().await?;
            let mut session = Session::connect(&self.target, &config, &name)
                .await
                .map_err(Error::wal("connect to PostgreSQL for replication"))?;
            let system = session.identify_system().await.map_err(Error::wal("identify the server"))?;
            let identity = Identity { system_id: system.system_id, timeline: system.timeline };
            let server = Server { identity, wal_end: system.wal_end, slot_confirmed: facts.slot_confirmed };
            Ok::<_, Error>((session, server, facts, stored, watch))
        };
        let (session, server, facts, stored, watch) = tokio::select! {
            opened = self.patience.tick_during(opened) => opened?,
            () = stop.cancelled() => return Ok(Left::StoppedBefore),
        };
        let start = self.decide(&server, stored.as_ref())?;
        let (slot, publication) = (self.settings.source.slot.clone(), self.settings.source.publication.clone());
        let places = (start.lsn(), resume::reported(start, stored.as_ref()));
        let started = tokio::time::timeout(START_LIMIT, session.start(&slot, places, &publication, facts.wants_binary));
        let stream = tokio::select! {
            started = self.patience.tick_during(started) => started
                .unwrap_or(Err(wal::Error::Timeout { host: "the server".to_owned(), limit: START_LIMIT }))
                .map_err(Error::wal("start replication"))?,
            () = stop.cancelled() => return Ok(Left::StoppedBefore),
        };
        self.patience.let_in();
        if !self.take_over().await {
            return Ok(Left::StoppedBefore);
        }
        self.prepare(start.lsn(), stream.frame_max())?;
        let keeper = Keeper::start(Work {
            target: self.target.clone(),
            config,
            application_name: format!("{name} keeper"),
            slot: slot.clone(),
            identity: server.identity.clone(),
            watch,
            metrics: self.metrics.clone(),
        })
        .map_err(Error::Thread)?;
        tracing::info!(from = %start.lsn(), slot, publication, "streaming");
        self.metrics.postgres.connected();
        self.metrics.enter(State::Streaming);
        let began = Instant::now();
        let Some(held) = &mut self.held else { return Ok(Left::SinkFailed) };
        let noting = Noting::new(&self.metrics, &held.pipeline);
        let follow = Follow {
            stream,
            held,
            keeper,
            pace: Pace {
                wal_sender_timeout: self.settings.postgres.wal_sender_timeout,
                // Where nothing is stored, the keeper still looks at the catalog before a position is reported.
                store_position: true,
                stall_release_after: self.settings.source.stall_release_after,
            },
            drain: self.settings.shutdown.drain,
            wake: Arc::clone(&self.wake),
            metrics: &self.metrics,
            stop: &self.stop,
            noting,
            failed: None,
        };
        let ended = Box::pin(follow.run()).await;
        self.metrics.postgres.lost(loss(&ended));
        self.remember(server.identity);
        self.patience.held_for(began.elapsed());
        ended
    }

    /// Reads the contract and the stored position, on a short connection of its own.
    async fn examine(&self) -> Result<(Facts, Option<Stored>, Watch), Error> {
        let source = &self.settings.source;
        let name = format!("{} check", self.settings.relay.name);
        let ordinary = wal::connect_ordinary(&self.target, &self.settings.postgres, &name)
            .await
            .map_err(Error::wal("connect to PostgreSQL"))?;
        let client = &ordinary.client;
        let facts = contract::verify(client, &source.slot, &source.publication, &self.routes).await?;
        let stored = if source.store_position { Some(position::load(client, &source.slot).await?) } else { None };
        let at = stored.as_ref().map(|stored| stored.position);
        let watch = Watch::begin(client, &source.slot, &source.publication, &self.routes, at).await?;
        Ok((facts, stored, watch))
    }

    /// Chooses where to start. What this process remembers is at least as far as what is stored, unless another relay has
    /// stored since.
    fn decide(&mut self, server: &Server, stored: Option<&Stored>) -> Result<Start, Error> {
        let is_ours = |remembered: &Stored| {
            remembered.identity == server.identity && stored.is_none_or(|it| it.position <= remembered.position)
        };
        if !self.remembered.as_ref().is_some_and(is_ours) {
            self.stood_by |= self.remembered.take().is_some_and(|remembered| remembered.identity == server.identity);
            self.let_go();
            self.handed_before = Lsn::ZERO;
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
        pipeline.follow(self.handed_before);
        pipeline.note_ages(self.metrics.outbox_age.clone());
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
            // Whatever ended the connection, the stop is what counts: it says what is still on the way.
            Ok(_) if self.stop.is_cancelled() => self.stop_without_connection().map(|()| Next::Over),
            Ok(Left::StoppedBefore) => Ok(Next::Again),
            Ok(Left::ServerLeaves) => {
                self.metrics.enter(State::SourceReconnecting);
                Ok(Next::Pause(self.patience.next_pause()))
            }
            Ok(Left::ServerLeavesAhead) => {
                self.metrics.enter(State::SourceReconnecting);
                self.let_go();
                Ok(Next::AwaitKafka(Duration::ZERO))
            }
            Ok(Left::Stalled) => {
                self.metrics.kafka.lost(Loss::Stalled);
                tracing::warn!(code = "WR-6933", "Kafka takes nothing: letting go of PostgreSQL until it does");
                self.metrics.enter(State::SinkBlocked);
                let position = self.held.as_mut().map_or(Lsn::ZERO, |held| held.pipeline.confirmation().lsn());
                let pause = self.stalls.pause(position, self.settings.source.stall_release_after);
                self.let_go();
                Ok(Next::AwaitKafka(pause))
            }
            Ok(Left::SinkFailed) => self.after_failure(),
            Err(error) => self.after_error(error),
        }
    }

    /// A record failed, or its producer did.
    fn after_failure(&mut self) -> Result<Next, Error> {
        let Some(held) = &mut self.held else { return Ok(Next::AwaitKafka(Duration::ZERO)) };
        let frontier = held.pipeline.frontier();
        let Some(failure) = held.publisher.failure() else { return Ok(Next::AwaitKafka(Duration::ZERO)) };
        let was_cautious = held.pipeline.is_cautious();
        self.let_go();
        match failure.verdict {
            // A permanent error fails a whole batch: only alone is a record known to be the culprit.
            Verdict::Record if !was_cautious => {
                self.patience.batch_refused(&failure);
                self.cautious_until = Some(frontier);
                Ok(Next::Again)
            }
            Verdict::Record | Verdict::Topic => Err(failure.into()),
            Verdict::Rights | Verdict::Transient => {
                self.cautious_until = was_cautious.then_some(frontier);
                self.metrics.enter(State::SinkBlocked);
                let is_about_brokers = failure.verdict == Verdict::Transient;
                self.patience.tell(&failure.into());
                let pause = self.patience.next_pause();
                Ok(if is_about_brokers { Next::AwaitKafka(pause) } else { Next::Pause(pause) })
            }
        }
    }

    fn after_error(&mut self, error: Error) -> Result<Next, Error> {
        if let Error::Wal { source, .. } = &error
            && source.is_slot_active()
        {
            // Whoever holds it may publish what we still have in our queue, and moves the position on.
            self.let_go();
            self.remembered = None;
            self.stood_by = true;
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
        if let Some(held) = self.held.take() {
            self.handed_before = self.handed_before.max(held.pipeline.frontier());
        }
    }

    /// Waits for what is on the way without a connection, and purges what does not arrive soon: a standby takes over.
    async fn let_arrive(&mut self) {
        let until = tokio::time::Instant::now() + ARRIVAL_GRACE;
        while let Some(held) = &self.held {
            if held.pipeline.ledger().await_all() {
                return;
            }
            if tokio::time::timeout_at(until, self.wake.notified()).await.is_err() {
                let records = held.pipeline.ledger().records();
                tracing::info!(
                    records,
                    "Kafka does not take what is on the way: it is handed over again after reconnecting"
                );
                return self.let_go();
            }
        }
    }

    /// Waits until the relay that published before us has let go of what it had on the way. Says whether to go on.
    async fn take_over(&mut self) -> bool {
        if !std::mem::take(&mut self.stood_by) {
            return true;
        }
        let timeout = self.settings.postgres.wal_sender_timeout;
        let pause = if timeout.is_zero() { TAKEOVER_PAUSE } else { TAKEOVER_PAUSE.min(timeout / 3) };
        tracing::info!("taking over from another relay: waiting until it has let go");
        self.patience.pause(pause).await;
        !self.stop.is_cancelled()
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

/// Says why the connection to PostgreSQL is over.
const fn loss(ended: &Result<Left, Error>) -> Loss {
    match ended {
        Ok(Left::ServerLeaves | Left::ServerLeavesAhead) => Loss::ServerLeft,
        Ok(Left::Stopped | Left::StoppedBefore | Left::Stalled | Left::SinkFailed) => Loss::LetGo,
        Err(_) => Loss::Failed,
    }
}
