//! Dispatches buffered records to handlers, and processes what they return. The consumer's thread never waits for a
//! handler.

mod settle;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::message::BorrowedMessage;
use rdkafka::message::Message as _;
use tokio::runtime::Handle;

use crate::consumer::beginning::Beginnings;
use crate::consumer::budget::BudgetTracker;
use crate::consumer::call::Callee;
use crate::consumer::cancellation::CancelReason;
use crate::consumer::cancellation::Cancellations;
use crate::consumer::config::Config;
use crate::consumer::control::Control;
use crate::consumer::control::State;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dead_letter_write::DeadLetterWrites;
use crate::consumer::error::Error;
use crate::consumer::health::Health;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Limits;
use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::record::Pool;
use crate::consumer::record::Record;
use crate::consumer::starter::Returned;
use crate::consumer::starter::Starter;
use crate::consumer::starter::Starting;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::waiting::Waiting;
use crate::consumer::wakeup::Sender;
use crate::consumer::wakeup::Wakeup;

/// How long handlers are started for partitions that are being revoked.
const CLOSE_UP: Duration = Duration::from_millis(500);
/// How many records one task handles before its results are processed.
const CHUNK: usize = 256;

/// Everything between the records that Kafka delivered and the positions that can be committed.
pub(super) struct Dispatcher {
    pub(super) lanes: Lanes<Record>,
    pub(super) health: Health,
    /// Where the group began in topics, as long as that must be committed.
    pub(super) beginnings: Beginnings,
    budget: BudgetTracker<TopicPartition>,
    waiting: Waiting,
    config: Config,
    starter: Arc<Starter>,
    returned: mpsc::Receiver<Vec<Returned>>,
    cancellations: Cancellations,
    pool: Pool,
    observer: Arc<dyn Observer>,
    writes: DeadLetterWrites,
    control: Control,
    /// Set when the consumer stops: handlers are started until then, if records before others are not done.
    closes_up_until: Option<Instant>,
    /// Why the consumer must stop.
    failure: Option<Error>,
}

impl Dispatcher {
    /// Creates it on the thread that runs it. A run has at most `max_run` records.
    pub(super) fn new(
        config: Config,
        (callee, max_run): (Callee, usize),
        observer: Arc<dyn Observer>,
        control: Control,
        producer: Arc<Producer>,
        runtime: Handle,
    ) -> Self {
        let (sender, returned) = mpsc::channel();
        let returns = Sender::new(sender, Wakeup::new());
        let writes = DeadLetterWrites::new(producer, &config, runtime.clone(), returns.clone());
        let limits = Limits {
            max_concurrency: config.max_concurrency,
            max_run,
            max_buffered_records: config.max_buffered_records,
            max_buffered_bytes: config.max_buffered_bytes,
        };
        let starter =
            Starter { callee, group: config.group.clone(), handler_timeout: config.handler_timeout, runtime, returns };
        Self {
            lanes: Lanes::new(limits),
            health: Health::new(Arc::clone(&observer), config.group.clone()),
            beginnings: Beginnings::default(),
            budget: BudgetTracker::new(config.dead_letters.budget.clone()),
            waiting: Waiting::default(),
            starter: Arc::new(starter),
            returned,
            cancellations: Cancellations::default(),
            pool: Pool::default(),
            observer,
            writes,
            control,
            closes_up_until: None,
            failure: None,
            config,
        }
    }

    /// Buffers a record of a partition. It is dropped if the partition is not assigned.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, partition: &TopicPartition, epoch: Option<i32>) {
        if let Some(epoch) = epoch {
            self.lanes.epoch(partition, message.offset(), epoch);
        }
        let record = Record::copy(message, partition, &mut self.pool);
        let (bytes, offset) = (record.cost(), record.offset());
        self.lanes.take(partition, offset, message.key(), bytes, record);
    }

    /// Starts handlers for the records that can start.
    pub(super) fn start(&mut self, now: Instant) {
        if self.control.is_paused() {
            return;
        }
        if let Some(until) = self.closes_up_until {
            self.close_all(now < until);
        }
        let (mut chunk, mut records) = (Vec::new(), 0);
        while let Some(run) = self.lanes.start(now) {
            let cancellation = self.cancellations.of(run.ticket.assignment());
            records += run.jobs.len();
            chunk.push(Starting::new(run, cancellation));
            if records >= CHUNK {
                self.starter.start(std::mem::take(&mut chunk));
                records = 0;
            }
        }
        if !chunk.is_empty() {
            self.starter.start(chunk);
        }
    }

    /// Returns whether handlers are started: the consumer is neither paused nor stopping.
    pub(super) fn starts_handlers(&self) -> bool {
        self.closes_up_until.is_none() && !self.control.is_paused()
    }

    /// Starts no further handlers, except for a moment for records before others that are done. Running ones can
    /// finish, and learn the reason.
    pub(super) fn stop(&mut self, now: Instant) {
        self.closes_up_until = Some(now + CLOSE_UP);
        self.control.set_state(State::Stopping);
        let partitions: Vec<TopicPartition> = self.lanes.partitions().cloned().collect();
        for partition in &partitions {
            self.close(partition, CancelReason::Stopping);
        }
    }

    /// Returns whether handlers of assigned partitions run or will be started, although the consumer stops.
    pub(super) fn is_finishing(&self) -> bool {
        self.lanes.partitions().any(|partition| self.lanes.is_finishing(partition))
    }

    /// Processes what handlers returned. Waits up to `wait` for the first one. Returns whether there was anything.
    pub(super) fn process(&mut self, wait: Duration) -> bool {
        let first = if wait.is_zero() { self.returned.try_recv().ok() } else { self.returned.recv_timeout(wait).ok() };
        let has_returned = first.is_some();
        let mut next = first;
        while let Some(batch) = next {
            for returned in batch {
                self.process_one(returned);
            }
            next = self.returned.try_recv().ok();
        }
        has_returned
    }

    /// Waits for the running handlers of partitions, until a deadline. The handlers learn the reason. Further ones are
    /// started only for a moment, for records before others that are done, so that little finished work is repeated.
    pub(super) fn finish(&mut self, partitions: &[TopicPartition], reason: CancelReason, deadline: Instant) {
        partitions.iter().for_each(|partition| self.close(partition, reason));
        let closed_up = deadline.min(Instant::now() + CLOSE_UP);
        while partitions.iter().any(|partition| self.lanes.is_finishing(partition)) {
            let now = Instant::now();
            let Some(remaining) = deadline.checked_duration_since(now) else { return };
            if now >= closed_up {
                partitions.iter().for_each(|partition| self.lanes.close(partition));
            }
            // Partitions that stay assigned continue.
            self.start(now);
            self.process(remaining.min(Duration::from_millis(20)));
        }
    }

    /// Starts no further handlers for a partition. Running ones learn the reason.
    fn close(&mut self, partition: &TopicPartition, reason: CancelReason) {
        if self.failure.is_none() && !self.control.is_paused() {
            self.lanes.close_up(partition);
        } else {
            self.lanes.close(partition);
        }
        self.cancel(partition, reason);
    }

    /// Closes every partition, those that were assigned since the consumer stops included.
    fn close_all(&mut self, closes_up: bool) {
        let partitions: Vec<TopicPartition> = self.lanes.partitions().cloned().collect();
        for partition in &partitions {
            if closes_up && self.failure.is_none() {
                self.lanes.close_up(partition);
            } else {
                self.lanes.close(partition);
            }
        }
    }

    /// Returns how many records of assigned partitions are in handlers. Another member handles those of revoked ones.
    pub(super) fn running(&self) -> usize {
        self.lanes.partitions().map(|partition| self.lanes.running_of(partition)).sum()
    }

    /// Releases partitions that were revoked or lost.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        let mut records = 0;
        for partition in partitions {
            self.cancel(partition, CancelReason::Revoked);
            records += self.lanes.revoke(partition);
            self.budget.revoked(partition);
            self.writes.cancel(partition);
            self.waiting.revoked(partition);
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
        let (records, pending) = (self.writes.count(), self.writes.oldest()?);
        Some(Error::DeadLettersPending {
            records,
            record: pending.record.clone(),
            topic: pending.topic.clone(),
            error: pending.error.clone().unwrap_or_else(|| "none, Kafka has not answered yet".to_owned()),
            running: running.saturating_sub(records),
        })
    }

    /// Reports the lag of an assigned partition, and whether it is behind an open transaction, if that is known.
    pub(super) fn report_lag(&mut self, partition: &TopicPartition, end: i64, last_stable: Option<i64>) {
        let Some(position) = self.lanes.position(partition).map(|position| position.offset) else { return };
        self.health.progress(partition, position, end, last_stable);
    }

    /// Reports what is in flight and buffered.
    pub(super) fn report_load(&mut self, now: Instant) {
        let uncommitted = self.lanes.uncommitted().into_iter();
        self.control.set_uncommitted(uncommitted.map(|(partition, position)| (partition, position.offset)).collect());
        let oldest = self.lanes.oldest_running();
        self.health.oldest_handler(oldest, now);
        self.observe(&Observed::Load {
            handlers_in_flight: self.lanes.handlers(),
            longest_handler: oldest.map_or(Duration::ZERO, |(_, started)| now.saturating_duration_since(started)),
            longest_transient: self.waiting.longest(now),
            buffered_records: self.lanes.records(),
            buffered_bytes: self.lanes.bytes(),
        });
    }

    fn cancel(&self, partition: &TopicPartition, reason: CancelReason) {
        if let Some(assignment) = self.lanes.assignment(partition) {
            self.cancellations.cancel(assignment, reason);
        }
    }

    fn observe(&self, observed: &Observed<'_>) {
        self.observer.observe(observed);
    }
}
