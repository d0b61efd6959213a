//! Typed batch handlers: the events are decoded before the handler is called.
//!
//! A batch ends before a record that the handler does not receive: one that cannot be decoded, or an event of an
//! unknown type. What is before it is handled first, so the order of the key is kept.

use std::sync::Arc;

use crate::consumer::batch::BatchHandler;
use crate::consumer::batch::BatchOutcome;
use crate::consumer::codec::Codec;
use crate::consumer::handler::Delivery;
use crate::consumer::outcome::Failure;
use crate::consumer::outcome::Outcome;

use super::Received;
use super::Typed;

/// Handles several consecutive events of one key in one call. An async function of a vector of
/// [`Received<E>`](Received) is one; a type with state implements the trait. An error means the first event.
///
/// ```
/// use walrelay_events::consumer::{BatchOutcome, EventBatchHandler, Failure, Payload, Received, typed_batch};
///
/// #[derive(serde::Deserialize)]
/// #[serde(tag = "event_type")]
/// enum MeterEvent {
///     MeterRead { watts: i64 },
/// }
///
/// struct Readings {
///     max_watts: i64,
/// }
///
/// impl EventBatchHandler<MeterEvent> for Readings {
///     async fn handle(&self, batch: Vec<Received<MeterEvent>>) -> Result<BatchOutcome, Failure> {
///         let is_valid = |received: &Received<MeterEvent>| match received.event {
///             Payload::Event(MeterEvent::MeterRead { watts }) => watts <= self.max_watts,
///             _ => true,
///         };
///         // Everything before the first invalid event is written at once here.
///         Ok(match batch.iter().position(|received| !is_valid(received)) {
///             None => BatchOutcome::all(),
///             Some(at) => BatchOutcome::first(at, Failure::dead_letter("too many watts").into()),
///         })
///     }
/// }
///
/// let handler = typed_batch(Readings { max_watts: 4_000 });
/// ```
pub trait EventBatchHandler<E>: Send + Sync + 'static {
    /// Handles at least one event. The events are consecutive events of their key.
    fn handle(&self, batch: Vec<Received<E>>) -> impl Future<Output = Result<BatchOutcome, Failure>> + Send;
}

impl<E, F, Fut, O> EventBatchHandler<E> for F
where
    E: Send,
    F: Fn(Vec<Received<E>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: Into<BatchOutcome>,
{
    async fn handle(&self, batch: Vec<Received<E>>) -> Result<BatchOutcome, Failure> {
        Ok(self(batch).await.into())
    }
}

impl<E, H: EventBatchHandler<E>> EventBatchHandler<E> for Arc<H> {
    fn handle(&self, batch: Vec<Received<E>>) -> impl Future<Output = Result<BatchOutcome, Failure>> + Send {
        H::handle(self, batch)
    }
}

/// Creates a batch handler from one that takes decoded events: an async function, or a type that implements
/// [`EventBatchHandler`]. [`Consumer::batches`](crate::consumer::Consumer::batches) takes it.
///
/// A record that cannot be decoded and an event of an unknown type are treated as by [`typed`](super::typed). They end
/// the batch: the handler receives what is before them, and what is behind them in the next call.
pub fn typed_batch<E, H: EventBatchHandler<E>>(handler: H) -> Typed<E, H> {
    Typed::new(handler)
}

impl<E, H, C> BatchHandler for Typed<E, H, C>
where
    E: Send + 'static,
    H: EventBatchHandler<E>,
    C: Codec<E>,
{
    async fn handle(&self, batch: Vec<Delivery>) -> BatchOutcome {
        let mut events = Vec::with_capacity(batch.len());
        let mut end: Option<Outcome> = None;
        for delivery in batch {
            match self.decode(delivery).await {
                Ok(received) => events.push(received),
                Err(outcome) => {
                    end = Some(outcome);
                    break;
                }
            }
        }
        let count = events.len();
        let handled = if events.is_empty() { BatchOutcome::all() } else { self.handler.handle(events).await.into() };
        match end {
            Some(outcome) if handled.acks(count) => BatchOutcome::first(count, outcome),
            Some(_) | None => handled,
        }
    }
}
