//! One call of a handler, in a span of its own. A panic becomes an outcome.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tracing::Span;

use crate::consumer::batch;
use crate::consumer::batch::BatchFuture;
use crate::consumer::batch::BoxedBatchHandler;
use crate::consumer::classifier::Classifier;
use crate::consumer::handler;
use crate::consumer::handler::BoxedHandler;
use crate::consumer::handler::Delivery;
use crate::consumer::handler::HandlerFuture;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event::trace::HandlerSpan;
use crate::event::trace::TraceContext;
use crate::event::trace::handler_span;
use crate::event::trace::link_to;
use crate::event::trace::record_failure;

/// The reason of a retry after a panic.
pub(crate) const PANICKED: &str = "the handler panicked";

/// What is called for records.
#[derive(Clone)]
pub(crate) enum Callee {
    /// A handler of one record.
    Single(BoxedHandler),
    /// A handler of several records.
    Batch(BoxedBatchHandler),
}

/// How many of the records of a call are acked, and what happened then.
pub(crate) type Returns = (usize, Option<Failed>);

/// What has failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failed {
    /// The record after the acked ones.
    Record(Outcome),
    /// The call of a batch, and it is unknown which record was the cause. Each is handled alone next.
    Batch {
        /// Why, for a person.
        reason: String,
    },
}

/// A running call.
pub(crate) struct Call {
    handling: Handling,
    span: Span,
}

enum Handling {
    Single(HandlerFuture),
    Batch(BatchFuture, usize),
}

impl Callee {
    /// Lets the application's classifier decide about the errors of the handler.
    pub(crate) fn classified(self, classifier: &Classifier) -> Self {
        match self {
            Self::Single(handler) => Self::Single(handler::classified(handler, classifier.clone())),
            Self::Batch(handler) => Self::Batch(batch::classified(handler, classifier.clone())),
        }
    }

    /// Returns how many of the next records a call takes.
    pub(crate) const fn takes(&self, records: usize) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::Batch(_) => records,
        }
    }

    /// Calls the handler. The deliveries are as many as it takes.
    pub(crate) fn call(&self, first: Delivery, others: impl Iterator<Item = Delivery>, group: &str) -> Call {
        let span = span(&first.record, group);
        let handling = match self {
            Self::Single(handler) => Handling::Single(handler(first)),
            Self::Batch(handler) => {
                let batch: Vec<Delivery> = std::iter::once(first).chain(others).collect();
                let records = batch.len();
                batch.iter().skip(1).for_each(|delivery| link(&span, &delivery.record));
                Handling::Batch(handler(batch), records)
            }
        };
        Call { handling, span }
    }
}

impl Call {
    /// Drops a handler that has timed out.
    pub(crate) fn time_out(self, limit: Duration) -> Failed {
        let Self { handling, span } = self;
        let failed = handling.failed(format!("the handler timed out after {limit:?}"));
        let _entered = span.enter();
        record_failure(&span, failed.reason());
        // What it holds may panic when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handling)));
        failed
    }
}

impl Handling {
    /// Returns what has failed when the call as a whole has.
    fn failed(&self, reason: String) -> Failed {
        match self {
            Self::Batch(_, 2..) => Failed::Batch { reason },
            Self::Single(_) | Self::Batch(..) => Failed::Record(Outcome::retry(reason)),
        }
    }
}

impl Failed {
    fn reason(&self) -> Option<&str> {
        match self {
            Self::Record(outcome) => outcome.reason(),
            Self::Batch { reason } => Some(reason),
        }
    }
}

impl Future for Call {
    type Output = Returns;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Returns> {
        let Self { handling, span } = &mut *self;
        let _entered = span.enter();
        // A future that panicked is not polled again, so its broken state is never observed.
        let polled = catch_unwind(AssertUnwindSafe(|| match handling {
            Handling::Single(future) => future.as_mut().poll(context).map(|outcome| {
                let is_acked = outcome == Outcome::Ack;
                if is_acked { (1, None) } else { (0, Some(Failed::Record(outcome))) }
            }),
            Handling::Batch(future, records) => future.as_mut().poll(context).map(|outcome| {
                let (acked, failed) = outcome.of(*records);
                (acked, failed.map(Failed::Record))
            }),
        }));
        let polled = polled.unwrap_or_else(|_| Poll::Ready((0, Some(handling.failed(PANICKED.to_owned())))));
        if let Poll::Ready((_, failed)) = &polled {
            record_failure(span, failed.as_ref().and_then(Failed::reason));
        }
        polled
    }
}

/// Returns the span of a call. The span of a batch has the fields of its first record.
fn span(record: &Record, group: &str) -> Span {
    let span = handler_span(&HandlerSpan {
        group,
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        header: &|name| record.header(name),
    });
    link(&span, record);
    span
}

/// Links a span to the writer of a record.
fn link(span: &Span, record: &Record) {
    if !span.is_disabled()
        && let Some(writer) = TraceContext::from_headers(|name| record.header(name))
    {
        link_to(span, &writer);
    }
}
