//! The loop of a consumer: settle, start, commit, and only then take more.
//!
//! It runs on a thread of its own, because librdkafka is polled by waiting. It never waits for a handler, so the group stays
//! alive however long a handler takes.

use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::dead_letter;
use crate::consumer::error::Error;
use crate::consumer::handler::Erased;
use crate::consumer::handler::Handler;
use crate::consumer::handler::erase;
use crate::consumer::handling::Handling;
use crate::consumer::kafka;
use crate::consumer::kafka::Context;
use crate::consumer::lanes::Balance;
use crate::consumer::lanes::Partition;
use crate::consumer::observe::Observer;
use crate::consumer::positions;
use crate::consumer::preflight;
use crate::consumer::retry::later;

/// How many records are taken between two looks at what has come back.
const BATCH: usize = 512;
/// How long a poll waits while handlers run, and while none does.
const BUSY_WAIT: Duration = Duration::from_millis(1);
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// While more records would only wait behind others, none is taken for so long. Not for longer: a rebalance comes through
/// the same queue, behind what librdkafka has fetched.
const PLENTY_WAIT: Duration = Duration::from_millis(20);
/// How often the observer is told what is held.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// How many paused partitions are looked at then, and how long a broker may take to answer.
const LOOKS: usize = 8;
const LOOK: Duration = Duration::from_millis(200);

/// Takes events from Kafka to a handler.
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
/// async fn tell(received: Received<OrderEvent>) -> Outcome {
///     if let Payload::Event(OrderEvent::OrderCreated { total_cents }) = received.event {
///         println!("an order of {total_cents} cents");
///     }
///     Outcome::Done
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), walrelay_events::consumer::Error> {
/// let config = Config::new("localhost:9092", "telling", &["order-events"]);
/// let stop = async { drop(tokio::signal::ctrl_c().await) };
/// Consumer::new(config, typed(tell)).run(stop).await
/// # }
/// ```
pub struct Consumer {
    config: Config,
    handler: Erased,
    observer: Arc<dyn Observer>,
}

impl Consumer {
    /// Prepares a consumer.
    #[must_use]
    pub fn new(config: Config, handler: impl Handler) -> Self {
        Self { config, handler: erase(handler), observer: Arc::new(()) }
    }

    /// Tells an observer what happens.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Consumes until `stop` is ready: then nothing more is started, what runs may end, its offsets are committed, and the
    /// group is left. Or until an error that a person must act on. Handlers run on the Tokio runtime this is called from.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let stopping = CancellationToken::new();
        // If this future is dropped, the thread ends soon after.
        let _guard = stopping.clone().drop_guard();
        let (tell, ended) = oneshot::channel();
        let (runtime, stops) = (Handle::current(), stopping.clone());
        thread::Builder::new()
            .name("consumer".to_owned())
            .spawn(move || _ = tell.send(self.consume(runtime, &stops)))
            .map_err(|error| Error::Thread(error.to_string()))?;
        let mut ended = std::pin::pin!(ended);
        let ended = tokio::select! {
            ended = &mut ended => ended,
            () = stop => {
                stopping.cancel();
                ended.await
            }
        };
        ended.unwrap_or_else(|_| Err(Error::Thread("it ended by a panic".to_owned())))
    }

    fn consume(self, runtime: Handle, stop: &CancellationToken) -> Result<(), Error> {
        let client = kafka::properties(&self.config)?;
        // Not out of the client's own, which gives no passwords away.
        let mut properties = self.config.properties.clone();
        properties.insert("bootstrap.servers".to_owned(), self.config.brokers.clone());
        let letters = dead_letter::Producer::new(&properties).map_err(Error::Configuration)?;
        if !preflight::check(&self.config, &letters, &properties, stop)? {
            return Ok(());
        }
        let handling = Handling::new(self.config.clone(), self.handler, self.observer, letters, runtime);
        let handling = Arc::new(Mutex::new(handling));
        loop {
            let context = Context::new(self.config.clone(), Arc::clone(&handling), stop.clone());
            let consumer = kafka::create(client.clone(), context)?;
            match Loop::join(consumer, &self.config, stop)?.run()? {
                Left::Stopped => return Ok(()),
                Left::Lost => {
                    tracing::warn!("this client reaches no broker any more: joining the group with a new one");
                }
            }
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a group was left.
enum Left {
    /// A stop was asked for.
    Stopped,
    /// The client reaches nobody any more.
    Lost,
}

struct Loop<'c> {
    consumer: BaseConsumer<Context>,
    /// One name for all records of a topic.
    topics: Vec<Arc<str>>,
    /// How many of the paused partitions have been looked at in this round.
    looked: usize,
    committed_at: Instant,
    taken_at: Instant,
    told_at: Instant,
    config: &'c Config,
    stop: &'c CancellationToken,
}

impl<'c> Loop<'c> {
    fn join(consumer: BaseConsumer<Context>, config: &'c Config, stop: &'c CancellationToken) -> Result<Self, Error> {
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(Error::Configuration)?;
        let topics = topics.into_iter().map(Arc::from).collect();
        let now = Instant::now();
        Ok(Self { consumer, topics, looked: 0, committed_at: now, taken_at: now, told_at: now, config, stop })
    }

    fn run(mut self) -> Result<Left, Error> {
        loop {
            let now = Instant::now();
            let (is_failed, has_plenty, balance, wait) = {
                let mut handling = self.consumer.context().handling();
                handling.settle(Duration::ZERO);
                handling.start(now);
                let balance = handling.lanes.balance();
                (handling.failed().is_some(), handling.lanes.has_plenty(), balance, self.wait(&handling, now))
            };
            if is_failed || self.stop.is_cancelled() {
                return self.leave().map(|()| Left::Stopped);
            }
            if self.consumer.context().is_lost() {
                self.give_up(now);
                return Ok(Left::Lost);
            }
            if let Some(balance) = balance {
                self.balance(&balance)?;
            }
            if now.duration_since(self.committed_at) >= self.config.commit_interval {
                self.committed_at = now;
                self.commit();
            }
            if now.duration_since(self.told_at) >= TELL_INTERVAL {
                self.told_at = now;
                self.look_at_paused();
                self.consumer.context().handling().tell(now);
            }
            if has_plenty && now.duration_since(self.taken_at) < PLENTY_WAIT {
                self.consumer.context().handling().settle(wait);
            } else {
                self.taken_at = now;
                self.take(wait);
            }
        }
    }

    fn wait(&self, handling: &Handling, now: Instant) -> Duration {
        let idle = if handling.lanes.running() > 0 { BUSY_WAIT } else { IDLE_WAIT };
        handling.lanes.wakes_at().map_or(idle, |at| at.saturating_duration_since(now).min(idle))
    }

    /// Takes what Kafka has, up to a batch or to what may be held; waits only for the first.
    fn take(&self, wait: Duration) {
        let mut wait = wait;
        let mut last: Option<Partition> = None;
        for _ in 0..BATCH {
            let Some(polled) = self.consumer.poll(wait) else { return };
            match polled {
                Ok(message) => {
                    // Messages come in runs of one partition.
                    let (topic, number) = (message.topic(), message.partition());
                    let is_same = |it: &Partition| it.number == number && *it.topic == *topic;
                    let partition = last.take().filter(is_same);
                    let partition = partition.unwrap_or_else(|| Partition { topic: self.topic(topic), number });
                    let mut handling = self.consumer.context().handling();
                    handling.take(&message, &partition);
                    last = Some(partition);
                    // Large records fill memory long before a batch is full.
                    if handling.lanes.may_be_full() {
                        return;
                    }
                }
                Err(error) => return self.poll_failed(error),
            }
            wait = Duration::ZERO;
        }
    }

    fn topic(&self, name: &str) -> Arc<str> {
        let known = self.topics.iter().find(|known| &***known == name);
        known.map_or_else(|| Arc::from(name), Arc::clone)
    }

    fn poll_failed(&self, error: KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            return self.pass_gaps(error);
        }
        tracing::debug!(error = %error, "Kafka");
        self.consumer.context().handling().watch.failed(&error);
        if let Some(error) = kafka::judge(&error) {
            self.consumer.context().handling().fail(error);
        }
    }

    /// Goes on behind the records that are gone while we ran, if the options say so; else the consumer ends.
    fn pass_gaps(&self, error: KafkaError) {
        let mut handling = self.consumer.context().handling();
        let next = kafka::next(&self.consumer, &handling.lanes);
        let passed = match positions::gaps(&self.consumer, self.config, &next, self.stop) {
            Ok(Some(places)) if !places.is_empty() => {
                // A partition that goes back is another one under the same name: its offsets begin again.
                let back = places.iter().filter(|(it, offset)| handling.lanes.position(it) > Some(*offset));
                let back: Vec<_> = back.cloned().collect();
                for (partition, offset) in &back {
                    handling.lanes.assign(partition.clone());
                    handling.lanes.begin(partition, *offset);
                }
                // What was held of them is gone, and with it the reason of a pause.
                let resumed = self.consumer.resume(&kafka::list(back.iter().map(|(partition, _)| partition)));
                resumed.and_then(|()| kafka::go_on_at(&self.consumer, &places)).map_err(Error::Failed)
            }
            Ok(Some(_)) => return handling.fail(Error::Failed(error)),
            Ok(None) => Ok(()),
            Err(unknown) => return self.consumer.context().give_up(&mut handling, unknown),
        };
        if let Err(error) = passed {
            handling.fail(error);
        }
    }

    fn balance(&self, Balance { pause, resume }: &Balance) -> Result<(), Error> {
        if !pause.is_empty() {
            self.consumer.pause(&kafka::list(pause)).map_err(Error::Failed)?;
        }
        if !resume.is_empty() {
            self.consumer.resume(&kafka::list(resume)).map_err(Error::Failed)?;
        }
        Ok(())
    }

    /// Asks where paused partitions end, a few at a time: they are not fetched, so their statistics stand still.
    fn look_at_paused(&mut self) {
        let mut handling = self.consumer.context().handling();
        let paused: Vec<Partition> = handling.lanes.paused().cloned().collect();
        for partition in paused.iter().skip(self.looked).take(LOOKS) {
            let held = self.consumer.fetch_watermarks(&partition.topic, partition.number, LOOK);
            // Whoever does not answer one question at once is not asked another.
            let Ok((_, end)) = held else { break };
            handling.ends_at(partition, end);
        }
        self.looked = if self.looked + LOOKS < paused.len() { self.looked + LOOKS } else { 0 };
    }

    fn commit(&self) {
        let context = self.consumer.context();
        let positions = context.handling().lanes.take_positions();
        if let Err(error) = commit::soon(&self.consumer, &positions) {
            tracing::debug!(error = %error, "a commit failed; it is tried again");
            context.handling().lanes.forget_commits();
        }
    }

    /// Lets what runs come to its end, as before a partition goes. Nothing can be committed: it may come again.
    fn give_up(self, now: Instant) {
        let mut handling = self.consumer.context().handling();
        let partitions: Vec<Partition> = handling.lanes.partitions().cloned().collect();
        handling.finish(&partitions, later(now, self.config.revoke_drain));
        handling.forget(&partitions);
        handling.watch.renewed();
        drop(handling);
        // Commits that no coordinator takes hold its end up for as long as a session.
        thread::spawn(move || drop(self.consumer));
    }

    /// Lets what runs come to its end, commits it, and leaves the group.
    fn leave(self) -> Result<(), Error> {
        let context = Arc::clone(self.consumer.context());
        let (running, failed) = {
            let mut handling = context.handling();
            let partitions: Vec<Partition> = handling.lanes.partitions().cloned().collect();
            kafka::finish(&self.consumer, &mut handling, &partitions, self.config.drain);
            let running = handling.lanes.running();
            handling.forget(&partitions);
            (running, handling.failed().cloned())
        };
        // Closes the consumer: the group hears of it at once.
        drop(self.consumer);
        match failed {
            Some(error) => Err(error),
            None if running > 0 => Err(Error::DrainTimeout { running }),
            None => Ok(()),
        }
    }
}
