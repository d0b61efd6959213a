//! Runs handlers over lanes: starts what may start, and settles what comes back.
//!
//! Handlers run on the application's runtime, the consumer's own thread never waits for one. Many are started by one task,
//! which polls each once: a handler that is done at once costs no task of its own, one that waits gets one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use rdkafka::message::Message;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::consumer::budget::Budget;
use crate::consumer::call::Call;
use crate::consumer::config::Config;
use crate::consumer::dead_letter;
use crate::consumer::dead_letter::Provenance;
use crate::consumer::error::Error;
use crate::consumer::handler::Delivery;
use crate::consumer::handler::Erased;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Limits;
use crate::consumer::lanes::Partition;
use crate::consumer::observe::Fate;
use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::retry::Policy;
use crate::consumer::retry::later;
use crate::consumer::verdict;
use crate::consumer::verdict::Verdict;
use crate::consumer::watch::Watch;

/// How many handlers one task starts.
const CHUNK: usize = 64;
/// A handler that takes this long before it first waits is real work: the rest of its chunk goes to another task.
const LONG: Duration = Duration::from_micros(200);

/// What comes back to the consumer's thread.
enum Returned {
    /// From a handler.
    Handled { job: Job<Record>, outcome: Outcome, took: Duration },
    /// From the dead-letter topic.
    Buried { job: Job<Record>, reason: String },
    /// The dead-letter topic does not take it yet; it is tried again.
    Blocked { record: Record, error: String },
}

/// Everything that is in hand.
pub(super) struct Handling {
    pub(super) lanes: Lanes<Record>,
    budget: Budget<Partition>,
    config: Config,
    starter: Starter,
    returned: mpsc::Receiver<Vec<Returned>>,
    pool: Pool,
    observer: Arc<dyn Observer>,
    pub(super) watch: Watch,
    letters: Arc<dead_letter::Producer>,
    /// End what still tries to deliver dead letters of a partition.
    over: HashMap<Partition, DropGuard>,
    /// Why the consumer must stop.
    failed: Option<Error>,
}

/// What a task needs to run handlers.
#[derive(Clone)]
struct Starter {
    handler: Erased,
    group: Arc<str>,
    runtime: Handle,
    returns: mpsc::Sender<Vec<Returned>>,
}

impl Handling {
    pub(super) fn new(
        config: Config,
        handler: Erased,
        observer: Arc<dyn Observer>,
        letters: dead_letter::Producer,
        runtime: Handle,
    ) -> Self {
        let (returns, returned) = mpsc::channel();
        let limits =
            Limits { running_max: config.running_max, records_max: config.records_max, bytes_max: config.bytes_max };
        Self {
            lanes: Lanes::new(limits),
            budget: Budget::new(config.dead_letters.limit.clone()),
            starter: Starter { handler, group: config.group.as_str().into(), runtime, returns },
            returned,
            pool: Pool::default(),
            watch: Watch::new(Arc::clone(&observer)),
            observer,
            letters: Arc::new(letters),
            over: HashMap::new(),
            failed: None,
            config,
        }
    }

    /// Takes a record from Kafka, whose partition this is. One of a partition that is not ours is dropped.
    pub(super) fn take(&mut self, message: &impl Message, partition: &Partition) {
        let record = Record::copy(message, partition, &mut self.pool);
        let (bytes, offset) = (record.cost(), record.offset());
        self.lanes.take(partition, offset, message.key(), bytes, record);
    }

    /// Starts whatever may start.
    pub(super) fn start(&mut self, now: Instant) {
        let mut chunk = Vec::new();
        while let Some(job) = self.lanes.start(now) {
            chunk.push(job);
            if chunk.len() == CHUNK {
                self.starter.start(std::mem::take(&mut chunk));
            }
        }
        if !chunk.is_empty() {
            self.starter.start(chunk);
        }
    }

    /// Settles what has come back, and waits up to `wait` for the first.
    pub(super) fn settle(&mut self, wait: Duration) {
        let first = if wait.is_zero() { self.returned.try_recv().ok() } else { self.returned.recv_timeout(wait).ok() };
        let mut next = first;
        while let Some(batch) = next {
            for returned in batch {
                self.settle_one(returned);
            }
            next = self.returned.try_recv().ok();
        }
    }

    /// Lets what runs of these partitions come to its end, until a time.
    pub(super) fn finish(&mut self, partitions: &[Partition], until: Instant) {
        for partition in partitions {
            self.lanes.close(partition);
        }
        while partitions.iter().any(|partition| self.lanes.running_of(partition) > 0) {
            let now = Instant::now();
            let Some(left) = until.checked_duration_since(now) else { return };
            self.settle(left.min(Duration::from_millis(20)));
            // Partitions that stay go on meanwhile.
            self.start(now);
        }
    }

    /// Gives partitions up.
    pub(super) fn forget(&mut self, partitions: &[Partition]) {
        let mut unfinished = 0;
        for partition in partitions {
            unfinished += self.lanes.revoke(partition);
            self.budget.forget(partition);
            self.over.remove(partition);
            self.watch.given_up(partition);
        }
        if unfinished > 0 {
            self.observer.observe(&Observed::Revoked { unfinished });
        }
    }

    /// Notes why the consumer must stop; the first reason counts.
    pub(super) fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// Tells why the consumer must stop, if it must.
    pub(super) const fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Tells where a partition ends, if it is ours.
    pub(super) fn ends_at(&mut self, partition: &Partition, end: i64) {
        if let Some(done) = self.lanes.position(partition) {
            self.watch.end(partition, end, done);
        }
    }

    /// Tells what is held.
    pub(super) fn tell(&mut self, now: Instant) {
        let longest = self.lanes.longest();
        self.watch.running(longest, now);
        let longest = longest.map_or(Duration::ZERO, |(_, began)| now.saturating_duration_since(began));
        self.observe(&Observed::Held { running: self.lanes.running(), longest, bytes: self.lanes.bytes() });
    }

    fn observe(&self, observed: &Observed<'_>) {
        self.observer.observe(observed);
    }

    fn settle_one(&mut self, returned: Returned) {
        match returned {
            Returned::Handled { job, outcome, took } => self.handled(job, outcome, took),
            Returned::Buried { job, reason } => {
                self.observer.observe(&Observed::DeadLettered { record: &job.record, reason: &reason });
                self.lanes.done(&job);
            }
            Returned::Blocked { record, error } => {
                tracing::warn!(%record, error, "the dead-letter topic does not take a record: nothing behind it is committed");
                self.observer.observe(&Observed::DeadLetterBlocked { record: &record, error: &error });
            }
        }
    }

    fn handled(&mut self, mut job: Job<Record>, outcome: Outcome, took: Duration) {
        let noise = job.noise() ^ u64::from(took.subsec_nanos());
        match verdict::judge(outcome, &mut job.tries, &mut job.waits, &self.config.retry, noise) {
            Verdict::Done => {
                self.budget.done(job.record.whence());
                self.observe(&Observed::Handled { record: &job.record, fate: Fate::Done, took });
                self.lanes.done(&job);
                self.pool.give(job.record);
            }
            Verdict::Later { pause, reason } => {
                tracing::debug!(record = %job.record, reason, tries = job.tries, "trying again");
                self.observe(&Observed::Handled { record: &job.record, fate: Fate::Retried, took });
                self.lanes.retry(job, later(Instant::now(), pause));
            }
            Verdict::Rejected { reason } => {
                self.observe(&Observed::Handled { record: &job.record, fate: Fate::Rejected, took });
                self.reject(job, reason);
            }
        }
    }

    fn reject(&mut self, job: Job<Record>, reason: String) {
        if let Err(exceeded) = self.budget.reject(job.record.whence()) {
            self.fail(Error::TooManyRejected { record: job.record.to_string(), exceeded, reason });
            // It waits for the next start of the consumer, and holds its place until then.
            return self.lanes.retry(job, later(Instant::now(), self.config.retry.longest_pause));
        }
        tracing::warn!(record = %job.record, reason, "rejected: to the dead-letter topic");
        let letter = Letter {
            topic: self.config.dead_letter_topic(job.record.topic()),
            provenance: Provenance::of(&job.record, &self.config.group, &reason, job.tries),
            names: self.config.dead_letters.names,
            policy: self.config.retry.clone(),
        };
        let whence = job.record.whence().clone();
        let bury = bury(Arc::clone(&self.letters), letter, job, reason, self.starter.returns.clone());
        let new = || CancellationToken::new().drop_guard();
        let over = self.over.entry(whence).or_insert_with(new).token().clone();
        self.starter.runtime.spawn(async move { over.run_until_cancelled(bury).await });
    }
}

/// What goes to the dead-letter topic besides the record.
struct Letter {
    topic: String,
    provenance: Provenance,
    names: dead_letter::Names,
    policy: Policy,
}

/// Brings a record to the dead-letter topic, however long that takes.
async fn bury(
    letters: Arc<dead_letter::Producer>,
    letter: Letter,
    job: Job<Record>,
    reason: String,
    returns: mpsc::Sender<Vec<Returned>>,
) {
    let mut tries = 0_u32;
    loop {
        let Err(error) = letters.bury(&letter.topic, &job.record, &letter.provenance, letter.names).await else {
            let _ = returns.send(vec![Returned::Buried { job, reason }]);
            return;
        };
        tries = (tries + 1).min(letter.policy.tries_max.saturating_sub(1));
        let blocked = Returned::Blocked { record: job.record.clone(), error: format!("{}: {error}", letter.topic) };
        let _ = returns.send(vec![blocked]);
        let pause = letter.policy.pause(tries, job.noise()).unwrap_or(letter.policy.longest_pause);
        tokio::time::sleep(pause).await;
    }
}

impl Starter {
    /// Runs handlers on the application's runtime.
    fn start(&self, jobs: Vec<Job<Record>>) {
        let starter = self.clone();
        self.runtime.spawn(async move { starter.run(jobs).await });
    }

    async fn run(self, jobs: Vec<Job<Record>>) {
        let mut returned = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        let mut next_began = Instant::now();
        while let Some(job) = jobs.next() {
            let began = next_began;
            if job.record.has_unreadable_headers() {
                // Without its headers nobody can tell what it is.
                let outcome = Outcome::reject("a header whose name is not UTF-8: its headers cannot be read");
                returned.push(Returned::Handled { job, outcome, took: Duration::ZERO });
                continue;
            }
            let delivery = Delivery { record: job.record.clone(), tries: job.tries };
            let mut call = Call::new(&self.handler, delivery, &self.group);
            let first = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut call).poll(context))).await;
            // One look at the clock for each: where one ends, the next begins.
            next_began = Instant::now();
            let took = next_began.duration_since(began);
            match first {
                Poll::Ready(outcome) => returned.push(Returned::Handled { job, outcome, took }),
                Poll::Pending => {
                    let returns = self.returns.clone();
                    self.runtime.spawn(async move {
                        let outcome = call.await;
                        let _ = returns.send(vec![Returned::Handled { job, outcome, took: began.elapsed() }]);
                    });
                }
            }
            if took > LONG && jobs.len() > 0 {
                self.start(jobs.by_ref().collect());
            }
        }
        if !returned.is_empty() {
            let _ = self.returns.send(returned);
        }
    }
}
