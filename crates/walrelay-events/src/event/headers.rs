//! The names of headers, and of the columns that they are read from.

/// The event's id. The relay reads it from the row's column.
pub const EVENT_ID: &str = "event_id";
/// The event's type. The relay reads it from the row's column.
pub const EVENT_TYPE: &str = "event_type";
/// The commit time, RFC 3339 in UTC. The relay sets it.
pub const PRODUCED_AT: &str = "produced_at";
/// The aggregate's type. The writer adds it to the row's headers.
pub const AGGREGATE_TYPE: &str = "aggregate_type";
/// When the event happened, RFC 3339 in UTC. The writer adds it to the row's headers.
pub const OCCURRED_AT: &str = "occurred_at";
/// W3C Trace Context: the trace and the span. The writer adds it to the row's headers.
pub const TRACEPARENT: &str = "traceparent";
/// W3C Trace Context: what tracing systems add. The writer adds it to the row's headers.
pub const TRACESTATE: &str = "tracestate";
/// W3C Baggage: what the application propagates. The writer adds it to the row's headers.
pub const BAGGAGE: &str = "baggage";
