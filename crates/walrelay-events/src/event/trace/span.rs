//! OpenTelemetry: the context of the current span, and spans of handlers with links. Only this file uses its types.

use std::fmt::Write as _;

use opentelemetry::baggage::Baggage;
use opentelemetry::baggage::BaggageExt as _;
#[cfg(feature = "consumer")]
use opentelemetry::trace::SpanContext;
#[cfg(feature = "consumer")]
use opentelemetry::trace::SpanId;
use opentelemetry::trace::TraceContextExt as _;
#[cfg(feature = "consumer")]
use opentelemetry::trace::TraceFlags;
#[cfg(feature = "consumer")]
use opentelemetry::trace::TraceId;
#[cfg(feature = "consumer")]
use opentelemetry::trace::TraceState;
use tracing::Span;
#[cfg(feature = "consumer")]
use tracing::field;
#[cfg(feature = "consumer")]
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

#[cfg(feature = "consumer")]
use crate::event::headers::EVENT_ID;
#[cfg(feature = "consumer")]
use crate::event::headers::EVENT_TYPE;

use super::context::TraceContext;
use super::context::is_baggage;
use super::context::is_tracestate;
#[cfg(feature = "consumer")]
use super::handler::HandlerSpan;

impl TraceContext {
    /// Returns the trace context of the current `tracing` span, or none if no OpenTelemetry layer records it. A
    /// `tracestate` or `baggage` above the limits is dropped.
    #[must_use]
    pub fn current() -> Option<Self> {
        let context = Span::current().context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return None;
        }
        let traceparent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
        let tracestate = Some(span.trace_state().header()).filter(|text| is_tracestate(text));
        let baggage = Some(baggage(context.baggage())).filter(|text| is_baggage(text));
        Self::new(&traceparent, tracestate.as_deref(), baggage.as_deref()).ok()
    }
}

/// Links a span to the span in which an event was written. Does nothing without an OpenTelemetry layer.
#[cfg(feature = "consumer")]
pub(crate) fn link_to(span: &Span, trace: &TraceContext) {
    let (Ok(trace_id), Ok(span_id)) = (TraceId::from_hex(trace.trace_id()), SpanId::from_hex(trace.span_id())) else {
        return;
    };
    // A tracestate that OpenTelemetry refuses is dropped, and the link is kept.
    let state: TraceState = trace.tracestate().and_then(|text| text.parse().ok()).unwrap_or_default();
    span.add_link(SpanContext::new(trace_id, span_id, TraceFlags::new(trace.flags()), true, state));
}

/// Creates the span of a handler call, with OpenTelemetry's names for messaging. It starts a trace of its own and links
/// to the writer's span instead of being its child: an event can be handled by many consumers, again, or days later.
#[cfg(feature = "consumer")]
pub(crate) fn handler_span(handler: &HandlerSpan<'_>) -> Span {
    // If nobody records it, tracing's feature `log` would read its fields nevertheless.
    if LevelFilter::current() < LevelFilter::INFO {
        return Span::none();
    }
    let header = |name: &str| (handler.header)(name).unwrap_or_default();
    tracing::info_span!(
        parent: None,
        "process",
        otel.name = format_args!("process {}", handler.topic),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.destination.name = handler.topic,
        messaging.destination.partition.id = handler.partition,
        messaging.consumer.group.name = handler.group,
        messaging.kafka.offset = handler.offset,
        messaging.message.id = header(EVENT_ID),
        event_type = header(EVENT_TYPE),
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// Records the reason of a failed call in the handler's span.
#[cfg(feature = "consumer")]
pub(crate) fn record_failure(span: &Span, reason: Option<&str>) {
    if let Some(reason) = reason {
        span.record("otel.status_code", "ERROR").record("otel.status_description", reason);
    }
}

/// Writes baggage as W3C specifies: values percent-encoded, metadata unchanged.
fn baggage(baggage: &Baggage) -> String {
    let mut out = String::new();
    for (key, (value, metadata)) in baggage {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(key.as_str());
        out.push('=');
        for byte in value.as_str().bytes() {
            match byte {
                b'!' | b'#'..=b'$' | b'&'..=b'+' | b'-'..=b':' | b'<'..=b'[' | b']'..=b'~' => {
                    out.push(char::from(byte));
                }
                // Writing to a `String` cannot fail.
                0..=b' ' | b'"' | b'%' | b',' | b';' | b'\\' | 0x7F..=0xFF => _ = write!(out, "%{byte:02X}"),
            }
        }
        if !metadata.as_str().is_empty() {
            out.push(';');
            out.push_str(metadata.as_str());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::baggage::Baggage;

    use super::*;

    #[test]
    fn baggage_is_written_as_w3c_specifies() {
        let text = baggage(&Baggage::from_iter([KeyValue::new("user", "a b,c=\"d\";é%\\")]));
        assert_eq!(text, "user=a%20b%2Cc=%22d%22%3B%C3%A9%25%5C");
        assert!(is_baggage(&text));
    }

    #[test]
    fn without_a_layer_there_is_no_context_and_a_link_does_nothing() {
        assert_eq!(TraceContext::current(), None);
        #[cfg(feature = "consumer")]
        {
            let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            link_to(&Span::current(), &TraceContext::new(text, None, None).unwrap());
        }
    }
}
