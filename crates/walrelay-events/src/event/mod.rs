//! Typed events: what an application says, as it stands in the outbox table and in a Kafka record.
//!
//! ```text
//!   enum of the application --encode--> event_type + JSON payload --> row --> record --decode--> the enum again
//! ```
//!
//! An event is an enum with `#[serde(tag = "event_type")]`. What always holds: the tag stays in the payload, the same name
//! stands in the header `event_type`, and a reader can tell a type it does not know from a payload that is broken. Nothing
//! of a payload goes into an error. `docs/events.md` says how events may change.
//!
//! It deliberately has no registry of types, no versions and no I/O.
//!
//! ```
//! use serde::Deserialize;
//! use serde::Serialize;
//! use walrelay_events::event::Decoded;
//! use walrelay_events::event::decode;
//! use walrelay_events::event::encode;
//!
//! #[derive(Debug, Deserialize, PartialEq, Serialize)]
//! #[serde(tag = "event_type")]
//! enum OrderEvent {
//!     OrderCreated { total_cents: u64 },
//!     OrderShipped { parcel: String },
//! }
//!
//! let encoded = encode(&OrderEvent::OrderCreated { total_cents: 1250 })?;
//! assert_eq!(encoded.event_type, "OrderCreated");
//! assert_eq!(encoded.payload, r#"{"event_type":"OrderCreated","total_cents":1250}"#);
//!
//! let decoded = decode::<OrderEvent>(Some("OrderCreated"), encoded.payload.as_bytes())?;
//! assert_eq!(decoded, Decoded::Known(OrderEvent::OrderCreated { total_cents: 1250 }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod decode;
mod encode;
mod names;
mod reason;
mod time;
pub mod trace;

use std::fmt::Display;
use std::time::SystemTime;

use uuid::Uuid;

pub use decode::DecodeError;
pub use decode::Decoded;
pub use decode::Name;
pub use decode::Unknown;
pub use decode::decode;
pub use encode::EncodeError;
pub use encode::Encoded;
pub use encode::encode;
pub use names::AGGREGATE_TYPE;
pub use names::BAGGAGE;
pub use names::EVENT_ID;
pub use names::EVENT_TYPE;
pub use names::OCCURRED_AT;
pub use names::PRODUCED_AT;
pub use names::TRACEPARENT;
pub use names::TRACESTATE;
pub use time::format_rfc3339;
pub use time::parse_rfc3339;
pub use trace::TraceContext;

/// An event and what is said about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Envelope<E> {
    /// Which event; a repeated delivery has the same id.
    pub event_id: Uuid,
    /// What kind of thing the event is about; the topic comes from it.
    pub aggregate_type: String,
    /// Which one the event is about; the record's key, and so the order, comes from it.
    pub aggregate_id: String,
    /// When it happened.
    pub occurred_at: SystemTime,
    /// The trace and the span it happened in.
    pub trace: Option<TraceContext>,
    /// The event itself.
    pub event: E,
}

impl<E> Envelope<E> {
    /// Wraps an event that happens now: a new id, and with the feature `otel` the trace context of the current span.
    #[must_use]
    pub fn new(aggregate_type: impl Into<String>, aggregate_id: impl Display, event: E) -> Self {
        Self {
            event_id: Uuid::now_v7(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.to_string(),
            occurred_at: SystemTime::now(),
            trace: trace::current(),
            event,
        }
    }
}

/// The page about events; its examples are compiled.
#[cfg(all(doctest, feature = "outbox"))]
#[doc = include_str!("../../../../docs/events.md")]
mod page {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_the_aggregate_may_be_anything_with_a_text() {
        let (first, second) = (Envelope::new("Order", 7, ()), Envelope::new("Order", Uuid::nil(), ()));
        assert!(first.event_id < second.event_id && first.event_id.get_version_num() == 7);
        assert_eq!((first.aggregate_id.as_str(), second.aggregate_id), ("7", Uuid::nil().to_string()));
    }
}
