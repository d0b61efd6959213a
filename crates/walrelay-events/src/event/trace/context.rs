//! A trace context as text.

use crate::event::headers::BAGGAGE;
use crate::event::headers::TRACEPARENT;
use crate::event::headers::TRACESTATE;

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TRACEPARENT_BYTES: usize = 55;
/// The length that every participant must propagate.
const MAX_TRACESTATE_BYTES: usize = 512;
/// The maximum number of entries.
const MAX_TRACESTATE_ENTRIES: usize = 32;
/// Half of the relay's limit for all headers of a row.
const MAX_BAGGAGE_BYTES: usize = 4 << 10;

/// A trace context: `traceparent`, `tracestate` and `baggage`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
    baggage: Option<String>,
}

/// A header of a trace context is invalid. The message does not contain its text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTraceContext {
    /// The trace id or the span id is invalid.
    #[error("invalid traceparent: expected version 00 with a trace id and a span id that are not zero")]
    Traceparent,
    /// The entries of tracing systems are invalid.
    #[error("invalid tracestate: expected at most 32 key=value entries in 512 printable ASCII characters")]
    Tracestate,
    /// The entries of the application are invalid.
    #[error("invalid baggage: expected key=value entries in at most 4096 printable ASCII characters")]
    Baggage,
}

impl TraceContext {
    /// Creates a trace context from its headers. The last two are optional.
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

    /// Reads a trace context from headers. Without a valid `traceparent` there is none. An invalid `tracestate` or
    /// `baggage` is dropped, as W3C specifies.
    #[must_use]
    pub fn from_headers<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<Self> {
        let tracestate = header(TRACESTATE).filter(|text| is_tracestate(text));
        let baggage = header(BAGGAGE).filter(|text| is_baggage(text));
        Self::new(header(TRACEPARENT)?, tracestate, baggage).ok()
    }

    /// Returns the headers that are set, by name.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let more = [(TRACESTATE, &self.tracestate), (BAGGAGE, &self.baggage)];
        let more = more.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
        std::iter::once((TRACEPARENT, self.traceparent.as_str())).chain(more)
    }

    /// Returns the `traceparent` header.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Returns the `tracestate` header.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Returns the `baggage` header.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Returns the trace id: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }

    /// Returns the span id: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        self.traceparent.get(36..52).unwrap_or_default()
    }

    /// Returns the trace flags. The lowest bit means sampled.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.traceparent.get(53..).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default()
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

pub(super) fn is_tracestate(text: &str) -> bool {
    (1..=MAX_TRACESTATE_BYTES).contains(&text.len())
        && text.split(',').count() <= MAX_TRACESTATE_ENTRIES
        && are_entries(text)
}

pub(super) fn is_baggage(text: &str) -> bool {
    (1..=MAX_BAGGAGE_BYTES).contains(&text.len()) && are_entries(text)
}

fn are_entries(text: &str) -> bool {
    let is_entry = |entry: &str| entry.trim().find('=').is_some_and(|index| index > 0);
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.split(',').all(is_entry)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_follows_w3c() {
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
    fn an_invalid_tracestate_is_dropped_and_an_invalid_traceparent_drops_all() {
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
