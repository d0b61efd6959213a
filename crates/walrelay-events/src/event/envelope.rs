//! An event with its metadata.

use std::fmt::Display;
use std::time::SystemTime;

use uuid::Uuid;

use crate::event::trace::TraceContext;

/// An event with its metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Envelope<E> {
    /// The event's id. It is the same in every delivery.
    pub event_id: Uuid,
    /// The kind of aggregate, for example `Order`. It determines the topic.
    pub aggregate_type: String,
    /// The aggregate's id. It becomes the record's key and determines the order.
    pub aggregate_id: String,
    /// When the event happened.
    pub occurred_at: SystemTime,
    /// The trace context in which it happened.
    pub trace: Option<TraceContext>,
    /// The value of the application's enum.
    pub event: E,
}

impl<E> Envelope<E> {
    /// Wraps an event that happens now. It gets a new id (UUIDv7) and, with the feature `otel`, the trace context of
    /// the current span.
    #[must_use]
    pub fn new(aggregate_type: impl Into<String>, aggregate_id: impl Display, event: E) -> Self {
        Self {
            event_id: Uuid::now_v7(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.to_string(),
            occurred_at: SystemTime::now(),
            trace: TraceContext::current(),
            event,
        }
    }

    /// Sets the trace context, for example that of an incoming request.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_the_aggregate_id_can_be_any_display_type() {
        let (first, second) = (Envelope::new("Order", 7, ()), Envelope::new("Order", Uuid::nil(), ()));
        assert!(first.event_id < second.event_id && first.event_id.get_version_num() == 7);
        assert_eq!((first.aggregate_id.as_str(), second.aggregate_id), ("7", Uuid::nil().to_string()));
    }
}
