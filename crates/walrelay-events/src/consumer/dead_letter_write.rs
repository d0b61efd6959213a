//! Writes records to their dead-letter topic. A write is retried until it succeeds, until the topic refuses the record
//! for good, or until the partition is revoked.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::consumer::config::Config;
use crate::consumer::dead_letter::Producer;
use crate::consumer::dead_letter::Provenance;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::LastJob;
use crate::consumer::record::Record;
use crate::consumer::starter::Returned;
use crate::consumer::starter::Written;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::wakeup::Sender;
use crate::consumer::write_error::WriteError;
use crate::fault;

/// The same error of a topic is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The dead-letter writes in progress.
pub(super) struct DeadLetterWrites {
    producer: Arc<Producer>,
    config: Arc<Config>,
    runtime: Handle,
    returns: Sender<Vec<Returned>>,
    /// Cancel the writes of a partition when dropped.
    cancels: HashMap<TopicPartition, DropGuard>,
    /// By number. The oldest is first.
    pending: BTreeMap<u64, Pending>,
    started: u64,
    /// The last error of each topic that was logged, and when.
    logged: HashMap<String, (String, Instant)>,
}

/// A record that waits for its dead-letter topic.
pub(super) struct Pending {
    pub(super) record: String,
    pub(super) topic: String,
    /// Why the last attempt failed.
    pub(super) error: Option<String>,
}

impl DeadLetterWrites {
    pub(super) fn new(
        producer: Arc<Producer>,
        config: &Config,
        runtime: Handle,
        returns: Sender<Vec<Returned>>,
    ) -> Self {
        Self {
            producer,
            config: Arc::new(config.clone()),
            runtime,
            returns,
            cancels: HashMap::new(),
            pending: BTreeMap::new(),
            started: 0,
            logged: HashMap::new(),
        }
    }

    /// Starts a write. What comes of it is returned as `Returned::Write`.
    pub(super) fn start(&mut self, last: LastJob<Record>, reason: String) {
        self.started += 1;
        let job = &last.job;
        let (number, topic) = (self.started, self.config.dead_letter_topic(job.record.topic()));
        self.pending.insert(number, Pending { record: job.record.to_string(), topic: topic.clone(), error: None });
        let new = || CancellationToken::new().drop_guard();
        let cancelled = self.cancels.entry(job.record.topic_partition().clone()).or_insert_with(new).token().clone();
        let write = DeadLetterWrite {
            number,
            provenance: Provenance::of(&job.record, &self.config.group, &reason, job.attempts),
            topic,
            producer: Arc::clone(&self.producer),
            config: Arc::clone(&self.config),
            returns: self.returns.clone(),
        };
        self.runtime.spawn(async move {
            // The job comes back in any case.
            let ended = cancelled.run_until_cancelled(write.run(&last.job)).await;
            let written = match ended {
                Some(Ok(())) => Written::Done { last, reason },
                Some(Err(error)) => Written::Refused { last, error },
                None => Written::Cancelled { last },
            };
            write.send(written);
        });
    }

    /// Cancels the writes of a revoked partition.
    pub(super) fn cancel(&mut self, partition: &TopicPartition) {
        self.cancels.remove(partition);
    }

    /// Forgets a write that has ended.
    pub(super) fn ended(&mut self, number: u64) {
        self.pending.remove(&number);
    }

    /// Keeps why an attempt failed. Logs it, but the same error of a topic once a minute. Returns its text.
    pub(super) fn failed(&mut self, number: u64, record: &Record, error: &WriteError, now: Instant) -> String {
        let text = fault::chain(error);
        let waiting = self.pending.len();
        let Some(pending) = self.pending.get_mut(&number) else { return text };
        pending.error = Some(text.clone());
        let logged = self.logged.get(&pending.topic);
        let is_known = logged.is_some_and(|(last, at)| *last == text && now.duration_since(*at) < LOG_INTERVAL);
        if !is_known {
            tracing::warn!(%record, error = text, waiting, "dead-letter write failed");
            self.logged.insert(pending.topic.clone(), (text.clone(), now));
        }
        text
    }

    /// Returns how many records wait for their dead-letter topic.
    pub(super) fn count(&self) -> usize {
        self.pending.len()
    }

    /// Returns the record that waits for the longest time.
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.pending.values().next()
    }
}

struct DeadLetterWrite {
    number: u64,
    topic: String,
    provenance: Provenance,
    producer: Arc<Producer>,
    config: Arc<Config>,
    returns: Sender<Vec<Returned>>,
}

impl DeadLetterWrite {
    /// Writes until it succeeds. An error is permanent.
    async fn run(&self, job: &Job<Record>) -> Result<(), WriteError> {
        let (format, policy) = (self.config.dead_letters.header_format, &self.config.retry);
        let mut attempts = 0_u32;
        loop {
            let written = self.producer.write_dead_letter(&self.topic, &job.record, &self.provenance, format).await;
            match written {
                Err(error) if !error.is_permanent() => {
                    self.send(Written::Failed { record: job.record.clone(), error });
                }
                ended => return ended,
            }
            attempts = (attempts + 1).min(policy.max_attempts.saturating_sub(1));
            let backoff = policy.backoff(attempts, job.jitter_seed()).unwrap_or(policy.max_backoff);
            tokio::time::sleep(backoff).await;
        }
    }

    fn send(&self, written: Written) {
        self.returns.send(vec![Returned::Write(self.number, written)]);
    }
}
