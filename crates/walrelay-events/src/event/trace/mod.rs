//! Trace context (W3C Trace Context and Baggage), and the spans of handlers.
//!
//! The context travels as text: from the writer's span to the row, the record header and a link of the handler's span.
//! Without the feature `otel` it still travels, but no context is created and no span is linked. No type of
//! OpenTelemetry is in this interface.
//!
//! Formats: <https://www.w3.org/TR/trace-context/> sections 3.2 and 3.3, <https://www.w3.org/TR/baggage/> section 3.

mod context;
#[cfg(feature = "consumer")]
mod handler;
#[cfg(feature = "otel")]
mod span;
#[cfg(not(feature = "otel"))]
#[path = "none.rs"]
mod span;

pub use context::BadTraceContext;
pub use context::TraceContext;
#[cfg(feature = "consumer")]
pub(crate) use handler::HandlerSpan;
#[cfg(feature = "consumer")]
pub(crate) use span::handler_span;
#[cfg(feature = "consumer")]
pub(crate) use span::link_to;
#[cfg(feature = "consumer")]
pub(crate) use span::record_failure;
