//! The loop of a consumer: process what handlers returned, start handlers, commit, then poll.
//!
//! It runs on a thread of its own, because polling librdkafka blocks. It never waits for a handler, so the consumer
//! stays in its group however long a handler takes. If nothing has happened, it waits until a handler returns or
//! librdkafka's queue gets an entry: both wake the thread.

use std::cell::Cell;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::consumer::batch;
use crate::consumer::batch::BatchHandler;
use crate::consumer::brokers;
use crate::consumer::call::Callee;
use crate::consumer::cancellation::CancelReason;
use crate::consumer::classifier::Classifier;
use crate::consumer::classifier::ErrorClass;
use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::control::Control;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dispatcher::Dispatcher;
use crate::consumer::error::Error;
use crate::consumer::first_start;
use crate::consumer::handler::Handler;
use crate::consumer::handler::boxed;
use crate::consumer::lanes::Balance;
use crate::consumer::leaving;
use crate::consumer::leaving::Deadlines;
use crate::consumer::observe::Observer;
use crate::consumer::positions;
use crate::consumer::preflight;
use crate::consumer::properties;
use crate::consumer::raw;
use crate::consumer::rebalance::GroupContext;
use crate::consumer::retry;
use crate::consumer::skip;
use crate::consumer::skip::Skipped;
use crate::consumer::thread;
use crate::consumer::tokens;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::wakeup::Wakeup;

/// How many records a run has at most.
const MAX_RUN: usize = 32;
/// How many records are polled before returned handlers are processed.
const BATCH: usize = 512;
/// How long the loop waits. It is woken when a handler returns and when Kafka has delivered something.
const WAIT: Duration = Duration::from_millis(50);
/// How long nothing is polled while further records would only wait. Not longer: a rebalance arrives in the same queue,
/// after the records that librdkafka has fetched.
const SATURATED_WAIT: Duration = Duration::from_millis(20);
/// The interval of reports about load.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How many errors about offsets without a cause there may be, besides one for each partition. Then the consumer stops.
const MAX_UNEXPLAINED: usize = 3;
/// How many paused partitions are asked for their end offset per interval, and the timeout of each request.
const PAUSED_REQUESTS: usize = 8;
const PAUSED_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a member that its group refused waits before it tries to join again with a new client.
const REJOIN_BACKOFF: Duration = Duration::from_secs(5);

/// Consumes topics and calls a handler for each record.
///
/// ```no_run
/// use walrelay_events::consumer::{Config, Consumer, Outcome, Payload, Received, shutdown_signal, typed};
///
/// #[derive(serde::Deserialize)]
/// #[serde(tag = "event_type")]
/// enum OrderEvent {
///     OrderCreated { total_cents: i64 },
/// }
///
/// async fn print(received: Received<OrderEvent>) -> Outcome {
///     if let Payload::Event(OrderEvent::OrderCreated { total_cents }) = received.event {
///         println!("new order: {total_cents} cents");
///     }
///     Outcome::Ack
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), walrelay_events::consumer::Error> {
/// let config = Config::new("localhost:9092", "printing", &["order-events"]);
/// Consumer::new(config, typed(print)).run(shutdown_signal()).await
/// # }
/// ```
pub struct Consumer {
    config: Config,
    callee: Callee,
    /// How many records of a key are handed over at once.
    max_run: usize,
    observer: Arc<dyn Observer>,
    control: Control,
}

impl Consumer {
    /// Creates a consumer. [`Consumer::run`] starts it.
    #[must_use]
    pub fn new(config: Config, handler: impl Handler) -> Self {
        Self {
            config,
            callee: Callee::Single(boxed(handler)),
            max_run: MAX_RUN,
            observer: Arc::new(()),
            control: Control::default(),
        }
    }

    /// Creates a consumer whose handler takes several records of a key at once: those that are buffered, at most `max`.
    ///
    /// ```
    /// use walrelay_events::consumer::{Config, Consumer, Delivery, Outcome};
    ///
    /// async fn index(batch: Vec<Delivery>) -> Outcome {
    ///     println!("{} records from {}", batch.len(), batch[0].record);
    ///     Outcome::Ack
    /// }
    ///
    /// let consumer = Consumer::batches(Config::new("localhost:9092", "search", &["order-events"]), 100, index);
    /// ```
    #[must_use]
    pub fn batches(config: Config, max: usize, handler: impl BatchHandler) -> Self {
        let callee = Callee::Batch(batch::boxed(handler));
        Self { config, callee, max_run: max.max(1), observer: Arc::new(()), control: Control::default() }
    }

    /// Sets the observer that receives what the consumer reports.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Returns a handle that reports what the consumer is doing, and that pauses and resumes it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Sets a function that classifies errors of handlers. It is asked about an error and then about each of its
    /// sources. Where it returns nothing, the default applies: errors of tokio-postgres and sqlx that are no fault of
    /// the event are transient, and every other error counts as an attempt.
    #[must_use]
    pub fn with_classifier(
        mut self,
        classify: impl Fn(&(dyn StdError + 'static)) -> Option<ErrorClass> + Send + Sync + 'static,
    ) -> Self {
        self.callee = self.callee.classified(&Classifier::new(classify));
        self
    }

    /// Consumes until `stop` completes, or until an error. A stop starts no further handlers, waits for running ones,
    /// commits their offsets and leaves the group, all within `shutdown_timeout`. Handlers run on the Tokio runtime
    /// from which this is called.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let (runtime, control, timeout) = (Handle::current(), self.control.clone(), self.config.shutdown_timeout);
        thread::run(control, timeout, stop, move |stop, kept| self.consume(runtime, stop, kept)).await
    }

    /// Consumes on the thread of its caller. Keeps the producer for it: dropping one blocks.
    fn consume(self, runtime: Handle, stop: &CancellationToken, kept: &mut thread::Kept) -> Result<(), Error> {
        let client = properties::properties(&self.config)?;
        // Not read from `client`, which does not return passwords.
        let mut properties = self.config.properties.clone();
        properties.insert("bootstrap.servers".to_owned(), self.config.brokers.clone());
        let tokens = tokens::start(&self.config, &runtime)?;
        if tokens.is_some() {
            properties.insert("sasl.mechanisms".to_owned(), "OAUTHBEARER".to_owned());
        }
        let producer = Producer::with_tokens(&properties, tokens.clone()).map_err(Error::Configuration)?;
        let producer = Arc::new(producer);
        *kept = Some(Arc::clone(&producer));
        if !tokens::wait(tokens.as_ref(), stop) {
            return Ok(());
        }
        let observer = self.control.watch(self.observer);
        if !preflight::check(&self.config, &producer, &properties, &*observer, stop)? {
            return Ok(());
        }
        self.control.started();
        let (config, calls) = (self.config.clone(), (self.callee, self.max_run));
        let dispatcher = Dispatcher::new(config, calls, observer, self.control, producer, runtime);
        let dispatcher = Arc::new(Mutex::new(dispatcher));
        loop {
            let (config, tokens) = (self.config.clone(), tokens.clone());
            let context = GroupContext::new(config, &client, Arc::clone(&dispatcher), stop.clone(), tokens);
            let consumer = client.create_with_context(context).map_err(Error::configuration)?;
            match Loop::join(consumer, &self.config, stop)?.run()? {
                LoopEnd::Stopped => return Ok(()),
                LoopEnd::ClientLost(reason) => tracing::warn!(reason, "replacing Kafka client"),
                LoopEnd::Refused => thread::pause(REJOIN_BACKOFF, stop),
            }
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a loop ended without an error.
enum LoopEnd {
    /// `stop` completed.
    Stopped,
    /// The client cannot reach its brokers again, and why.
    ClientLost(&'static str),
    /// The group refuses the member, and the client cannot join any more.
    Refused,
}

struct Loop<'c> {
    consumer: BaseConsumer<GroupContext>,
    /// The names of the topics, shared by their records.
    topics: Vec<Arc<str>>,
    /// How many of the paused partitions were asked in this round.
    asked: usize,
    committed_at: Instant,
    polled_at: Instant,
    reported_at: Instant,
    /// Set when the consumer stops.
    deadlines: Option<Deadlines>,
    /// Errors about offsets without a cause, since the last record.
    unexplained: Cell<usize>,
    config: &'c Config,
    stop: &'c CancellationToken,
}

impl<'c> Loop<'c> {
    fn join(
        mut consumer: BaseConsumer<GroupContext>,
        config: &'c Config,
        stop: &'c CancellationToken,
    ) -> Result<Self, Error> {
        let wakeup = Wakeup::new();
        consumer.set_nonempty_callback(move || wakeup.wake());
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(Error::configuration)?;
        let topics = topics.into_iter().map(Arc::from).collect();
        let [committed_at, polled_at, reported_at] = [Instant::now(); 3];
        let (deadlines, unexplained) = (None, Cell::new(0));
        Ok(Self {
            consumer,
            topics,
            asked: 0,
            committed_at,
            polled_at,
            reported_at,
            deadlines,
            unexplained,
            config,
            stop,
        })
    }

    fn run(mut self) -> Result<LoopEnd, Error> {
        loop {
            let now = Instant::now();
            let (has_returned, has_failed, balance, pace) = {
                let mut dispatcher = self.consumer.context().dispatcher();
                let has_returned = dispatcher.process(Duration::ZERO);
                dispatcher.start(now);
                let balance = dispatcher.lanes.balance(now);
                (has_returned, dispatcher.failure().is_some(), balance, Pace::of(&dispatcher, now))
            };
            if has_failed || self.stop.is_cancelled() {
                let (deadlines, is_finishing) = self.stopping(now);
                if !is_finishing || now >= deadlines.handlers {
                    return leaving::leave(self.consumer, deadlines).map(|()| LoopEnd::Stopped);
                }
            } else if let Some(reason) = self.consumer.context().lost() {
                self.consumer.context().dispatcher().health.client_replaced();
                self.abandon(now);
                return Ok(LoopEnd::ClientLost(reason));
            } else if self.consumer.context().is_refused() {
                self.abandon(now);
                return Ok(LoopEnd::Refused);
            }
            if let Some(balance) = balance {
                self.balance(&balance).map_err(Error::client_failed)?;
            }
            if now.duration_since(self.committed_at) >= self.config.commit_interval {
                self.committed_at = now;
                self.commit();
            }
            if now.duration_since(self.reported_at) >= REPORT_INTERVAL {
                self.reported_at = now;
                self.report_paused();
                self.settle_beginnings();
                positions::note_polled(&self.consumer, &mut self.consumer.context().dispatcher().lanes);
                self.consumer.context().dispatcher().report_load(now);
            }
            let polls_in = pace.polls_in(now.duration_since(self.polled_at));
            let has_polled = polls_in.is_zero() && {
                self.polled_at = now;
                self.poll()
            };
            if !has_returned && !has_polled {
                Wakeup::wait(if polls_in.is_zero() { pace.wait } else { pace.wait.min(polls_in) });
            }
        }
    }

    /// Starts no more handlers. Returns the deadlines of the stop, and whether handlers still run.
    fn stopping(&mut self, now: Instant) -> (Deadlines, bool) {
        let mut dispatcher = self.consumer.context().dispatcher();
        let timeout = self.config.shutdown_timeout;
        let deadlines = *self.deadlines.get_or_insert_with(|| {
            dispatcher.stop(now);
            Deadlines::new(now, timeout)
        });
        (deadlines, dispatcher.is_finishing())
    }

    /// Polls up to a batch of records, or until the buffers may be full. Returns whether there was anything.
    fn poll(&self) -> bool {
        let mut last = None;
        for polled in 0..BATCH {
            let Some(message) = self.consumer.poll(Duration::ZERO) else { return polled > 0 };
            match message {
                Ok(message) => {
                    self.unexplained.set(0);
                    // Consecutive messages are usually of one partition. Between two rebalances, which end this loop,
                    // librdkafka has one handle for each topic.
                    let place = (message.topic_ptr(), message.partition());
                    let same = last.take().filter(|(known, _)| *known == place).map(|(_, partition)| partition);
                    let partition =
                        same.unwrap_or_else(|| TopicPartition::new(self.topic(message.topic()), message.partition()));
                    let mut dispatcher = self.consumer.context().dispatcher();
                    dispatcher.take(&message, &partition, raw::message_epoch(&message));
                    last = Some((place, partition));
                    // Large records fill the buffers before a batch is complete.
                    if dispatcher.lanes.may_be_full() {
                        return true;
                    }
                }
                Err(error) => {
                    self.poll_failed(error);
                    return true;
                }
            }
        }
        true
    }

    fn topic(&self, name: &str) -> Arc<str> {
        let known = self.topics.iter().find(|known| &***known == name);
        known.map_or_else(|| Arc::from(name), Arc::clone)
    }

    fn poll_failed(&self, error: KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            return self.skip_gaps(error);
        }
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return self.consumer.context().client_ended(self.consumer.client().fatal_error());
        }
        tracing::debug!(error = %error, "poll failed");
        let mut dispatcher = self.consumer.context().dispatcher();
        let lacks_token = self.consumer.context().lacks_token();
        let fatal = if lacks_token { brokers::fatal_without_token(&error) } else { brokers::fatal(&error) };
        if let Some(fatal) = fatal {
            dispatcher.fail(fatal);
        }
    }

    /// Continues after records that were deleted while the consumer ran, or where its log was truncated to, if the
    /// options allow it. Otherwise the consumer stops.
    fn skip_gaps(&self, error: KafkaError) {
        let mut dispatcher = self.consumer.context().dispatcher();
        match skip::gaps(&self.consumer, &mut dispatcher.lanes, self.config, self.stop) {
            Ok(Skipped::Continued { is_explained: false }) => {
                self.unexplained.set(self.unexplained.get() + 1);
                if self.unexplained.get() > dispatcher.lanes.partitions().count() + MAX_UNEXPLAINED {
                    dispatcher.fail(Error::client_failed(error));
                }
            }
            Ok(Skipped::Continued { is_explained: true }) => dispatcher.health.forget_ends(),
            Ok(Skipped::Nothing) => {}
            Err(unknown) => self.consumer.context().positions_failed(&mut dispatcher, unknown),
        }
    }

    fn balance(&self, Balance { pause, resume }: &Balance) -> KafkaResult<()> {
        if !pause.is_empty() {
            self.consumer.pause(&brokers::list(pause))?;
        }
        if !resume.is_empty() {
            self.consumer.resume(&brokers::list(resume))?;
        }
        Ok(())
    }

    /// Requests the end offsets of some paused partitions: they are not fetched, so their statistics do not change.
    fn report_paused(&mut self) {
        let mut dispatcher = self.consumer.context().dispatcher();
        let paused: Vec<TopicPartition> = dispatcher.lanes.paused().cloned().collect();
        for partition in paused.iter().skip(self.asked).take(PAUSED_REQUESTS) {
            let watermarks = self.consumer.fetch_watermarks(&partition.topic, partition.partition, PAUSED_TIMEOUT);
            // After a timeout the other partitions are not asked.
            let Ok((_, end)) = watermarks else { break };
            dispatcher.report_lag(partition, end, None);
        }
        self.asked = if self.asked + PAUSED_REQUESTS < paused.len() { self.asked + PAUSED_REQUESTS } else { 0 };
    }

    /// Until every partition of the time when the group began has a committed offset, that is committed as well.
    fn settle_beginnings(&self) {
        let mut dispatcher = self.consumer.context().dispatcher();
        if let Err(error) = first_start::settle(&self.consumer, &mut dispatcher.beginnings, PAUSED_TIMEOUT) {
            tracing::debug!(error = %error, "committed offsets are unknown");
        }
    }

    fn commit(&self) {
        let mut dispatcher = self.consumer.context().dispatcher();
        positions::note_polled(&self.consumer, &mut dispatcher.lanes);
        let positions = dispatcher.lanes.take_positions();
        if let Err(error) = commit::send(&self.consumer, &positions, &dispatcher.beginnings) {
            tracing::debug!(error = %error, "commit failed");
            dispatcher.lanes.forget_commits();
        }
    }

    /// Waits for running handlers, as before a revocation. Their offsets cannot be committed, so their events may be
    /// delivered again.
    fn abandon(self, now: Instant) {
        let mut dispatcher = self.consumer.context().dispatcher();
        let partitions: Vec<TopicPartition> = dispatcher.lanes.partitions().cloned().collect();
        dispatcher.finish(&partitions, CancelReason::Revoked, retry::after(now, self.config.revoke_timeout));
        dispatcher.release(&partitions);
        drop(dispatcher);
        leaving::close(self.consumer, Duration::ZERO);
    }
}

/// How the loop goes on, as the lanes are.
struct Pace {
    /// How long it may wait: at most until the next backoff ends, if a handler is started then.
    wait: Duration,
    is_saturated: bool,
    is_held: bool,
}

impl Pace {
    fn of(dispatcher: &Dispatcher, now: Instant) -> Self {
        let lanes = &dispatcher.lanes;
        let wakes_at = lanes.wakes_at().filter(|_| dispatcher.starts_handlers());
        let wait = wakes_at.map_or(WAIT, |at| at.saturating_duration_since(now).min(WAIT));
        Self { wait, is_saturated: lanes.is_saturated(), is_held: lanes.holds_polls() }
    }

    /// Returns how long the next poll waits if the last one was so long ago.
    fn polls_in(&self, since: Duration) -> Duration {
        match self {
            // The lanes say when that ends.
            Self { is_held: true, .. } => WAIT,
            Self { is_saturated: true, .. } => SATURATED_WAIT.saturating_sub(since),
            Self { .. } => Duration::ZERO,
        }
    }
}
