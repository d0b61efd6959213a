//! Dispatches buffered records to handlers, and processes what they return. The consumer's thread never waits for a
//! handler.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::message::Message;
use tokio::runtime::Handle;

use crate::consumer::budget::BudgetTracker;
use crate::consumer::config::Config;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dead_letter_write::DeadLetterWrites;
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
use crate::consumer::starter::Returned;
use crate::consumer::starter::Starter;
use crate::consumer::starter::Written;
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
    writes: DeadLetterWrites,
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
        let writes = DeadLetterWrites::new(producer, &config, runtime.clone(), returns.clone());
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
            writes,
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
            self.writes.cancel(partition);
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

    /// Returns an error if records wait for their dead-letter topic. `running` includes them.
    pub(super) fn pending_dead_letters(&self, running: usize) -> Option<Error> {
        let (records, pending) = self.writes.pending()?;
        Some(Error::DeadLettersPending {
            records,
            record: pending.record.clone(),
            topic: pending.topic.clone(),
            error: pending.error.clone().unwrap_or_else(|| "none, Kafka has not answered yet".to_owned()),
            running: running.saturating_sub(records),
        })
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
            Returned::Write(number, written) => self.written(number, written),
        }
    }

    fn written(&mut self, number: u64, written: Written) {
        match written {
            Written::Done { job, reason } => {
                self.writes.ended(number);
                self.observe(&Observed::DeadLettered { record: &job.record, reason: &reason });
                self.lanes.done(&job);
            }
            Written::Failed { record, error } => {
                let error = self.writes.failed(number, &record, &error, Instant::now());
                self.observe(&Observed::DeadLetterFailed { record: &record, error: &error });
            }
            Written::Refused { job, error } => {
                let text = self.writes.failed(number, &job.record, &error, Instant::now());
                self.writes.ended(number);
                self.observe(&Observed::DeadLetterFailed { record: &job.record, error: &text });
                self.fail(Error::DeadLetterRefused { record: job.record.to_string(), source: error });
                self.keep(job);
            }
            Written::Cancelled { job } => {
                self.writes.ended(number);
                self.keep(job);
            }
        }
    }

    /// Keeps a record that is not done in its lane until the consumer has stopped, so that its offset is not committed.
    /// A record of a revoked partition is dropped.
    fn keep(&mut self, job: Job<Record>) {
        self.lanes.retry(job, retry::after(Instant::now(), self.config.retry.max_backoff));
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
            return self.keep(job);
        }
        tracing::warn!(record = %job.record, reason, "dead-lettering record");
        self.writes.start(job, reason);
    }
}
