//! Runs handlers on the application's runtime.
//!
//! One task starts many handlers and polls each once. A handler that returns at once needs no task of its own; one that
//! waits gets one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::consumer::call::Call;
use crate::consumer::handler::BoxedHandler;
use crate::consumer::handler::Delivery;
use crate::consumer::lanes::Job;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::consumer::write_error::WriteError;

/// A handler whose first poll takes longer does real work: the rest of its chunk moves to another task.
const SLOW_POLL: Duration = Duration::from_micros(200);

/// What a task sends back to the consumer's thread.
pub(super) enum Returned {
    /// A handler returned.
    Handled { job: Job<Record>, outcome: Outcome, took: Duration },
    /// A dead-letter write, by its number.
    Write(u64, Written),
}

/// What came of a dead-letter write.
pub(super) enum Written {
    /// The dead-letter topic has the record.
    Done { job: Job<Record>, reason: String },
    /// An attempt failed. Another one follows.
    Failed { record: Record, error: WriteError },
    /// The topic refuses the record each time.
    Refused { job: Job<Record>, error: WriteError },
    /// The partition was revoked. The new owner handles the record.
    Cancelled { job: Job<Record> },
}

/// Starts handlers.
#[derive(Clone)]
pub(super) struct Starter {
    pub(super) handler: BoxedHandler,
    pub(super) group: Arc<str>,
    pub(super) runtime: Handle,
    pub(super) returns: mpsc::Sender<Vec<Returned>>,
}

impl Starter {
    pub(super) fn start(&self, jobs: Vec<Job<Record>>) {
        let starter = self.clone();
        self.runtime.spawn(async move { starter.run(jobs).await });
    }

    async fn run(self, jobs: Vec<Job<Record>>) {
        let mut returned = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        let mut next_started = Instant::now();
        while let Some(job) = jobs.next() {
            let started = next_started;
            if job.record.has_unreadable_headers() {
                // Without its headers the event is unknown.
                let outcome = Outcome::dead_letter("the headers cannot be read: the name of one is not UTF-8");
                returned.push(Returned::Handled { job, outcome, took: Duration::ZERO });
                continue;
            }
            let delivery = Delivery { record: job.record.clone(), previous_attempts: job.attempts };
            let mut call = Call::new(&self.handler, delivery, &self.group);
            let first = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut call).poll(context))).await;
            // The clock is read once per handler: the end of one is the start of the next.
            next_started = Instant::now();
            let took = next_started.duration_since(started);
            match first {
                Poll::Ready(outcome) => returned.push(Returned::Handled { job, outcome, took }),
                Poll::Pending => {
                    let returns = self.returns.clone();
                    self.runtime.spawn(async move {
                        let outcome = call.await;
                        let _ = returns.send(vec![Returned::Handled { job, outcome, took: started.elapsed() }]);
                    });
                }
            }
            if took > SLOW_POLL && jobs.len() > 0 {
                self.start(jobs.by_ref().collect());
            }
        }
        if !returned.is_empty() {
            let _ = self.returns.send(returned);
        }
    }
}
