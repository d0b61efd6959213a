//! The loop of a consumer: process what handlers returned, start handlers, commit, then poll.
//!
//! It runs on a thread of its own, because polling librdkafka blocks. It never waits for a handler, so the consumer
//! stays in its group however long a handler takes. If nothing has happened, it waits until a handler returns or
//! librdkafka's queue gets an entry: both wake the thread.

use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::consumer::batch;
use crate::consumer::batch::BatchHandler;
use crate::consumer::brokers;
use crate::consumer::call::Callee;
use crate::consumer::cancellation::CancelReason;
use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dispatcher::Dispatcher;
use crate::consumer::error::Error;
use crate::consumer::handler::Handler;
use crate::consumer::handler::boxed;
use crate::consumer::lanes::Balance;
use crate::consumer::lanes::Lanes;
use crate::consumer::observe::Observer;
use crate::consumer::positions;
use crate::consumer::preflight;
use crate::consumer::properties;
use crate::consumer::rebalance;
use crate::consumer::rebalance::GroupContext;
use crate::consumer::record::Record;
use crate::consumer::retry;
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
/// How many paused partitions are asked for their end offset per interval, and the timeout of each request.
const PAUSED_REQUESTS: usize = 8;
const PAUSED_TIMEOUT: Duration = Duration::from_millis(200);

/// Consumes topics and calls a handler for each record.
///
/// ```no_run
/// use walrelay_events::consumer::{Config, Consumer, Outcome, Payload, Received, typed};
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
/// let stop = async { drop(tokio::signal::ctrl_c().await) };
/// Consumer::new(config, typed(print)).run(stop).await
/// # }
/// ```
pub struct Consumer {
    config: Config,
    callee: Callee,
    /// How many records of a key are handed over at once.
    max_run: usize,
    observer: Arc<dyn Observer>,
}

impl Consumer {
    /// Creates a consumer. [`Consumer::run`] starts it.
    #[must_use]
    pub fn new(config: Config, handler: impl Handler) -> Self {
        Self { config, callee: Callee::Single(boxed(handler)), max_run: MAX_RUN, observer: Arc::new(()) }
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
        Self { config, callee, max_run: max.max(1), observer: Arc::new(()) }
    }

    /// Sets the observer that receives what the consumer reports.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Consumes until `stop` completes, or until an error. A stop starts no further handlers, waits for running ones,
    /// commits their offsets and leaves the group. Handlers run on the Tokio runtime from which this is called.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let stopping = CancellationToken::new();
        // If this future is dropped, the thread stops soon after.
        let _guard = stopping.clone().drop_guard();
        let (end, ended) = oneshot::channel();
        let (runtime, stops) = (Handle::current(), stopping.clone());
        thread::Builder::new()
            .name("consumer".to_owned())
            .spawn(move || _ = end.send(self.consume(runtime, &stops)))
            .map_err(|error| Error::Thread(error.to_string()))?;
        let mut ended = std::pin::pin!(ended);
        let ended = tokio::select! {
            ended = &mut ended => ended,
            () = stop => {
                stopping.cancel();
                ended.await
            }
        };
        ended.unwrap_or_else(|_| Err(Error::Thread("it panicked".to_owned())))
    }

    fn consume(self, runtime: Handle, stop: &CancellationToken) -> Result<(), Error> {
        let client = properties::properties(&self.config)?;
        // Not read from `client`, which does not return passwords.
        let mut properties = self.config.properties.clone();
        properties.insert("bootstrap.servers".to_owned(), self.config.brokers.clone());
        let producer = Producer::new(&properties).map_err(Error::Configuration)?;
        if !preflight::check(&self.config, &producer, &properties, &*self.observer, stop)? {
            return Ok(());
        }
        let calls = (self.callee, self.max_run);
        let dispatcher = Dispatcher::new(self.config.clone(), calls, self.observer, producer, runtime);
        let dispatcher = Arc::new(Mutex::new(dispatcher));
        loop {
            let context = GroupContext::new(self.config.clone(), Arc::clone(&dispatcher), stop.clone());
            let consumer = client.create_with_context(context).map_err(Error::configuration)?;
            match Loop::join(consumer, &self.config, stop)?.run()? {
                LoopEnd::Stopped => return Ok(()),
                LoopEnd::ClientLost => tracing::warn!("replacing Kafka client that lost every broker"),
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
    /// The client lost every broker.
    ClientLost,
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
        let now = Instant::now();
        Ok(Self { consumer, topics, asked: 0, committed_at: now, polled_at: now, reported_at: now, config, stop })
    }

    fn run(mut self) -> Result<LoopEnd, Error> {
        loop {
            let now = Instant::now();
            let (has_returned, has_failed, is_saturated, balance, wait) = {
                let mut dispatcher = self.consumer.context().dispatcher();
                let has_returned = dispatcher.process(Duration::ZERO);
                dispatcher.start(now);
                let balance = dispatcher.lanes.balance();
                let is_saturated = dispatcher.lanes.is_saturated();
                (has_returned, dispatcher.failure().is_some(), is_saturated, balance, wait(&dispatcher.lanes, now))
            };
            if has_failed || self.stop.is_cancelled() {
                return self.leave().map(|()| LoopEnd::Stopped);
            }
            if self.consumer.context().is_lost() {
                self.abandon(now);
                return Ok(LoopEnd::ClientLost);
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
                self.consumer.context().dispatcher().report_load(now);
            }
            let poll_in = SATURATED_WAIT.saturating_sub(now.duration_since(self.polled_at));
            let has_polled = if is_saturated && !poll_in.is_zero() {
                false
            } else {
                self.polled_at = now;
                self.poll()
            };
            if !has_returned && !has_polled {
                Wakeup::wait(if is_saturated { wait.min(poll_in) } else { wait });
            }
        }
    }

    /// Polls up to a batch of records, or until the buffers may be full. Returns whether there was anything.
    fn poll(&self) -> bool {
        let mut last: Option<TopicPartition> = None;
        for polled in 0..BATCH {
            let Some(message) = self.consumer.poll(Duration::ZERO) else { return polled > 0 };
            match message {
                Ok(message) => {
                    // Consecutive messages are usually of one partition.
                    let (topic, number) = (message.topic(), message.partition());
                    let is_same = |it: &TopicPartition| it.partition == number && *it.topic == *topic;
                    let partition = last.take().filter(is_same);
                    let partition = partition.unwrap_or_else(|| TopicPartition::new(self.topic(topic), number));
                    let mut dispatcher = self.consumer.context().dispatcher();
                    dispatcher.take(&message, &partition);
                    last = Some(partition);
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
        tracing::debug!(error = %error, "poll failed");
        let mut dispatcher = self.consumer.context().dispatcher();
        dispatcher.health.poll_failed(&error);
        if let Some(fatal) = brokers::fatal(&error) {
            dispatcher.fail(fatal);
        }
    }

    /// Continues after records that were deleted while the consumer ran, if the options allow it. Otherwise the
    /// consumer stops.
    fn skip_gaps(&self, error: KafkaError) {
        let mut dispatcher = self.consumer.context().dispatcher();
        let next = self.next_offsets(&dispatcher.lanes);
        let skipped = match positions::gaps(&self.consumer, self.config, &next, self.stop) {
            Ok(Some(offsets)) if !offsets.is_empty() => {
                // A partition that moves back belongs to a recreated topic: its offsets start again.
                let back = offsets.iter().filter(|(it, offset)| dispatcher.lanes.position(it) > Some(*offset));
                let back: Vec<_> = back.cloned().collect();
                for (partition, offset) in &back {
                    dispatcher.lanes.assign(partition.clone());
                    dispatcher.lanes.begin(partition, *offset);
                }
                // Its buffered records were dropped, so it need not be paused.
                let resumed = self.consumer.resume(&brokers::list(back.iter().map(|(partition, _)| partition)));
                resumed.and_then(|()| positions::continue_at(&self.consumer, &offsets)).map_err(Error::client_failed)
            }
            Ok(Some(_)) => return dispatcher.fail(Error::client_failed(error)),
            Ok(None) => Ok(()),
            Err(unknown) => return self.consumer.context().positions_failed(&mut dispatcher, unknown),
        };
        if let Err(error) = skipped {
            dispatcher.fail(error);
        }
    }

    /// Returns the next offset of each assigned partition.
    fn next_offsets(&self, lanes: &Lanes<Record>) -> positions::Offsets {
        let polled = self.consumer.position();
        let next = |partition: &TopicPartition| {
            let found = polled.as_ref().ok()?.find_partition(&partition.topic, partition.partition)?;
            match found.offset() {
                Offset::Offset(next) => Some(next),
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
            }
        };
        let next = |partition: &TopicPartition| next(partition).or_else(|| lanes.position(partition));
        lanes.partitions().filter_map(|partition| Some((partition.clone(), next(partition)?))).collect()
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
            dispatcher.report_lag(partition, end);
        }
        self.asked = if self.asked + PAUSED_REQUESTS < paused.len() { self.asked + PAUSED_REQUESTS } else { 0 };
    }

    fn commit(&self) {
        let context = self.consumer.context();
        let positions = context.dispatcher().lanes.take_positions();
        if let Err(error) = commit::send(&self.consumer, &positions) {
            tracing::debug!(error = %error, "commit failed");
            context.dispatcher().lanes.forget_commits();
        }
    }

    /// Waits for running handlers, as before a revocation. Their offsets cannot be committed, so their events may be
    /// delivered again.
    fn abandon(self, now: Instant) {
        let mut dispatcher = self.consumer.context().dispatcher();
        let partitions: Vec<TopicPartition> = dispatcher.lanes.partitions().cloned().collect();
        dispatcher.finish(&partitions, CancelReason::Revoked, retry::after(now, self.config.revoke_timeout));
        dispatcher.release(&partitions);
        dispatcher.health.client_replaced();
        drop(dispatcher);
        // Without a coordinator, closing the client can take as long as a session timeout.
        thread::spawn(move || drop(self.consumer));
    }

    /// Waits for running handlers, commits their offsets, and leaves the group.
    fn leave(self) -> Result<(), Error> {
        let context = Arc::clone(self.consumer.context());
        let (running, pending, failure) = {
            let mut dispatcher = context.dispatcher();
            let partitions: Vec<TopicPartition> = dispatcher.lanes.partitions().cloned().collect();
            let timeout = self.config.shutdown_timeout;
            rebalance::finish(&self.consumer, &mut dispatcher, &partitions, CancelReason::Stopping, timeout);
            // Another member handles the records of revoked partitions.
            let running = partitions.iter().map(|partition| dispatcher.lanes.running_of(partition)).sum();
            let pending = dispatcher.pending_dead_letters(running);
            dispatcher.release(&partitions);
            (running, pending, dispatcher.failure().cloned())
        };
        // Closing the consumer leaves the group.
        drop(self.consumer);
        match failure.or(pending) {
            Some(error) => Err(error),
            None if running > 0 => Err(Error::ShutdownTimeout { running }),
            None => Ok(()),
        }
    }
}

/// Returns how long the loop may wait: at most until the next backoff ends.
fn wait(lanes: &Lanes<Record>, now: Instant) -> Duration {
    lanes.wakes_at().map_or(WAIT, |at| at.saturating_duration_since(now).min(WAIT))
}
