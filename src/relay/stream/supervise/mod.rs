//! Decides what follows a connection: wait, connect again, drop the producer, or stop.
//!
//! The pipeline and its producer outlive a lost connection and a stall of Kafka, so that no record is enqueued twice.
//! They are dropped, and the queue is purged, whenever another relay might publish meanwhile (another one holds the
//! slot, or the holder is unknown) and after any failed record. Then the WAL is read again from the confirmed position,
//! once the brokers have answered the requests of the old producer: events of a key may be repeated, but never swapped.

mod ended;
mod step;
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
use crate::relay::retry::recovery::Recovery;
use crate::relay::settings::Settings;
use crate::relay::stream::advance;
use crate::relay::stream::catalog_watch::CatalogWatch;
use crate::relay::stream::examine;
use crate::relay::stream::examine::Examined;
use crate::relay::stream::feedback::Pace;
use crate::relay::stream::follow::Follow;
use crate::relay::stream::follow::Held;
use crate::relay::stream::follow::StreamEnd;
use crate::relay::stream::keeper::Keeper;
use crate::relay::stream::keeper::Work;
use crate::relay::stream::pipeline_metrics::PipelineMetrics;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Server;
use crate::relay::stream::resume::Start;
use crate::relay::stream::resume::Stored;
use crate::relay::stream::silence::Silence;
use crate::relay::stream::slot_monitor::SlotMonitor;
use crate::relay::stream::stall_report::StallReport;

use step::StreamStep;

/// The timeout of START_REPLICATION.
const START_LIMIT: Duration = Duration::from_secs(30);

struct Supervisor {
    settings: Settings,
    routes: Vec<Route>,
    target: Target,
    metrics: Metrics,
    stop: CancellationToken,
    recovery: Recovery,
    wake: Arc<Notify>,
    held: Option<Held>,
    /// Dropped producers whose requests are not answered yet.
    retired: Vec<Retired>,
    /// The position up to which this process has delivered, and its server.
    remembered: Option<Stored>,
    /// Records are published one at a time until the confirmed position has passed this one.
    cautious_until: Option<Lsn>,
    stalls: StallReport,
    /// The number of consecutive rejections of the producer by the cluster.
    cluster_refused: u32,
    silence: Silence,
    slot_monitor: SlotMonitor,
    /// The last walsender: its server's start time and its PID. It may hold the slot for a while after the connection
    /// is lost.
    walsender: Option<(String, u32)>,
    /// The start time of the last server.
    server_started: String,
    /// The position up to which this process has enqueued events, acknowledged or not.
    handed_before: Lsn,
    /// The number of purged records that are not acknowledged. They are enqueued again before `handed_before`.
    purged_records: u64,
    /// Another relay has published since this one did, and may have requests in flight.
    follows_another: bool,
    /// The catalog check with its last result, kept between connections.
    watch: Option<CatalogWatch>,
}

pub(in crate::relay) async fn run(settings: Settings, metrics: Metrics, stop: CancellationToken) -> Result<(), Error> {
    let target = Target::resolve(&settings.postgres.url).map_err(Error::postgres("read the configuration"))?;
    let kafka = publish::Settings::new(
        settings.kafka.clone(),
        settings.relay.name.clone(),
        settings.delivery.max_in_flight_bytes,
    );
    // Report mistakes in the options now, not after the servers are up.
    kafka.client()?;
    metrics.max_in_flight_bytes.set(settings.delivery.max_in_flight_bytes);
    let slot_monitor =
        SlotMonitor::new(settings.source.slot.clone(), settings.source.warn_before_invalidation, metrics.clone());
    let mut supervisor = Supervisor {
        routes: settings.routes()?,
        target,
        recovery: Recovery::new(kafka, metrics.clone(), stop.clone()),
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
        slot_monitor,
        walsender: None,
        server_started: String::new(),
        handed_before: Lsn::ZERO,
        purged_records: 0,
        follows_another: false,
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
        let mut next = StreamStep::AwaitKafka(Duration::ZERO);
        loop {
            if self.stop.is_cancelled() && !matches!(next, StreamStep::Over) {
                return self.stopped();
            }
            next = match next {
                StreamStep::Over => return Ok(()),
                StreamStep::AwaitKafka(pause) => {
                    self.await_kafka(pause).await?;
                    StreamStep::Again
                }
                StreamStep::Pause(pause) => {
                    self.await_in_flight().await;
                    self.recovery.pause(pause).await;
                    StreamStep::Again
                }
                StreamStep::AwaitProgress => {
                    let (slot_monitor, checks) = (Box::pin(self.monitor_slot()), Box::pin(self.checks()));
                    tokio::select! {
                        biased;
                        progress = self.await_progress() => progress?,
                        never = slot_monitor => match never {},
                        fatal = checks => return Err(fatal),
                    }
                }
                StreamStep::StandBy => self.stand_by().await?,
                StreamStep::Again => {
                    self.recovery.await_retired(&mut self.retired).await;
                    let connected = self.connect_and_follow().await;
                    self.after(connected)?
                }
            };
        }
    }

    async fn connect_and_follow(&mut self) -> Result<StreamEnd, Error> {
        let (stop, config) = (self.stop.clone(), self.settings.postgres.clone());
        let name = self.settings.relay.name.clone();
        let opened = examine::open(&self.target, &self.settings, &self.routes);
        let (session, server, Examined { target, facts, stored, server_started, first, ordinary }) = tokio::select! {
            opened = self.recovery.tick_during(opened) => opened?,
            () = stop.cancelled() => return Ok(StreamEnd::StoppedBefore),
        };
        let walsender = session.process_id().map(|process| (server_started.clone(), process));
        self.server_started = server_started;
        let start = self.decide(&server, stored.as_ref())?;
        // Only now: on another server the catalog is another one, and that is not the error to report.
        let (slot, publication) = (self.settings.source.slot.clone(), self.settings.source.publication.clone());
        let (watch, is_new) = first.judge((&slot, &publication, &self.routes), self.watch.as_ref())?;
        self.watch = Some(watch.clone());
        let has_ended = |stored: &Stored| stored.is_released && stored.identity == server.identity;
        if self.remembered.is_none() && !stored.as_ref().is_some_and(has_ended) {
            self.follows_another = true;
        }
        if !self.retired.is_empty() {
            return Ok(StreamEnd::StoppedBefore);
        }
        let positions = (start.lsn(), resume::reported(start, stored.as_ref(), server.slot_confirmed));
        let started = postgres::within(START_LIMIT, session.start(&slot, positions, &publication, facts.wants_binary));
        let stream = tokio::select! {
            started = self.recovery.tick_during(started) => started.map_err(Error::postgres("start replication"))?,
            () = stop.cancelled() => return Ok(StreamEnd::StoppedBefore),
        };
        self.walsender = walsender;
        self.recovery.connected();
        let noted = examine::note(&ordinary.client, is_new.then_some(&watch), &self.settings);
        tokio::select! {
            noted = self.recovery.tick_during(noted) => noted.map_err(|error| error.of_role(&target.user))?,
            () = stop.cancelled() => return Ok(StreamEnd::StoppedBefore),
        }
        drop(ordinary);
        self.prepare(start.lsn(), stream.max_frame())?;
        let keeper = Keeper::start(Work {
            target,
            config,
            application_name: format!("{name} keeper"),
            walsender: name.clone(),
            slot: slot.clone(),
            identity: server.identity.clone(),
            watch,
            slot_monitor: self.slot_monitor.clone(),
            metrics: self.metrics.clone(),
        })
        .map_err(Error::Thread)?;
        tracing::info!(from = %start.lsn(), slot, publication, "replication started");
        self.metrics.postgres.connected();
        let began = Instant::now();
        let ended = self.follow(stream, keeper, start.lsn()).await;
        self.metrics.postgres.lost(loss(&ended));
        if matches!(ended, Err(Error::Silent { .. })) {
            self.silence.timed_out(start.lsn());
        }
        self.settle(server.identity, &ended).await;
        self.recovery.connection_lasted(began.elapsed());
        ended
    }

    /// Follows a stream until the connection must end.
    async fn follow(&mut self, stream: Stream, keeper: Keeper, start: Lsn) -> Result<StreamEnd, Error> {
        let publishes_from = self.publish_from();
        let Some(held) = &mut self.held else { return Ok(StreamEnd::SinkFailed) };
        let pipeline_metrics = PipelineMetrics::new(&self.metrics, &held.pipeline);
        self.stalls.begin(&held.pipeline);
        let source = &self.settings.source;
        let wal_sender_timeout = self.settings.postgres.wal_sender_timeout;
        let follow = Follow {
            stream,
            held,
            keeper,
            pace: Pace {
                wal_sender_timeout,
                max_silence: self.silence.limit(start, wal_sender_timeout),
                // At the in-flight limit nothing is read, so a lost connection is not noticed. After its own timeout
                // the server gives the slot to another relay: by then this one must have checked who holds it.
                disconnect_on_stall_after: source.disconnect_on_stall_after.min(wal_sender_timeout),
            },
            drain: self.settings.shutdown.drain,
            slot: &source.slot,
            wake: Arc::clone(&self.wake),
            metrics: &self.metrics,
            stop: &self.stop,
            pipeline_metrics,
            failed: None,
            publishes_from: Some(publishes_from),
            follows_another: &mut self.follows_another,
            stalls: &mut self.stalls,
        };
        Box::pin(follow.run()).await
    }

    /// Decides where to start. The position of this process is at least the stored one, unless another relay has stored
    /// one since.
    fn decide(&mut self, server: &Server, stored: Option<&Stored>) -> Result<Start, Error> {
        let delivered = self.remembered.as_ref().or(stored).map(|it| it.position);
        // Without a stored position the slot shows how far another relay has come.
        let reached = stored.map_or(server.slot_confirmed, |stored| stored.position);
        if let (None, Some(remembered)) = (stored, &self.remembered) {
            // Only this process knows the previous server.
            remembered.is_of(&server.identity.system_id)?;
        }
        let is_ours = |remembered: &Stored| remembered.identity == server.identity && reached <= remembered.position;
        if !self.remembered.as_ref().is_some_and(is_ours) {
            self.follows_another |=
                self.remembered.take().is_some_and(|remembered| remembered.identity == server.identity);
            self.drop_producer();
            self.handed_before = Lsn::ZERO;
        }
        let start = resume::decide(server, self.remembered.as_ref().or(stored))?;
        if let (Start::Slot(slot), Some(delivered), Some(_)) = (start, delivered, stored) {
            tracing::warn!(
                %slot,
                %delivered,
                timeline = server.identity.timeline,
                "server was promoted: starting at the slot; events may be repeated, and events in Kafka may be missing \
                 in the database"
            );
        }
        Ok(start)
    }

    /// Creates the pipeline and its producer, or prepares the existing ones for a new connection.
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
            Publisher::new(self.recovery.kafka(), pipeline.reports(), Arc::clone(&self.wake), self.metrics.clone())?;
        self.held = Some(Held { pipeline, publisher });
        Ok(())
    }

    /// Records the position of this process, and confirms it if nothing else can.
    async fn settle(&mut self, identity: Identity, ended: &Result<StreamEnd, Error>) {
        let Some(held) = &mut self.held else { return };
        let position = held.pipeline.confirmation().lsn();
        self.remembered = Some(Stored { identity, position, is_released: false });
        if matches!(ended, Err(Error::Raised { .. })) && !self.settings.source.store_position {
            let to = (position, self.server_started.as_str());
            let advancing = advance::advance(&self.target, &self.settings, to, self.watch.as_ref(), &self.stop);
            self.recovery.tick_during(advancing).await;
        }
    }

    /// Drops the producer and purges its queue: another relay may publish those records now.
    fn drop_producer(&mut self) {
        if let Some(Held { mut pipeline, publisher }) = self.held.take() {
            let records = pipeline.ledger().records();
            // They may include records that were purged before.
            let is_resent = pipeline.confirmation().lsn() < self.handed_before;
            self.purged_records = if is_resent { records.max(self.purged_records) } else { records };
            self.handed_before = self.handed_before.max(pipeline.frontier());
            self.retired.push(publisher.retire());
        }
    }

    /// Gives the number of purged records that are not acknowledged since.
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

/// Gives the reason of the end of the connection to PostgreSQL.
const fn loss(ended: &Result<StreamEnd, Error>) -> Loss {
    match ended {
        Ok(StreamEnd::ServerShutdown | StreamEnd::ServerShutdownUnacked) => Loss::ServerShutdown,
        Ok(StreamEnd::Stopped | StreamEnd::StoppedBefore | StreamEnd::Stalled | StreamEnd::SinkFailed) => {
            Loss::Disconnected
        }
        Err(_) => Loss::Failed,
    }
}
