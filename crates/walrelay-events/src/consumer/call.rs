//! One call of a handler: inside a span of its own that is linked to the writer's, and a panic is an outcome like any other.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tracing::Span;

use crate::consumer::handler::Delivery;
use crate::consumer::handler::Erased;
use crate::consumer::handler::Handling;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event::TraceContext;
use crate::event::trace;
use crate::event::trace::Handled;

/// Why an event is tried again whose handler panicked.
pub(crate) const PANICKED: &str = "the handler panicked";

/// A handler at work on a record.
pub(crate) struct Call {
    handling: Handling,
    span: Span,
}

impl Call {
    pub(crate) fn new(handler: &Erased, delivery: Delivery, group: &str) -> Self {
        Self { span: span(&delivery.record, group), handling: handler(delivery) }
    }
}

impl Future for Call {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { handling, span } = &mut *self;
        let _inside = span.enter();
        // After a panic the future is not polled again, so nothing half done is seen.
        let polled = catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context)));
        let polled = polled.unwrap_or_else(|_| Poll::Ready(Outcome::retry(PANICKED)));
        if let Poll::Ready(outcome) = &polled {
            trace::tell_outcome(span, outcome.failure());
        }
        polled
    }
}

fn span(record: &Record, group: &str) -> Span {
    let handled = Handled {
        group,
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        header: &|name| record.header(name),
    };
    let span = trace::handler_span(&handled);
    if !span.is_disabled()
        && let Some(writer) = TraceContext::from_headers(|name| record.header(name))
    {
        trace::link_to(&span, &writer);
    }
    span
}
