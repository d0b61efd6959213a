//! One call of a handler, in a span of its own. A panic becomes an outcome.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tracing::Span;

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

/// A running call.
pub(crate) struct Call {
    future: HandlerFuture,
    span: Span,
}

impl Call {
    pub(crate) fn new(handler: &BoxedHandler, delivery: Delivery, group: &str) -> Self {
        Self { span: span(&delivery.record, group), future: handler(delivery) }
    }
}

impl Future for Call {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { future, span } = &mut *self;
        let _entered = span.enter();
        // A future that panicked is not polled again, so its broken state is never observed.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        let polled = polled.unwrap_or_else(|_| Poll::Ready(Outcome::retry(PANICKED)));
        if let Poll::Ready(outcome) = &polled {
            record_failure(span, outcome.reason());
        }
        polled
    }
}

fn span(record: &Record, group: &str) -> Span {
    let span = handler_span(&HandlerSpan {
        group,
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        header: &|name| record.header(name),
    });
    if !span.is_disabled()
        && let Some(writer) = TraceContext::from_headers(|name| record.header(name))
    {
        link_to(&span, &writer);
    }
    span
}
