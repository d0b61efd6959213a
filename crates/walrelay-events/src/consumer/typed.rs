//! Typed handlers: decode first, then decide.
//!
//! What cannot be decoded (broken JSON, an event without an id, a type that header and payload disagree on) is rejected without
//! a try: it will not be better the next time. A type that the application does not know and a tombstone are values which the
//! handler sees.

use std::marker::PhantomData;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::consumer::handler::Delivery;
use crate::consumer::handler::Handler;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event;
use crate::event::Decoded;
use crate::event::TraceContext;
use crate::event::Unknown;

/// An event as a typed handler gets it.
#[derive(Clone, Debug)]
pub struct Received<E> {
    /// The event's id: the same at every repetition.
    pub event_id: Uuid,
    /// What it says.
    pub event: Payload<E>,
    /// What kind of thing it is about, if the writer said so.
    pub aggregate_type: Option<String>,
    /// Which one it is about: the record's key.
    pub aggregate_id: Option<String>,
    /// When it happened, if the writer said so.
    pub occurred_at: Option<SystemTime>,
    /// The trace in which it was written.
    pub trace: Option<TraceContext>,
    /// How often it has been tried before.
    pub tries: u32,
    /// The record.
    pub record: Record,
}

/// What an event says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload<E> {
    /// An event of a type that the application knows.
    Event(E),
    /// One of a type that it does not know.
    Unknown(Unknown),
    /// No value at all.
    Tombstone,
}

/// Makes a handler of a function over typed events.
pub fn typed<E, F, Fut, O>(handle: F) -> Typed<E, F>
where
    E: DeserializeOwned + Send + 'static,
    F: Fn(Received<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: IntoOutcome,
{
    Typed { handle, event: PhantomData }
}

/// A handler over typed events, made by [`typed`].
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
            Err(reason) => Outcome::Reject { reason },
        }
    }
}

/// Reads an event out of a record.
fn receive<E: DeserializeOwned>(Delivery { record, tries }: Delivery) -> Result<Received<E>, String> {
    let id = record.header(event::EVENT_ID).ok_or("a record without an event_id header")?;
    let event_id = Uuid::parse_str(id).map_err(|_| "an event_id header that is not a UUID")?;
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
        tries,
        record: record.clone(),
    })
}
