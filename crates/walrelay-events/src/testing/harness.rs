//! A handler under test: records in, what became of each out, without Kafka.
//!
//! The harness drives what the runtime drives: the same lanes (records of one key one after another, a record that waits
//! for its retry holds back the later ones of its key), the same call of the handler, the same retry policy. Only the clock
//! is its own: a pause is over at once, and told. Records of different keys run one at a time.
//!
//! It has no topic, so nothing is committed or written to a dead-letter topic, and no budget of rejections ends it.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::consumer::Delivery;
use crate::consumer::Handler;
use crate::consumer::Outcome;
use crate::consumer::Policy;
use crate::consumer::Record;
use crate::consumer::call;
use crate::consumer::call::Call;
use crate::consumer::handler;
use crate::consumer::handler::Erased;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::Lanes;
use crate::consumer::lanes::Limits;
use crate::consumer::retry::later;
use crate::consumer::verdict;
use crate::consumer::verdict::Verdict;
use crate::event;
use crate::event::EncodeError;
use crate::event::Encoded;
use crate::event::Envelope;

/// After so many tries that the retry policy does not count, a record is left: the runtime would go on for ever.
const UNCOUNTED_MAX: usize = 100;

/// Runs a handler over records, as a consumer does.
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
///         Payload::Event(OrderEvent::OrderCreated { city }) if city == "Atlantis" => Outcome::reject("nobody goes there"),
///         Payload::Event(_) if received.tries == 0 => Outcome::retry("the carrier is busy"),
///         Payload::Event(_) | Payload::Unknown(_) | Payload::Tombstone => Outcome::Done,
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let created = |id: &str, city: &str| {
///     record(&Envelope::new("Order", id, OrderEvent::OrderCreated { city: city.to_owned() }))
/// };
/// let broken = walrelay_events::consumer::Record::new("order-events", 0, 0, Some(b"o-3"), Some(b"{}"), &[]);
///
/// let became = Harness::new(typed(ship)).run([created("o-1", "Lagos")?, created("o-2", "Atlantis")?, broken]).await;
///
/// assert_eq!(became[0].to_string(), "retried: the carrier is busy; done");
/// assert_eq!(became[1].to_string(), "rejected: nobody goes there");
/// assert_eq!(became[2].rejected(), Some("a record without an event_id header"));
/// # Ok(())
/// # }
/// ```
pub struct Harness {
    handler: Erased,
    policy: Policy,
}

/// What became of a record: each try in turn. Nothing, if an earlier record of its key was never done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Became {
    /// The tries.
    pub steps: Vec<Step>,
}

/// What a try led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The record is done.
    Done,
    /// It is tried again.
    Retried {
        /// After this pause, which a test does not wait for.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// The handler panicked, and the record is tried again.
    Panicked {
        /// After this pause, which a test does not wait for.
        after: Duration,
    },
    /// It would go to the dead-letter topic.
    Rejected {
        /// Why.
        reason: String,
    },
}

impl Harness {
    /// Takes the handler that the application gives to [`Consumer::new`](crate::consumer::Consumer::new).
    #[must_use]
    pub fn new(handler: impl Handler) -> Self {
        Self { handler: handler::erase(handler), policy: Policy::default() }
    }

    /// Sets how often a failed record is tried again, as in [`Config::retry`](crate::consumer::Config::retry).
    #[must_use]
    pub fn retry(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Runs the handler over records, and gives what became of each, in their order. An event that is given twice comes
    /// twice, as from Kafka.
    pub async fn run(&self, records: impl IntoIterator<Item = Record>) -> Vec<Became> {
        let mut lanes = Lanes::new(Limits { running_max: usize::MAX, records_max: usize::MAX, bytes_max: u64::MAX });
        let mut became = Vec::new();
        for (place, record) in records.into_iter().enumerate() {
            let partition = record.whence().clone();
            if !lanes.partitions().any(|known| *known == partition) {
                lanes.assign(partition.clone());
            }
            let (offset, key) = (record.offset(), record.clone());
            lanes.take(&partition, offset, key.key(), 0, (place, record));
            became.push(Became::default());
        }
        // No time passes but the pauses.
        let mut now = Instant::now();
        loop {
            while let Some(job) = lanes.start(now) {
                self.attempt(job, now, &mut lanes, &mut became).await;
            }
            let Some(at) = lanes.wakes_at() else { return became };
            now = at;
        }
    }

    async fn attempt(
        &self,
        mut job: Job<(usize, Record)>,
        now: Instant,
        lanes: &mut Lanes<(usize, Record)>,
        became: &mut [Became],
    ) {
        let (place, record) = job.record.clone();
        let Some(Became { steps }) = became.get_mut(place) else { return };
        let outcome = Call::new(&self.handler, Delivery { record, tries: job.tries }, "harness").await;
        let has_panicked = outcome == Outcome::retry(call::PANICKED);
        let noise = job.noise();
        match verdict::judge(outcome, &mut job.tries, &mut job.waits, &self.policy, noise) {
            Verdict::Done => {
                steps.push(Step::Done);
                lanes.done(&job);
            }
            Verdict::Rejected { reason } => {
                steps.push(Step::Rejected { reason });
                lanes.done(&job);
            }
            Verdict::Later { pause: after, reason } => {
                steps.push(if has_panicked { Step::Panicked { after } } else { Step::Retried { after, reason } });
                if steps.len() < UNCOUNTED_MAX + job.tries as usize {
                    lanes.retry(job, later(now, after));
                }
            }
        }
    }
}

impl Became {
    /// Says whether the record is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.last() == Some(&Step::Done)
    }

    /// Gives why the record was rejected, if it was.
    #[must_use]
    pub fn rejected(&self) -> Option<&str> {
        match self.steps.last()? {
            Step::Rejected { reason } => Some(reason),
            Step::Done | Step::Retried { .. } | Step::Panicked { .. } => None,
        }
    }
}

/// Makes the record that the relay makes of an event by default.
pub fn record<E: Serialize>(envelope: &Envelope<E>) -> Result<Record, EncodeError> {
    let Encoded { event_type, payload } = event::encode(&envelope.event)?;
    let id = envelope.event_id.to_string();
    let moment = event::format_rfc3339(envelope.occurred_at).unwrap_or_default();
    let mut headers = vec![
        (event::EVENT_ID, id.as_str()),
        (event::EVENT_TYPE, &event_type),
        (event::PRODUCED_AT, &moment),
        (event::AGGREGATE_TYPE, &envelope.aggregate_type),
        (event::OCCURRED_AT, &moment),
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

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Retried { reason, .. } => write!(f, "retried: {reason}"),
            Self::Panicked { .. } => f.write_str("panicked"),
            Self::Rejected { reason } => write!(f, "rejected: {reason}"),
        }
    }
}

/// Every step, without the pauses.
impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.steps.iter().enumerate() {
            let comma = if place == 0 { "" } else { "; " };
            write!(f, "{comma}{step}")?;
        }
        Ok(())
    }
}
