//! Where an event comes from, in the words of W3C Trace Context and Baggage, and the spans at both ends.
//!
//! The context travels as text: span of the writer, row, record header, link of the handler's span. Without the feature
//! `otel` it still travels, but nobody makes one: [`current`] gives nothing and [`link_to`] does nothing, so a caller needs
//! no `cfg`. No type of OpenTelemetry is in this interface.
//!
//! Formats: <https://www.w3.org/TR/trace-context/> sections 3.2 and 3.3, <https://www.w3.org/TR/baggage/> section 3.

#[cfg(feature = "otel")]
mod span;
#[cfg(not(feature = "otel"))]
#[path = "none.rs"]
mod span;

use std::fmt;

use super::names::BAGGAGE;
use super::names::TRACEPARENT;
use super::names::TRACESTATE;

pub use span::current;
pub use span::handler_span;
pub use span::link_to;
pub use span::tell_outcome;

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TRACEPARENT_BYTES: usize = 55;
/// What every participant must be able to carry.
const TRACESTATE_BYTES_MAX: usize = 512;
/// Entries of a tracestate.
const TRACESTATE_ENTRIES_MAX: usize = 32;
/// Half of what the relay takes for all headers of a row.
const BAGGAGE_BYTES_MAX: usize = 4 << 10;

/// A trace, a span in it, and what travels along.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
    baggage: Option<String>,
}

/// A header of a trace context is not what W3C says. Its text does not go into the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTraceContext {
    /// The trace and the span.
    #[error("expected a traceparent of version 00 with a trace and a span that are not zero")]
    Traceparent,
    /// What tracing systems add.
    #[error("expected a tracestate of at most 32 key=value entries in 512 printable ASCII characters")]
    Tracestate,
    /// What the application carries along.
    #[error("expected a baggage of key=value entries in at most 4096 printable ASCII characters")]
    Baggage,
}

impl TraceContext {
    /// Checks the three headers; the last two may be missing.
    pub fn new(traceparent: &str, tracestate: Option<&str>, baggage: Option<&str>) -> Result<Self, BadTraceContext> {
        if !is_traceparent(traceparent) {
            return Err(BadTraceContext::Traceparent);
        }
        if !tracestate.is_none_or(is_tracestate) {
            return Err(BadTraceContext::Tracestate);
        }
        if !baggage.is_none_or(is_baggage) {
            return Err(BadTraceContext::Baggage);
        }
        Ok(Self {
            traceparent: traceparent.to_owned(),
            tracestate: tracestate.map(str::to_owned),
            baggage: baggage.map(str::to_owned),
        })
    }

    /// Takes what is there out of headers: nothing without a legal traceparent; an illegal tracestate or baggage is left
    /// out, as W3C asks.
    #[must_use]
    pub fn from_headers<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Self> {
        let tracestate = header(TRACESTATE).filter(|text| is_tracestate(text));
        let baggage = header(BAGGAGE).filter(|text| is_baggage(text));
        Self::new(header(TRACEPARENT)?, tracestate, baggage).ok()
    }

    /// Gives the headers that are there, by name.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let more = [(TRACESTATE, &self.tracestate), (BAGGAGE, &self.baggage)];
        let more = more.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
        std::iter::once((TRACEPARENT, self.traceparent.as_str())).chain(more)
    }

    /// Gives the trace and the span as W3C writes them.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Gives what tracing systems added.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Gives what the application carries along.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Gives the trace's id: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    /// Gives the span's id: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        self.traceparent.get(36..52).unwrap_or_default()
    }

    /// Gives the flags; the lowest bit says that the trace is recorded.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.traceparent.get(53..).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }
}

/// What a handler's span tells of the record it handles.
#[derive(Clone, Copy)]
pub struct Handled<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The record's topic.
    pub topic: &'a str,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Its headers. Only a span that somebody records asks for them.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
}

#[cfg(feature = "otel")]
impl<'a> Handled<'a> {
    fn text(&self, name: &str) -> &'a str {
        (self.header)(name).unwrap_or_default()
    }
}

impl fmt::Debug for Handled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hexadecimal = |digits: usize| {
        parts
            .next()
            .filter(|part| part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    let is_set = |part: Option<&str>| part.is_some_and(|part| part.bytes().any(|byte| byte != b'0'));
    text.len() == TRACEPARENT_BYTES
        && hexadecimal(2) == Some("00")
        && is_set(hexadecimal(32))
        && is_set(hexadecimal(16))
        && hexadecimal(2).is_some()
        && parts.next().is_none()
}

fn is_tracestate(text: &str) -> bool {
    (1..=TRACESTATE_BYTES_MAX).contains(&text.len())
        && text.split(',').count() <= TRACESTATE_ENTRIES_MAX
        && are_entries(text)
}

fn is_baggage(text: &str) -> bool {
    (1..=BAGGAGE_BYTES_MAX).contains(&text.len()) && are_entries(text)
}

fn are_entries(text: &str) -> bool {
    let is_entry = |entry: &str| entry.trim().find('=').is_some_and(|place| place > 0);
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.split(',').all(is_entry)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_is_what_w3c_says() {
        let context = TraceContext::new(PARENT, Some("congo=t61rcWkgMzE"), Some("user=7;p, x=%20")).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span_id(), context.flags()), ("00f067aa0ba902b7", 1));
        for wrong in [
            "",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e47-3600f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::new(wrong, None, None), Err(BadTraceContext::Traceparent), "{wrong}");
        }
        let many = vec!["a=b"; 33].join(",");
        for wrong in ["", "a", "=b", "a=b,,c=d", "ä=b", "a=b\n", &many, &format!("a={}", "x".repeat(511))] {
            assert_eq!(TraceContext::new(PARENT, Some(wrong), None), Err(BadTraceContext::Tracestate), "{wrong}");
        }
        let long = format!("a={}", "x".repeat(4_095));
        for wrong in ["", "a", "a=ü", &long] {
            assert_eq!(TraceContext::new(PARENT, None, Some(wrong)), Err(BadTraceContext::Baggage), "{wrong}");
        }
    }

    #[test]
    fn a_bad_extra_costs_the_extra_and_a_bad_traceparent_costs_all() {
        let from = |rows: &[(&str, &'static str)]| {
            let headers: BTreeMap<String, &'static str> =
                rows.iter().map(|(name, text)| ((*name).to_owned(), *text)).collect();
            TraceContext::from_headers(|name| headers.get(name).copied())
        };
        let kept = from(&[("traceparent", PARENT), ("tracestate", "?"), ("baggage", "a=b")]).unwrap();
        assert_eq!(kept.headers().collect::<Vec<_>>(), [("traceparent", PARENT), ("baggage", "a=b")]);
        assert_eq!(from(&[("traceparent", "00"), ("baggage", "a=b")]), None);
        assert_eq!(from(&[("tracestate", "a=b")]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,70}", near in "00-[0-9a-f-]{52}") {
            let _ = TraceContext::new(&text, Some(&text), Some(&text));
            if let Ok(context) = TraceContext::new(&near, None, None) {
                prop_assert_eq!((context.trace_id().len(), context.span_id().len()), (32, 16));
            }
        }
    }
}
