//! Tests a handler: records in, a report of each record out, without Kafka.
//!
//! The harness uses the same lanes, handler calls and retry policy as the runtime: records of a key one after another,
//! and a record in its backoff delays the later ones of its key. Only the clock is its own: a backoff ends at once and
//! is reported. Records of different keys run one at a time.
//!
//! There is no topic, so no offset is committed, no dead-letter record is written, and no dead-letter budget applies.

use std::error::Error;
use std::fmt;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::consumer::BatchHandler;
use crate::consumer::Delivery;
use crate::consumer::ErrorClass;
use crate::consumer::Handler;
use crate::consumer::Outcome;
use crate::consumer::Record;
use crate::consumer::RetryPolicy;
use crate::consumer::batch;
use crate::consumer::call;
use crate::consumer::call::Callee;
use crate::consumer::call::Failed;
use crate::consumer::classifier::Classifier;
use crate::consumer::handler;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Limits;
use crate::consumer::lanes::Run;
use crate::consumer::retry;
use crate::consumer::verdict;
use crate::consumer::verdict::Verdict;
use crate::event;
use crate::event::EncodeError;
use crate::event::Encoded;
use crate::event::Envelope;

/// After this many transient failures the harness stops with a record. The runtime would retry without limit.
const MAX_TRANSIENT: usize = 100;

/// Runs a handler over records as a consumer does.
///
/// ```
/// use walrelay_events::consumer::{Outcome, Payload, Received, typed};
/// use walrelay_events::event::Envelope;
/// use walrelay_events::testing::{Harness, record};
///
/// #[derive(serde::Deserialize, serde::Serialize)]
/// #[serde(tag = "event_type")]
/// enum OrderEvent {
///     OrderCreated { city: String },
/// }
///
/// async fn ship(received: Received<OrderEvent>) -> Outcome {
///     match received.event {
///         Payload::Event(OrderEvent::OrderCreated { city }) if city == "Atlantis" => Outcome::dead_letter("no route"),
///         Payload::Event(_) if received.previous_attempts == 0 => Outcome::retry("carrier busy"),
///         _ => Outcome::Ack,
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let created = |id: &str, city: &str| {
///     record(&Envelope::new("Order", id, OrderEvent::OrderCreated { city: city.to_owned() }))
/// };
/// let invalid = walrelay_events::consumer::Record::new("order-events", 0, 0, Some(b"o-3"), Some(b"{}"), &[]);
///
/// let reports = Harness::new(typed(ship)).run([created("o-1", "Lagos")?, created("o-2", "Atlantis")?, invalid]).await;
///
/// assert_eq!(reports[0].to_string(), "retry: carrier busy; ack");
/// assert_eq!(reports[1].to_string(), "dead-letter: no route");
/// assert_eq!(reports[2].dead_letter_reason(), Some("the record has no event_id header"));
/// # Ok(())
/// # }
/// ```
pub struct Harness {
    callee: Callee,
    /// How many records a call takes at most.
    max_run: usize,
    policy: RetryPolicy,
}

/// The attempts to handle a record. There are none if an earlier record of its key was never done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecordReport {
    /// The attempts, in order.
    pub attempts: Vec<Attempt>,
}

/// One attempt to handle a record.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attempt {
    /// The record is done.
    Ack,
    /// The record is retried.
    Retry {
        /// After this time. The harness does not wait.
        backoff: Duration,
        /// Why.
        reason: String,
    },
    /// The handler panicked. The record is retried.
    Panic {
        /// After this time. The harness does not wait.
        backoff: Duration,
    },
    /// The record is done, without having been handled.
    Skip {
        /// Why.
        reason: String,
    },
    /// The record would be written to the dead-letter topic.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// The consumer would stop. Only records of other keys are still handled.
    Stop {
        /// Why.
        reason: String,
    },
}

impl Harness {
    /// Takes the handler that the application passes to [`Consumer::new`](crate::consumer::Consumer::new).
    #[must_use]
    pub fn new(handler: impl Handler) -> Self {
        Self { callee: Callee::Single(handler::boxed(handler)), max_run: 1, policy: RetryPolicy::default() }
    }

    /// Takes what the application passes to [`Consumer::batches`](crate::consumer::Consumer::batches). Every record is
    /// there from the beginning, so that batches are as large as they can be.
    #[must_use]
    pub fn batches(max: usize, handler: impl BatchHandler) -> Self {
        let callee = Callee::Batch(batch::boxed(handler));
        Self { callee, max_run: max.max(1), policy: RetryPolicy::default() }
    }

    /// Sets the retry policy, as in [`Config::retry`](crate::consumer::Config::retry).
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the classifier of errors, as in
    /// [`Consumer::with_classifier`](crate::consumer::Consumer::with_classifier).
    #[must_use]
    pub fn classifier(
        mut self,
        classify: impl Fn(&(dyn Error + 'static)) -> Option<ErrorClass> + Send + Sync + 'static,
    ) -> Self {
        self.callee = self.callee.classified(&Classifier::new(classify));
        self
    }

    /// Runs the handler over records and returns their reports in the same order. A record that is given twice is
    /// delivered twice.
    pub async fn run(&self, records: impl IntoIterator<Item = Record>) -> Vec<RecordReport> {
        let limits = Limits {
            max_concurrency: usize::MAX,
            max_run: self.max_run,
            max_buffered_records: usize::MAX,
            max_buffered_bytes: u64::MAX,
        };
        let mut lanes = Lanes::new(limits);
        let mut reports = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            let partition = record.topic_partition().clone();
            if !lanes.partitions().any(|known| *known == partition) {
                lanes.assign(partition.clone());
            }
            let (offset, key) = (record.offset(), record.clone());
            lanes.take(&partition, offset, key.key(), 0, (index, record));
            reports.push(RecordReport::default());
        }
        // Only backoffs advance the time.
        let mut now = Instant::now();
        loop {
            while let Some(run) = lanes.start(now) {
                self.attempt(run, now, &mut lanes, &mut reports).await;
            }
            let Some(at) = lanes.wakes_at() else { return reports };
            now = at;
        }
    }

    async fn attempt(
        &self,
        Run { ticket, jobs }: Run<(usize, Record)>,
        now: Instant,
        lanes: &mut Lanes<(usize, Record)>,
        reports: &mut [RecordReport],
    ) {
        let mut deliveries = jobs.iter().map(|job| {
            let mut delivery = Delivery::new(job.record.1.clone());
            delivery.previous_attempts = job.attempts;
            delivery
        });
        let Some(first) = deliveries.next() else { return };
        let (acked, failed) = self.callee.call(first, deliveries, "harness").await;
        let mut jobs = jobs.into_iter();
        for job in jobs.by_ref().take(acked) {
            reports.get_mut(job.record.0).into_iter().for_each(|report| report.attempts.push(Attempt::Ack));
            lanes.done(&ticket, &job);
        }
        let first = if failed.is_some() { jobs.next() } else { None };
        let (mut job, outcome) = match failed.zip(first) {
            None => {
                lanes.put_back(&ticket, jobs);
                return lanes.end(&ticket);
            }
            Some((Failed::Batch { .. }, job)) => {
                let jobs: Vec<_> = std::iter::once(job).chain(jobs).map(Job::alone).collect();
                lanes.put_back(&ticket, jobs.into_iter());
                return lanes.end(&ticket);
            }
            Some((Failed::Record(outcome), job)) => (job, outcome),
        };
        lanes.put_back(&ticket, jobs);
        let Some(backoff) = self.failed(&mut job, outcome, now, reports) else {
            lanes.done(&ticket, &job);
            return lanes.end(&ticket);
        };
        lanes.put_back(&ticket, std::iter::once(job));
        if let Some(backoff) = backoff {
            lanes.retry(&ticket, retry::after(now, backoff));
        }
    }

    /// Reports a failed attempt. Returns nothing if the record is done, and else the backoff, if it is retried.
    fn failed(
        &self,
        job: &mut Job<(usize, Record)>,
        outcome: Outcome,
        now: Instant,
        reports: &mut [RecordReport],
    ) -> Option<Option<Duration>> {
        let has_panicked = outcome == Outcome::retry(call::PANICKED);
        let seed = job.jitter_seed();
        let verdict = verdict::decide(outcome, &mut job.attempts, &mut job.transient, &self.policy, seed, now);
        let RecordReport { attempts } = reports.get_mut(job.record.0)?;
        match verdict {
            Verdict::Ack => {
                attempts.push(Attempt::Ack);
                None
            }
            Verdict::Skip { reason } => {
                attempts.push(Attempt::Skip { reason });
                None
            }
            Verdict::DeadLetter { reason } => {
                attempts.push(Attempt::DeadLetter { reason });
                None
            }
            // The record and the later ones of its key stay as they are. The runtime would end here.
            Verdict::Stop { reason } => {
                attempts.push(Attempt::Stop { reason });
                Some(None)
            }
            Verdict::Retry { backoff, reason, .. } => {
                attempts.push(if has_panicked {
                    Attempt::Panic { backoff }
                } else {
                    Attempt::Retry { backoff, reason }
                });
                Some((attempts.len() < MAX_TRANSIENT + job.attempts as usize).then_some(backoff))
            }
        }
    }
}

impl RecordReport {
    /// Returns whether the record was acked.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        self.attempts.last() == Some(&Attempt::Ack)
    }

    /// Returns why the record was dead-lettered, if it was.
    #[must_use]
    pub fn dead_letter_reason(&self) -> Option<&str> {
        match self.attempts.last()? {
            Attempt::DeadLetter { reason } => Some(reason),
            Attempt::Ack
            | Attempt::Skip { .. }
            | Attempt::Retry { .. }
            | Attempt::Panic { .. }
            | Attempt::Stop { .. } => None,
        }
    }
}

/// Creates the record that the relay publishes for an event by default.
pub fn record<E: Serialize>(envelope: &Envelope<E>) -> Result<Record, EncodeError> {
    let Encoded { event_type, payload } = event::encode(&envelope.event)?;
    let id = envelope.event_id.to_string();
    let time = event::format_rfc3339(envelope.occurred_at).unwrap_or_default();
    let mut headers = vec![
        (event::EVENT_ID, id.as_str()),
        (event::EVENT_TYPE, &event_type),
        (event::PRODUCED_AT, &time),
        (event::AGGREGATE_TYPE, &envelope.aggregate_type),
        (event::OCCURRED_AT, &time),
    ];
    headers.extend(envelope.trace.iter().flat_map(event::TraceContext::headers));
    let headers: Vec<_> = headers.into_iter().map(|(name, text)| (name, Some(text.as_bytes()))).collect();
    let topic = format!("{}-events", envelope.aggregate_type.to_ascii_lowercase());
    Ok(Record::new(&topic, 0, 0, Some(envelope.aggregate_id.as_bytes()), Some(payload.as_bytes()), &headers))
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack => f.write_str("ack"),
            Self::Retry { reason, .. } => write!(f, "retry: {reason}"),
            Self::Panic { .. } => f.write_str("panic"),
            Self::Skip { reason } => write!(f, "skip: {reason}"),
            Self::DeadLetter { reason } => write!(f, "dead-letter: {reason}"),
            Self::Stop { reason } => write!(f, "stop: {reason}"),
        }
    }
}

/// All attempts, without the backoffs.
impl fmt::Display for RecordReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{attempt}")?;
        }
        Ok(())
    }
}
