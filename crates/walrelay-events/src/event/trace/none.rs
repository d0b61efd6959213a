//! Without OpenTelemetry there is no current context and no span to link.

#[cfg(feature = "consumer")]
use tracing::Span;

use super::context::TraceContext;
#[cfg(feature = "consumer")]
use super::handler::HandlerSpan;

impl TraceContext {
    /// Returns the trace context of the current span. This needs the feature `otel`: here it is always none.
    #[must_use]
    pub const fn current() -> Option<Self> {
        None
    }
}

#[cfg(feature = "consumer")]
pub(crate) const fn link_to(_: &Span, _: &TraceContext) {}

#[cfg(feature = "consumer")]
pub(crate) const fn handler_span(_: &HandlerSpan<'_>) -> Span {
    Span::none()
}

#[cfg(feature = "consumer")]
pub(crate) const fn record_failure(_: &Span, _: Option<&str>) {}
