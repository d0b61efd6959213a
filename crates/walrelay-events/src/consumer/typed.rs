//! Typed handlers: the event is decoded before the handler is called.
//!
//! A record that cannot be decoded (invalid JSON, no event id, a header that contradicts the payload) is dead-lettered
//! without a retry. An event of an unknown type is skipped, unless an option says otherwise. The handler receives
//! tombstones as values.

pub(super) mod batch;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

use crate::consumer::cancellation::Cancellation;
use crate::consumer::codec::Codec;
use crate::consumer::codec::DecodedEvent;
use crate::consumer::codec::Json;
use crate::consumer::codec::Payload;
use crate::consumer::handler::Delivery;
use crate::consumer::handler::Handler;
use crate::consumer::outcome::Failure;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::consumer::unknown::OnUnknown;
use crate::event;
use crate::event::EventId;
use crate::event::TraceContext;

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

/// Handles events of type `E`. An async function of a [`Received<E>`](Received) is one; a type with state implements
/// the trait.
///
/// ```
/// use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
/// use walrelay_events::consumer::{EventHandler, Failure, Outcome, Payload, Received, typed};
///
/// #[derive(serde::Deserialize)]
/// #[serde(tag = "event_type")]
/// enum OrderEvent {
///     OrderCreated { total_cents: i64 },
/// }
///
/// struct Turnover(AtomicI64);
///
/// impl EventHandler<OrderEvent> for Turnover {
///     async fn handle(&self, received: Received<OrderEvent>) -> Result<Outcome, Failure> {
///         if let Payload::Event(OrderEvent::OrderCreated { total_cents }) = received.event {
///             self.0.fetch_add(total_cents, Relaxed);
///         }
///         Ok(Outcome::Ack)
///     }
/// }
///
/// let handler = typed(Turnover(AtomicI64::new(0)));
/// ```
pub trait EventHandler<E>: Send + Sync + 'static {
    /// Handles one event.
    fn handle(&self, received: Received<E>) -> impl Future<Output = Result<Outcome, Failure>> + Send;
}

impl<E, F, Fut, O> EventHandler<E> for F
where
    E: Send,
    F: Fn(Received<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: IntoOutcome,
{
    async fn handle(&self, received: Received<E>) -> Result<Outcome, Failure> {
        Ok(self(received).await.into_outcome())
    }
}

impl<E, H: EventHandler<E>> EventHandler<E> for Arc<H> {
    fn handle(&self, received: Received<E>) -> impl Future<Output = Result<Outcome, Failure>> + Send {
        H::handle(self, received)
    }
}

/// Creates a handler from one that takes decoded events: an async function, or a type that implements
/// [`EventHandler`].
pub fn typed<E, H: EventHandler<E>>(handler: H) -> Typed<E, H> {
    Typed::new(handler)
}

/// A handler of decoded events, created by [`typed`], or by [`typed_batch`](crate::consumer::typed_batch) for several
/// events at once.
#[derive(Clone, Debug)]
pub struct Typed<E, H, C = Json> {
    handler: H,
    codec: C,
    /// None if the handler receives unknown events.
    on_unknown: Option<OnUnknown>,
    event: PhantomData<fn() -> E>,
}

impl<E, H> Typed<E, H> {
    fn new(handler: H) -> Self {
        Self { handler, codec: Json::default(), on_unknown: Some(OnUnknown::default()), event: PhantomData }
    }
}

impl<E, H, C> Typed<E, H, C> {
    /// Sets what happens to an event of a type that `E` does not have. By default it is skipped and counted.
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.on_unknown = Some(on_unknown);
        self
    }

    /// Passes events of unknown types to the handler, as [`Payload::Unknown`].
    #[must_use]
    pub fn handle_unknown(mut self) -> Self {
        self.on_unknown = None;
        self
    }

    /// Sets how records are decoded. By default they are JSON as the relay writes it.
    #[must_use]
    pub fn with_codec<D: Codec<E>>(self, codec: D) -> Typed<E, H, D> {
        let Self { handler, on_unknown, event, .. } = self;
        Typed { handler, codec, on_unknown, event }
    }
}

impl<E, H, C> Handler for Typed<E, H, C>
where
    E: Send + 'static,
    H: EventHandler<E>,
    C: Codec<E>,
{
    async fn handle(&self, delivery: Delivery) -> Outcome {
        match self.decode(delivery).await {
            Ok(received) => self.handler.handle(received).await.unwrap_or_else(Outcome::from),
            Err(outcome) => outcome,
        }
    }
}

impl<E, H, C: Codec<E>> Typed<E, H, C> {
    /// Decodes a record. An error is the outcome of a record that the handler does not receive.
    async fn decode(&self, delivery: Delivery) -> Result<Received<E>, Outcome> {
        let DecodedEvent { event_id, payload } = self.codec.decode(&delivery.record).await?;
        match (&payload, self.on_unknown) {
            (Payload::Unknown(unknown), Some(on_unknown)) => Err(on_unknown.outcome(&unknown.event_type)),
            (Payload::Unknown(_) | Payload::Event(_) | Payload::Tombstone, _) => {
                Ok(receive(delivery, event_id, payload))
            }
        }
    }
}

/// Adds the metadata that the relay writes.
fn receive<E>(delivery: Delivery, event_id: EventId, event: Payload<E>) -> Received<E> {
    let Delivery { record, previous_attempts, cancellation } = delivery;
    let text = |name: &str| record.header(name).map(str::to_owned);
    Received {
        event_id,
        event,
        aggregate_type: text(event::AGGREGATE_TYPE),
        aggregate_id: record.key().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned),
        occurred_at: record.header(event::OCCURRED_AT).and_then(event::parse_rfc3339),
        trace: TraceContext::from_headers(|name| record.header(name)),
        previous_attempts,
        cancellation,
        record: record.clone(),
    }
}
