//! The fields of a handler's span.

/// The record that a handler's span describes.
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "without OpenTelemetry there is no span"))]
#[derive(Clone, Copy)]
pub(crate) struct HandlerSpan<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The record's headers. They are read only if the span is recorded.
    pub(crate) header: &'a dyn Fn(&str) -> Option<&'a str>,
}
