//! Converts envelopes to the seven arrays of a statement.

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::event;
use crate::event::Encoded;
use crate::event::Envelope;

use super::error::Error;

/// The maximum number of rows of a statement.
const MAX_ROWS: usize = 1_000;
/// A statement with this many bytes of payload gets no further rows.
const MAX_BYTES: usize = 16 << 20;
/// The maximum length of a topic's name.
const MAX_AGGREGATE_TYPE_BYTES: usize = 249;

/// The rows of one statement, column by column.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    pub(super) ids: Vec<String>,
    pub(super) aggregate_types: Vec<&'a str>,
    pub(super) aggregate_ids: Vec<&'a str>,
    pub(super) event_types: Vec<String>,
    pub(super) payloads: Vec<String>,
    pub(super) headers: Vec<String>,
    pub(super) times: Vec<String>,
    bytes: usize,
}

impl<'a> Rows<'a> {
    /// Divides envelopes into statements. All of them are checked before the first statement is sent.
    pub(super) fn divide<E: Serialize>(envelopes: &'a [Envelope<E>]) -> Result<Vec<Self>, Error> {
        let mut statements: Vec<Self> = Vec::new();
        for envelope in envelopes {
            match statements.last_mut() {
                Some(rows) if rows.ids.len() < MAX_ROWS && rows.bytes < MAX_BYTES => rows.push(envelope)?,
                Some(_) | None => {
                    let mut rows = Self::default();
                    rows.push(envelope)?;
                    statements.push(rows);
                }
            }
        }
        Ok(statements)
    }

    fn push<E: Serialize>(&mut self, envelope: &'a Envelope<E>) -> Result<(), Error> {
        let Encoded { event_type, payload } = event::encode(&envelope.event)?;
        let (aggregate_type, aggregate_id) = (envelope.aggregate_type.as_str(), envelope.aggregate_id.as_str());
        if !(1..=MAX_AGGREGATE_TYPE_BYTES).contains(&aggregate_type.len()) || aggregate_type.contains('\0') {
            return Err(Error::AggregateType);
        }
        if aggregate_id.contains('\0') {
            return Err(Error::AggregateId);
        }
        if event_type.contains('\0') {
            return Err(Error::Encode(event::EncodeError::Nul));
        }
        let time = event::format_rfc3339(envelope.occurred_at).ok_or(Error::OccurredAt)?;
        self.bytes += payload.len();
        self.ids.push(envelope.event_id.to_string());
        self.aggregate_types.push(aggregate_type);
        self.aggregate_ids.push(aggregate_id);
        self.event_types.push(event_type);
        self.payloads.push(payload);
        self.headers.push(headers(envelope, &time));
        self.times.push(time);
        Ok(())
    }
}

/// The headers that the relay adds to its own.
fn headers<E>(envelope: &Envelope<E>, time: &str) -> String {
    let ours = [(event::AGGREGATE_TYPE, envelope.aggregate_type.as_str()), (event::OCCURRED_AT, time)];
    let trace = envelope.trace.iter().flat_map(event::TraceContext::headers);
    let all: Map<String, Value> =
        ours.into_iter().chain(trace).map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
    Value::Object(all).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;
    use crate::event::TraceContext;

    fn envelope(number: usize) -> Envelope<Value> {
        Envelope::new("Order", number, json!({"event_type": "Created", "number": number}))
    }

    #[test]
    fn statements_are_full_and_keep_the_order() {
        let envelopes: Vec<_> = (0..2_500).map(envelope).collect();
        let statements = Rows::divide(&envelopes).unwrap();
        assert_eq!(statements.iter().map(|rows| rows.ids.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let ids: Vec<&str> = statements.iter().flat_map(|rows| rows.aggregate_ids.iter().copied()).collect();
        assert!(ids.iter().enumerate().all(|(number, id)| *id == number.to_string()));
        let large: Vec<_> = (0..3)
            .map(|number| Envelope::new("Order", number, json!({"event_type": "Large", "pad": "x".repeat(MAX_BYTES)})))
            .collect();
        assert_eq!(Rows::divide(&large).unwrap().len(), 3);
        assert!(Rows::divide::<Value>(&[]).unwrap().is_empty());
    }

    #[test]
    fn headers_hold_the_aggregate_type_the_time_and_the_trace() {
        let trace = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None, Some("a=\"b"));
        let mut envelope = envelope(1);
        envelope.occurred_at = UNIX_EPOCH + Duration::from_micros(1_767_225_600_000_001);
        envelope.trace = None;
        let expected = json!({"aggregate_type": "Order", "occurred_at": "2026-01-01T00:00:00.000001Z"});
        let written = |envelope: &Envelope<Value>| -> Value {
            let statements = Rows::divide(std::slice::from_ref(envelope)).unwrap();
            serde_json::from_str(&statements[0].headers[0]).unwrap()
        };
        assert_eq!(written(&envelope), expected);
        envelope.trace = Some(trace.unwrap());
        let with_trace = written(&envelope);
        assert_eq!(with_trace["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!((&with_trace["baggage"], with_trace.get("tracestate")), (&json!("a=\"b"), None));
    }

    #[test]
    fn an_event_that_would_abort_the_transaction_is_refused_before() {
        let with = |change: fn(&mut Envelope<Value>)| {
            let mut envelopes = [envelope(1), envelope(2)];
            change(&mut envelopes[1]);
            Rows::divide(&envelopes).unwrap_err()
        };
        assert!(matches!(with(|envelope| envelope.aggregate_type.clear()), Error::AggregateType));
        assert!(matches!(with(|envelope| envelope.aggregate_type = "x".repeat(250)), Error::AggregateType));
        assert!(matches!(with(|envelope| envelope.aggregate_id.push('\0')), Error::AggregateId));
        assert!(matches!(
            with(|envelope| envelope.occurred_at = UNIX_EPOCH - Duration::from_secs(1)),
            Error::OccurredAt
        ));
        assert!(matches!(with(|envelope| envelope.event = json!(1)), Error::Encode(_)));
    }
}
