//! Without OpenTelemetry there is no context to take and no span to link.

use tracing::Span;

use super::Handled;
use super::TraceContext;

/// Gives nothing: the trace context of the current span needs the feature `otel`.
#[must_use]
pub const fn current() -> Option<TraceContext> {
    None
}

/// Does nothing: a link needs the feature `otel`.
pub const fn link_to(_: &Span, _: &TraceContext) {}

/// Gives no span: that of a handler needs the feature `otel`.
#[must_use]
pub const fn handler_span(_: &Handled<'_>) -> Span {
    Span::none()
}

/// Does nothing: the span of a handler needs the feature `otel`.
pub const fn tell_outcome(_: &Span, _: Option<&str>) {}
