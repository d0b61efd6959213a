//! Typed handlers: the event is decoded before the handler is called.
//!
//! A record that cannot be decoded (invalid JSON, no event id, a header that contradicts the payload) is dead-lettered
//! without a retry. The handler receives unknown event types and tombstones as values.

use std::marker::PhantomData;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::consumer::cancellation::Cancellation;
use crate::consumer::handler::Delivery;
use crate::consumer::handler::Handler;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event;
use crate::event::BadEventId;
use crate::event::Decoded;
use crate::event::EventId;
use crate::event::TraceContext;
use crate::event::Unknown;

/// A decoded event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received<E> {
    /// The event's id. It is the same in every delivery.
    pub event_id: EventId,
    /// The event, or why there is none.
    pub event: Payload<E>,
    /// The `aggregate_type` header, if the writer set it.
    pub aggregate_type: Option<String>,
    /// The record's key, if it is UTF-8.
    pub aggregate_id: Option<String>,
    /// The `occurred_at` header, if the writer set it.
    pub occurred_at: Option<SystemTime>,
    /// The trace context of the writer.
    pub trace: Option<TraceContext>,
    /// How many attempts failed before. Transient failures do not count.
    pub previous_attempts: u32,
    /// Says when the handler should end: its partition is revoked, the consumer stops, or it has taken too long.
    pub cancellation: Cancellation,
    /// The record that was decoded.
    pub record: Record,
}

/// The payload of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Payload<E> {
    /// An event of a known type.
    Event(E),
    /// An event of a type that `E` does not have.
    Unknown(Unknown),
    /// A record without a value.
    Tombstone,
}

/// Creates a handler from a function that takes decoded events.
pub fn typed<E, F, Fut, O>(handle: F) -> Typed<E, F>
where
    E: DeserializeOwned + Send + 'static,
    F: Fn(Received<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: IntoOutcome,
{
    Typed { handle, event: PhantomData }
}

/// A handler of decoded events, created by [`typed`].
#[derive(Clone, Debug)]
pub struct Typed<E, F> {
    handle: F,
    event: PhantomData<fn() -> E>,
}

impl<E, F, Fut, O> Handler for Typed<E, F>
where
    E: DeserializeOwned + Send + 'static,
    F: Fn(Received<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: IntoOutcome + Send,
{
    async fn handle(&self, delivery: Delivery) -> Outcome {
        match receive(delivery) {
            Ok(received) => (self.handle)(received).await.into_outcome(),
            Err(reason) => Outcome::dead_letter(reason),
        }
    }
}

/// Decodes a record.
fn receive<E: DeserializeOwned>(delivery: Delivery) -> Result<Received<E>, String> {
    let Delivery { record, previous_attempts, cancellation } = delivery;
    let id = record.header(event::EVENT_ID).ok_or("the record has no event_id header")?;
    let event_id = id.parse().map_err(|error: BadEventId| error.to_string())?;
    let payload = match record.value() {
        None => Payload::Tombstone,
        Some(value) => {
            match event::decode(record.header(event::EVENT_TYPE), value).map_err(|error| error.to_string())? {
                Decoded::Known(event) => Payload::Event(event),
                Decoded::Unknown(unknown) => Payload::Unknown(unknown),
            }
        }
    };
    let text = |name: &str| record.header(name).map(str::to_owned);
    Ok(Received {
        event_id,
        event: payload,
        aggregate_type: text(event::AGGREGATE_TYPE),
        aggregate_id: record.key().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned),
        occurred_at: record.header(event::OCCURRED_AT).and_then(event::parse_rfc3339),
        trace: TraceContext::from_headers(|name| record.header(name)),
        previous_attempts,
        cancellation,
        record: record.clone(),
    })
}
