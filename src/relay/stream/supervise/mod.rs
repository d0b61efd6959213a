//! What comes after a connection: wait, start again, let go, or stop.
//!
//! The pipeline and its producer outlive a broken connection and a stall of Kafka, so that nothing is handed over twice. They
//! are dropped, and what is queued is purged, whenever somebody else might publish in our place meanwhile (the slot is held by
//! another, or nobody can tell) and after any failed record. Then the WAL is read again from the confirmed position, once the
//! brokers have answered what the producer before had sent: a key may be rewound, never swapped.

mod next;
mod wait;

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::lsn::Lsn;
use crate::relay::error::Error;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::pipeline::Limits;
use crate::relay::pipeline::Pipeline;
use crate::relay::postgres;
use crate::relay::postgres::Stream;
use crate::relay::postgres::Target;
use crate::relay::publish;
use crate::relay::publish::Publisher;
use crate::relay::publish::Retired;
use crate::relay::record::route::Route;
use crate::relay::retry::patience::Patience;
use crate::relay::settings::Settings;
use crate::relay::stream::advance;
use crate::relay::stream::catalog_watch::Watch;
use crate::relay::stream::examine;
use crate::relay::stream::examine::Examined;
use crate::relay::stream::feedback::Pace;
use crate::relay::stream::follow::Follow;
use crate::relay::stream::follow::Held;
use crate::relay::stream::follow::Left;
use crate::relay::stream::keeper::Keeper;
use crate::relay::stream::keeper::Work;
use crate::relay::stream::noting::Noting;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Server;
use crate::relay::stream::resume::Start;
use crate::relay::stream::resume::Stored;
use crate::relay::stream::silence::Silence;
use crate::relay::stream::stall_report::StallReport;
use crate::relay::stream::stall_report::Unproven;

use next::Next;

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
    /// Producers that were given up, and whose requests are not answered.
    retired: Vec<Retired>,
    /// Up to where this process has delivered, and on which server.
    remembered: Option<Stored>,
    /// One record at a time until the confirmed position has passed this one.
    cautious_until: Option<Lsn>,
    stalls: StallReport,
    /// How often in a row the cluster refused the producer.
    cluster_refused: u32,
    silence: Silence,
    /// Our last walsender: when its server was started, and its process id. It may hold the slot for a while after we left it.
    walsender: Option<(String, u32)>,
    /// When the server was started that was asked last.
    server_started: String,
    /// Up to where this process has handed events over, whatever became of them.
    handed_before: Lsn,
    /// How many records were purged before they were acknowledged. They are handed over again below `handed_before`.
    purged_records: u64,
    /// Another relay has published since we last did, and may have requests at the brokers.
    follows_another: bool,
    /// Kafka took nothing, and nothing has been delivered since.
    in_doubt: bool,
    /// The watch over the catalog: how it was found last, whatever became of the connection.
    watch: Option<Watch>,
}

pub(in crate::relay) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    let target = Target::resolve(&settings.postgres.url).map_err(Error::wal("read the configuration"))?;
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
        retired: Vec::new(),
        remembered: None,
        cautious_until: None,
        stalls: StallReport::default(),
        cluster_refused: 0,
        silence: Silence::default(),
        walsender: None,
        server_started: String::new(),
        handed_before: Lsn::ZERO,
        purged_records: 0,
        follows_another: false,
        in_doubt: false,
        watch: None,
        settings,
    };
    let ended = supervisor.supervise().await;
    supervisor.metrics.enter(State::Stopped);
    let stores = supervisor.settings.source.store_position;
    ended.map_err(|error| if stores { error } else { error.not_stored() })
}

impl Supervisor {
    async fn supervise(&mut self) -> Result<(), Error> {
        let mut next = Next::AwaitKafka(Duration::ZERO);
        loop {
            if self.stop.is_cancelled() && !matches!(next, Next::Over) {
                return self.stopped();
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
                Next::AwaitProgress => {
                    let (lookout, looking) = (Box::pin(self.lookout()), Box::pin(self.looking()));
                    tokio::select! {
                        biased;
                        progress = self.await_progress() => progress?,
                        never = lookout => match never {},
                        wrong = looking => return Err(wrong),
                    }
                }
                Next::StandBy => self.stand_by().await?,
                Next::Again => {
                    self.patience.await_answers(&mut self.retired).await;
                    let connected = self.connect_and_follow().await;
                    self.after(connected)?
                }
            };
        }
    }

    async fn connect_and_follow(&mut self) -> Result<Left, Error> {
        let (stop, config) = (self.stop.clone(), self.settings.postgres.clone());
        let name = self.settings.relay.name.clone();
        let opened = examine::open(&self.target, &self.settings, &self.routes);
        let (session, server, Examined { target, facts, stored, server_started, first, ordinary }) = tokio::select! {
            opened = self.patience.tick_during(opened) => opened?,
            () = stop.cancelled() => return Ok(Left::StoppedBefore),
        };
        let walsender = session.process_id().map(|process| (server_started.clone(), process));
        self.server_started = server_started;
        let start = self.decide(&server, stored.as_ref())?;
        // Only now: on another server the catalog is another one, and that is not what went wrong.
        let (slot, publication) = (self.settings.source.slot.clone(), self.settings.source.publication.clone());
        let (watch, is_news) = first.judge((&slot, &publication, &self.routes), self.watch.as_ref())?;
        self.watch = Some(watch.clone());
        let has_ended = |stored: &Stored| stored.is_released && stored.identity == server.identity;
        if self.remembered.is_none() && !stored.as_ref().is_some_and(has_ended) {
            self.follows_another = true;
        }
        if !self.retired.is_empty() {
            return Ok(Left::StoppedBefore);
        }
        let places = (start.lsn(), resume::reported(start, stored.as_ref(), server.slot_confirmed));
        let started = postgres::within(START_LIMIT, session.start(&slot, places, &publication, facts.wants_binary));
        let stream = tokio::select! {
            started = self.patience.tick_during(started) => started.map_err(Error::wal("start replication"))?,
            () = stop.cancelled() => return Ok(Left::StoppedBefore),
        };
        self.walsender = walsender;
        self.patience.let_in();
        let noted = examine::note(&ordinary.client, is_news.then_some(&watch), &self.settings);
        tokio::select! {
            noted = self.patience.tick_during(noted) => noted.map_err(|error| error.of_role(&target.user))?,
            () = stop.cancelled() => return Ok(Left::StoppedBefore),
        }
        drop(ordinary);
        self.prepare(start.lsn(), stream.frame_max())?;
        let keeper = Keeper::start(Work {
            target,
            config,
            application_name: format!("{name} keeper"),
            walsender: name.clone(),
            slot: slot.clone(),
            identity: server.identity.clone(),
            watch,
            metrics: self.metrics.clone(),
        })
        .map_err(Error::Thread)?;
        tracing::info!(from = %start.lsn(), slot, publication, "replication started");
        self.metrics.postgres.connected();
        let began = Instant::now();
        let ended = self.follow(stream, keeper, start.lsn()).await;
        self.metrics.postgres.lost(loss(&ended));
        if matches!(ended, Err(Error::Silent { .. })) {
            self.silence.fell(start.lsn());
        }
        self.settle(server.identity, &ended).await;
        self.patience.held_for(began.elapsed());
        ended
    }

    /// Follows a stream until it must be left.
    async fn follow(&mut self, stream: Stream, keeper: Keeper, start: Lsn) -> Result<Left, Error> {
        let publishes_from = self.take_over();
        let Some(held) = &mut self.held else { return Ok(Left::SinkFailed) };
        let noting = Noting::new(&self.metrics, &held.pipeline);
        let unproven = self.in_doubt.then(|| Unproven::of(&held.pipeline));
        let source = &self.settings.source;
        let wal_sender_timeout = self.settings.postgres.wal_sender_timeout;
        let follow = Follow {
            stream,
            held,
            keeper,
            pace: Pace {
                wal_sender_timeout,
                silence_max: self.silence.limit(start, wal_sender_timeout),
                // Nothing is read from a connection while everything is in flight, so nothing tells that it is lost. The server gives
                // the slot to another relay after its own limit: by then this one must have looked who has it.
                stall_release_after: source.stall_release_after.min(wal_sender_timeout),
            },
            drain: self.settings.shutdown.drain,
            slot: &source.slot,
            wake: Arc::clone(&self.wake),
            metrics: &self.metrics,
            stop: &self.stop,
            noting,
            failed: None,
            publishes_from: Some(publishes_from),
            unproven,
            in_doubt: &mut self.in_doubt,
            follows_another: &mut self.follows_another,
            stalls: &mut self.stalls,
        };
        Box::pin(follow.run()).await
    }

    /// Chooses where to start. What this process remembers is at least as far as what is stored, unless another relay has
    /// stored since.
    fn decide(&mut self, server: &Server, stored: Option<&Stored>) -> Result<Start, Error> {
        let delivered = self.remembered.as_ref().or(stored).map(|it| it.position);
        // Where positions are not stored, the slot says how far another relay has come.
        let reached = stored.map_or(server.slot_confirmed, |stored| stored.position);
        if let (None, Some(remembered)) = (stored, &self.remembered) {
            // Nothing but this process knows of the server before.
            remembered.is_of(&server.identity.system_id)?;
        }
        let is_ours = |remembered: &Stored| remembered.identity == server.identity && reached <= remembered.position;
        if !self.remembered.as_ref().is_some_and(is_ours) {
            self.follows_another |=
                self.remembered.take().is_some_and(|remembered| remembered.identity == server.identity);
            self.let_go();
            self.handed_before = Lsn::ZERO;
        }
        let start = resume::decide(server, self.remembered.as_ref().or(stored))?;
        if let (Start::Slot(slot), Some(delivered), Some(_)) = (start, delivered, stored) {
            tracing::warn!(
                %slot,
                %delivered,
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
        if let Some(until) = self.cautious_until.take() {
            pipeline.be_cautious(until);
        }
        let publisher =
            Publisher::new(self.patience.kafka(), pipeline.reports(), Arc::clone(&self.wake), self.metrics.clone())?;
        self.held = Some(Held { pipeline, publisher });
        Ok(())
    }

    /// Remembers how far this process came, and sees to it that the server knows where nothing else tells it.
    async fn settle(&mut self, identity: Identity, ended: &Result<Left, Error>) {
        let Some(held) = &mut self.held else { return };
        let position = held.pipeline.confirmation().lsn();
        self.remembered = Some(Stored { identity, position, is_released: false });
        if matches!(ended, Err(Error::Raised { .. })) && !self.settings.source.store_position {
            let to = (position, self.server_started.as_str());
            let advancing = advance::advance(&self.target, &self.settings, to, self.watch.as_ref(), &self.stop);
            self.patience.tick_during(advancing).await;
        }
    }

    /// Purges what is queued: from here on somebody else may publish it.
    fn let_go(&mut self) {
        if let Some(Held { mut pipeline, publisher }) = self.held.take() {
            let records = pipeline.ledger().records();
            // What was purged before may be among them.
            let is_again = pipeline.confirmation().lsn() < self.handed_before;
            self.purged_records = if is_again { records.max(self.purged_records) } else { records };
            self.handed_before = self.handed_before.max(pipeline.frontier());
            self.retired.push(publisher.retire());
        }
    }

    /// Counts the purged records that have not been acknowledged since.
    fn purged(&mut self) -> u64 {
        let acknowledged = match &mut self.held {
            Some(held) => Some(held.pipeline.confirmation().lsn()),
            None => self.remembered.as_ref().map(|remembered| remembered.position),
        };
        if acknowledged.is_some_and(|position| position >= self.handed_before) {
            self.purged_records = 0;
        }
        self.purged_records
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
