//! Typed events: from an enum of the application to the outbox table and the Kafka record, and back.
//!
//! ```text
//!   enum of the application --encode--> event_type + JSON payload --> row --> record --decode--> the enum again
//! ```
//!
//! An event is an enum with `#[serde(tag = "event_type")]`. The tag stays in the payload, and the header `event_type`
//! has the same name. A reader can tell an unknown type from an invalid payload. Errors never contain values of a
//! payload. `docs/events.md` describes which changes to events are compatible.
//!
//! Deliberately absent: a registry of types, versions, and I/O.
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
mod envelope;
mod headers;
mod id;
mod time;
pub(crate) mod trace;

pub use decode::DecodeError;
pub use decode::Decoded;
pub use decode::TypeName;
pub use decode::Unknown;
pub use decode::decode;
pub use encode::EncodeError;
pub use encode::Encoded;
pub use encode::encode;
pub use envelope::Envelope;
pub use headers::AGGREGATE_TYPE;
pub use headers::BAGGAGE;
pub use headers::EVENT_ID;
pub use headers::EVENT_TYPE;
pub use headers::OCCURRED_AT;
pub use headers::PRODUCED_AT;
pub use headers::TRACEPARENT;
pub use headers::TRACESTATE;
pub use id::BadEventId;
pub use id::EventId;
pub use time::format_rfc3339;
pub use time::parse_rfc3339;
pub use trace::BadTraceContext;
pub use trace::TraceContext;

/// The page about events; its examples are compiled.
#[cfg(all(doctest, feature = "outbox"))]
#[doc = include_str!("../../../../docs/events.md")]
mod page {}
