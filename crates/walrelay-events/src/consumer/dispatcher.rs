//! Dispatches buffered records to handlers, and processes what they return. The consumer's thread never waits for a
//! handler.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::message::Message;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::consumer::budget::BudgetTracker;
use crate::consumer::config::Config;
use crate::consumer::dead_letter::HeaderFormat;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dead_letter::Provenance;
use crate::consumer::error::Error;
use crate::consumer::handler::BoxedHandler;
use crate::consumer::health::Health;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Limits;
use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::retry;
use crate::consumer::retry::RetryPolicy;
use crate::consumer::starter::Returned;
use crate::consumer::starter::Starter;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::verdict;
use crate::consumer::verdict::Verdict;

/// How many handlers one task starts.
const CHUNK: usize = 64;

/// Everything between the records that Kafka delivered and the positions that can be committed.
pub(super) struct Dispatcher {
    pub(super) lanes: Lanes<Record>,
    pub(super) health: Health,
    budget: BudgetTracker<TopicPartition>,
    config: Config,
    starter: Starter,
    returned: mpsc::Receiver<Vec<Returned>>,
    pool: Pool,
    observer: Arc<dyn Observer>,
    producer: Arc<Producer>,
    /// Cancel the dead-letter writes of a partition when dropped.
    writes: HashMap<TopicPartition, DropGuard>,
    /// Why the consumer must stop.
    failure: Option<Error>,
}

impl Dispatcher {
    pub(super) fn new(
        config: Config,
        handler: BoxedHandler,
        observer: Arc<dyn Observer>,
        producer: Producer,
        runtime: Handle,
    ) -> Self {
        let (returns, returned) = mpsc::channel();
        let limits = Limits {
            max_concurrency: config.max_concurrency,
            max_buffered_records: config.max_buffered_records,
            max_buffered_bytes: config.max_buffered_bytes,
        };
        Self {
            lanes: Lanes::new(limits),
            health: Health::new(Arc::clone(&observer)),
            budget: BudgetTracker::new(config.dead_letters.budget.clone()),
            starter: Starter { handler, group: config.group.as_str().into(), runtime, returns },
            returned,
            pool: Pool::default(),
            observer,
            producer: Arc::new(producer),
            writes: HashMap::new(),
            failure: None,
            config,
        }
    }

    /// Buffers a record of a partition. It is dropped if the partition is not assigned.
    pub(super) fn take(&mut self, message: &impl Message, partition: &TopicPartition) {
        let record = Record::copy(message, partition, &mut self.pool);
        let (bytes, offset) = (record.cost(), record.offset());
        self.lanes.take(partition, offset, message.key(), bytes, record);
    }

    /// Starts handlers for the records that can start.
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

    /// Processes what handlers returned. Waits up to `wait` for the first one.
    pub(super) fn process(&mut self, wait: Duration) {
        let first = if wait.is_zero() { self.returned.try_recv().ok() } else { self.returned.recv_timeout(wait).ok() };
        let mut next = first;
        while let Some(batch) = next {
            for returned in batch {
                self.process_one(returned);
            }
            next = self.returned.try_recv().ok();
        }
    }

    /// Waits for the running handlers of partitions, until a deadline, and starts no further ones for them.
    pub(super) fn finish(&mut self, partitions: &[TopicPartition], deadline: Instant) {
        for partition in partitions {
            self.lanes.close(partition);
        }
        while partitions.iter().any(|partition| self.lanes.running_of(partition) > 0) {
            let now = Instant::now();
            let Some(remaining) = deadline.checked_duration_since(now) else { return };
            self.process(remaining.min(Duration::from_millis(20)));
            // Partitions that stay assigned continue.
            self.start(now);
        }
    }

    /// Releases partitions that were revoked or lost.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        let mut records = 0;
        for partition in partitions {
            records += self.lanes.revoke(partition);
            self.budget.revoked(partition);
            self.writes.remove(partition);
            self.health.revoked(partition);
        }
        if records > 0 {
            self.observe(&Observed::RevokedInFlight { records });
        }
    }

    /// Stops the consumer with an error. The first one counts.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Returns why the consumer must stop.
    pub(super) const fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Reports the lag of a partition, if it is assigned.
    pub(super) fn report_lag(&mut self, partition: &TopicPartition, end: i64) {
        if let Some(position) = self.lanes.position(partition) {
            self.health.lag(partition, end, position);
        }
    }

    /// Reports what is in flight and buffered.
    pub(super) fn report_load(&mut self, now: Instant) {
        let oldest = self.lanes.oldest_running();
        self.health.oldest_handler(oldest, now);
        self.observe(&Observed::Load {
            handlers_in_flight: self.lanes.running(),
            longest_handler: oldest.map_or(Duration::ZERO, |(_, started)| now.saturating_duration_since(started)),
            buffered_records: self.lanes.records(),
            buffered_bytes: self.lanes.bytes(),
        });
    }

    fn observe(&self, observed: &Observed<'_>) {
        self.observer.observe(observed);
    }

    fn process_one(&mut self, returned: Returned) {
        match returned {
            Returned::Handled { job, outcome, took } => self.handled(job, outcome, took),
            Returned::DeadLettered { job, reason } => {
                self.observe(&Observed::DeadLettered { record: &job.record, reason: &reason });
                self.lanes.done(&job);
            }
            Returned::DeadLetterFailed { record, error } => {
                tracing::warn!(%record, error, "dead-letter write failed");
                self.observe(&Observed::DeadLetterFailed { record: &record, error: &error });
            }
        }
    }

    fn handled(&mut self, mut job: Job<Record>, outcome: Outcome, took: Duration) {
        let seed = job.jitter_seed() ^ u64::from(took.subsec_nanos());
        let policy = &self.config.retry;
        let verdict = verdict::decide(outcome, &mut job.attempts, &mut job.transient_failures, policy, seed);
        self.observe(&Observed::Handled { record: &job.record, verdict: &verdict, took });
        match verdict {
            Verdict::Ack => {
                self.budget.acked(job.record.topic_partition());
                self.lanes.done(&job);
                self.pool.put(job.record);
            }
            Verdict::Retry { backoff, reason } => {
                tracing::debug!(record = %job.record, reason, attempts = job.attempts, ?backoff, "retrying");
                self.lanes.retry(job, retry::after(Instant::now(), backoff));
            }
            Verdict::DeadLetter { reason } => self.dead_letter(job, reason),
        }
    }

    fn dead_letter(&mut self, job: Job<Record>, reason: String) {
        let partition = job.record.topic_partition().clone();
        if let Err(exceeded) = self.budget.dead_letter(&partition) {
            self.fail(Error::DeadLetterBudgetExceeded { record: job.record.to_string(), exceeded, reason });
            // The record stays in its lane until the consumer has stopped, so that its offset is not committed.
            return self.lanes.retry(job, retry::after(Instant::now(), self.config.retry.max_backoff));
        }
        tracing::warn!(record = %job.record, reason, "dead-lettering record");
        let write = DeadLetterWrite {
            topic: self.config.dead_letter_topic(job.record.topic()),
            provenance: Provenance::of(&job.record, &self.config.group, &reason, job.attempts),
            header_format: self.config.dead_letters.header_format,
            policy: self.config.retry.clone(),
        };
        let write = write.run(Arc::clone(&self.producer), job, reason, self.starter.returns.clone());
        let new = || CancellationToken::new().drop_guard();
        let cancelled = self.writes.entry(partition).or_insert_with(new).token().clone();
        self.starter.runtime.spawn(async move { cancelled.run_until_cancelled(write).await });
    }
}

/// A write to a dead-letter topic that is retried until it succeeds.
struct DeadLetterWrite {
    topic: String,
    provenance: Provenance,
    header_format: HeaderFormat,
    policy: RetryPolicy,
}

impl DeadLetterWrite {
    async fn run(
        self,
        producer: Arc<Producer>,
        job: Job<Record>,
        reason: String,
        returns: mpsc::Sender<Vec<Returned>>,
    ) {
        let Self { topic, provenance, header_format, policy } = self;
        let mut attempts = 0_u32;
        loop {
            let written = producer.write_dead_letter(&topic, &job.record, &provenance, header_format).await;
            let Err(error) = written else {
                let _ = returns.send(vec![Returned::DeadLettered { job, reason }]);
                return;
            };
            attempts = (attempts + 1).min(policy.max_attempts.saturating_sub(1));
            let error = format!("{topic}: {error}");
            let _ = returns.send(vec![Returned::DeadLetterFailed { record: job.record.clone(), error }]);
            let backoff = policy.backoff(attempts, job.jitter_seed()).unwrap_or(policy.max_backoff);
            tokio::time::sleep(backoff).await;
        }
    }
}
