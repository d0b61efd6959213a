//! Runs handlers on the application's runtime.
//!
//! One task starts many runs and polls each once. A run whose handlers return at once needs no task of its own; one
//! that waits gets one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::time::Sleep;

use crate::consumer::call::Call;
use crate::consumer::call::Callee;
use crate::consumer::call::Failed;
use crate::consumer::call::Returns;
use crate::consumer::cancellation::CancelReason;
use crate::consumer::cancellation::Cancellation;
use crate::consumer::handler::Delivery;
use crate::consumer::lanes::Job;
use crate::consumer::lanes::LastJob;
use crate::consumer::lanes::Run;
use crate::consumer::record::Record;
use crate::consumer::retry;
use crate::consumer::wakeup::Sender;
use crate::consumer::write_error::WriteError;

/// A handler that blocks its thread for longer does real work: its run ends, and the rest of its chunk moves to other
/// tasks.
const SLOW_POLL: Duration = Duration::from_micros(200);
/// A run that takes longer ends after its current record, so that its outcomes are not held back, and so that slow
/// handlers take records in the order of their offsets: what is acked far beyond the position delays a rebalance.
const MAX_RUN_TIME: Duration = Duration::from_millis(2);
/// How long a handler that has timed out may take to return by itself.
const TIMEOUT_GRACE: Duration = Duration::from_secs(1);

/// What a task sends back to the consumer's thread.
pub(super) enum Returned {
    /// A run has ended.
    Ran(Ran),
    /// A dead-letter write, by its number.
    Write(u64, Written),
}

/// What came of a dead-letter write.
pub(super) enum Written {
    /// The dead-letter topic has the record.
    Done { last: LastJob<Record>, reason: String },
    /// An attempt failed. Another one follows.
    Failed { record: Record, error: WriteError },
    /// The topic refuses the record each time.
    Refused { last: LastJob<Record>, error: WriteError },
    /// The partition was revoked. The new owner handles the record.
    Cancelled { last: LastJob<Record> },
}

/// A run that has ended: its first `acked` records are acked, and what failed then, if anything. The other ones were
/// not started.
pub(super) struct Ran {
    pub(super) run: Run<Record>,
    pub(super) acked: usize,
    pub(super) failed: Option<Failed>,
}

/// Starts handlers.
pub(super) struct Starter {
    pub(super) callee: Callee,
    pub(super) group: String,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) runtime: Handle,
    pub(super) returns: Sender<Vec<Returned>>,
}

/// A run that is handed over.
pub(super) struct Starting {
    run: Run<Record>,
    /// Of the partition.
    cancellation: Cancellation,
    /// The run was started although its partition is being revoked.
    was_cancelled: bool,
}

/// A run whose records are handled one after another.
struct Running {
    start: Starting,
    acked: usize,
    call: Option<Calling>,
    began: Instant,
    /// When the last handler returned.
    clock: Instant,
    /// A handler has blocked its thread for long.
    is_slow: bool,
}

/// A call, and how long it may take.
struct Calling {
    call: Call,
    records: usize,
    /// It was polled before.
    has_waited: bool,
    /// Of the call, if it has a time limit.
    cancellation: Option<Cancellation>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Starter {
    pub(super) fn start(self: &Arc<Self>, runs: Vec<Starting>) {
        let starter = Arc::clone(self);
        self.runtime.spawn(async move { starter.run(runs).await });
    }

    async fn run(self: Arc<Self>, runs: Vec<Starting>) {
        let mut returned = Vec::with_capacity(runs.len());
        let mut runs = runs.into_iter();
        let began = Instant::now();
        let mut clock = began;
        while let Some(start) = runs.next() {
            // The clock is read once per handler: the end of one is the start of the next.
            let mut running = Running::new(start, clock);
            let first = std::future::poll_fn(|context| Poll::Ready(running.poll(&self, context))).await;
            match first {
                Poll::Ready(failed) => {
                    clock = running.clock;
                    returned.push(running.returned(failed));
                }
                Poll::Pending => {
                    clock = Instant::now();
                    let starter = Arc::clone(&self);
                    self.runtime.spawn(async move {
                        let failed = std::future::poll_fn(|context| running.poll(&starter, context)).await;
                        starter.returns.send(vec![running.returned(failed)]);
                    });
                }
            }
            if clock.duration_since(began) > SLOW_POLL && runs.len() > 0 {
                let mut rest: Vec<Starting> = runs.by_ref().collect();
                let half = rest.split_off(rest.len() / 2);
                [rest, half].into_iter().filter(|runs| !runs.is_empty()).for_each(|runs| self.start(runs));
            }
        }
        if !returned.is_empty() {
            self.returns.send(returned);
        }
    }
}

impl Starting {
    /// The cancellation is that of the partition.
    pub(super) fn new(run: Run<Record>, cancellation: Cancellation) -> Self {
        let was_cancelled = cancellation.is_cancelled();
        Self { run, cancellation, was_cancelled }
    }
}

impl Running {
    fn new(start: Starting, now: Instant) -> Self {
        Self { start, acked: 0, call: None, began: now, clock: now, is_slow: false }
    }

    fn returned(self, failed: Option<Failed>) -> Returned {
        Returned::Ran(Ran { run: self.start.run, acked: self.acked, failed })
    }

    /// Handles records until one waits or fails, or until the run ends.
    fn poll(&mut self, starter: &Starter, context: &mut Context<'_>) -> Poll<Option<Failed>> {
        loop {
            if self.call.is_none() {
                if self.is_over() {
                    return Poll::Ready(None);
                }
                self.call = self.call(starter);
            }
            let Some(call) = &mut self.call else { return Poll::Ready(None) };
            let Poll::Ready(returns) = call.poll(self.clock, starter.handler_timeout, context) else {
                return Poll::Pending;
            };
            let Some(call) = self.call.take() else { return Poll::Ready(None) };
            let (acked, failed) = returns.unwrap_or_else(|limit| (0, Some(call.call.time_out(limit))));
            let now = Instant::now();
            let took = now.duration_since(self.clock);
            self.is_slow = took > SLOW_POLL && !call.has_waited;
            self.start.run.jobs.iter_mut().skip(self.acked).take(call.records).for_each(|job| job.took = took);
            (self.acked, self.clock) = (self.acked + acked, now);
            if failed.is_some() {
                return Poll::Ready(failed);
            }
        }
    }

    fn is_over(&self) -> bool {
        let has_time = !self.is_slow && self.clock.duration_since(self.began) < MAX_RUN_TIME;
        let must_end = self.start.cancellation.is_cancelled() && !self.start.was_cancelled;
        self.acked >= self.start.run.jobs.len() || must_end || (self.acked > 0 && !has_time)
    }

    /// Calls the handler for the next record or, if it takes batches, for the next ones.
    fn call(&self, starter: &Starter) -> Option<Calling> {
        let of_partition = &self.start.cancellation;
        let of_call = starter.handler_timeout.map(|_| of_partition.of_call());
        let cancellation = of_call.as_ref().unwrap_or(of_partition);
        let deliver = |job: &Job<Record>| Delivery {
            record: job.record.clone(),
            previous_attempts: job.attempts,
            cancellation: cancellation.clone(),
        };
        let records = starter.callee.takes(self.start.run.jobs.len() - self.acked);
        let mut deliveries = self.start.run.jobs.iter().skip(self.acked).take(records).map(deliver);
        let call = starter.callee.call(deliveries.next()?, deliveries, &starter.group);
        Some(Calling { call, records, has_waited: false, cancellation: of_call, timer: None })
    }
}

impl Calling {
    /// Polls the handler. An error is the time-out that has passed.
    fn poll(
        &mut self,
        began: Instant,
        limit: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Returns, Duration>> {
        loop {
            if let Poll::Ready(returns) = Pin::new(&mut self.call).poll(context) {
                return Poll::Ready(Ok(returns));
            }
            self.has_waited = true;
            let Some((limit, cancellation)) = limit.zip(self.cancellation.as_ref()) else { return Poll::Pending };
            let deadline = tokio::time::Instant::from_std(retry::after(began, limit));
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if cancellation.reason() == Some(CancelReason::TimedOut) {
                return Poll::Ready(Err(limit));
            }
            cancellation.cancel(CancelReason::TimedOut);
            timer.as_mut().reset(deadline + TIMEOUT_GRACE);
        }
    }
}
