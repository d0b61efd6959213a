//! The one place that knows OpenTelemetry: contexts out of spans, links into them.

use std::fmt::Write as _;

use opentelemetry::baggage::Baggage;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::trace::TraceFlags;
use opentelemetry::trace::TraceId;
use opentelemetry::trace::TraceState;
use tracing::Span;
use tracing::field;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::Handled;
use super::TraceContext;
use super::is_baggage;
use super::is_tracestate;
use crate::event::names::EVENT_ID;
use crate::event::names::EVENT_TYPE;

/// Gives the trace context of the current span of `tracing`; nothing if no layer of OpenTelemetry records it. A tracestate
/// or baggage beyond the limits is left out.
#[must_use]
pub fn current() -> Option<TraceContext> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    let traceparent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
    let tracestate = Some(span.trace_state().header()).filter(|text| is_tracestate(text));
    let baggage = Some(baggage(context.baggage())).filter(|text| is_baggage(text));
    TraceContext::new(&traceparent, tracestate.as_deref(), baggage.as_deref()).ok()
}

/// Links a span to the one an event comes from. Nothing without a layer of OpenTelemetry.
pub fn link_to(span: &Span, trace: &TraceContext) {
    let (Ok(trace_id), Ok(span_id)) = (TraceId::from_hex(trace.trace_id()), SpanId::from_hex(trace.span_id())) else {
        return;
    };
    // What OpenTelemetry does not take as a tracestate is not worth losing the link.
    let state: TraceState = trace.tracestate().and_then(|text| text.parse().ok()).unwrap_or_default();
    span.add_link(SpanContext::new(trace_id, span_id, TraceFlags::new(trace.flags()), true, state));
}

/// Makes the span of a handler, a trace of its own: an event may be handled by many, again, or days later, so the writer's
/// span is linked and not its parent. The names are OpenTelemetry's for messaging.
#[must_use]
pub fn handler_span(handled: &Handled<'_>) -> Span {
    tracing::info_span!(
        parent: None,
        "process",
        otel.name = format_args!("process {}", handled.topic),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.destination.name = handled.topic,
        messaging.destination.partition.id = handled.partition,
        messaging.consumer.group.name = handled.group,
        messaging.kafka.offset = handled.offset,
        messaging.message.id = handled.text(EVENT_ID),
        event_type = handled.text(EVENT_TYPE),
        otel.status_code = field::Empty,
        otel.status_description = field::Empty,
    )
}

/// Tells a handler's span how it ended: the reason if the event is not dealt with.
pub fn tell_outcome(span: &Span, failure: Option<&str>) {
    if let Some(reason) = failure {
        span.record("otel.status_code", "ERROR").record("otel.status_description", reason);
    }
}

/// Writes baggage as W3C does: values percent-encoded, metadata as it is.
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
                // Writing to a text cannot fail.
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
    fn baggage_is_written_as_w3c_does() {
        let text = baggage(&Baggage::from_iter([KeyValue::new("user", "a b,c=\"d\";é%\\")]));
        assert_eq!(text, "user=a%20b%2Cc=%22d%22%3B%C3%A9%25%5C");
        assert!(is_baggage(&text));
    }

    #[test]
    fn without_a_layer_there_is_no_context_and_a_link_does_nothing() {
        assert_eq!(current(), None);
        let trace = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None, None).unwrap();
        link_to(&Span::current(), &trace);
    }
}
