//! The names of headers, and of the columns that they come from.

/// The header of the event's id. The relay sets it, from the row's column.
pub const EVENT_ID: &str = "event_id";
/// The header of the event's type. The relay sets it, from the row's column.
pub const EVENT_TYPE: &str = "event_type";
/// The header of the commit time, RFC 3339 in UTC. The relay sets it.
pub const PRODUCED_AT: &str = "produced_at";
/// The header of the aggregate's type. The writer adds it to the row's headers.
pub const AGGREGATE_TYPE: &str = "aggregate_type";
/// The header of the moment the event tells of, RFC 3339 in UTC. The writer adds it to the row's headers.
pub const OCCURRED_AT: &str = "occurred_at";
/// The W3C header of the trace and the span. The writer adds it to the row's headers.
pub const TRACEPARENT: &str = "traceparent";
/// The W3C header of what tracing systems add. The writer adds it to the row's headers.
pub const TRACESTATE: &str = "tracestate";
/// The W3C header of what the application carries along. The writer adds it to the row's headers.
pub const BAGGAGE: &str = "baggage";
