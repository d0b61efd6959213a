//! Handlers: what an application does with a record.
//!
//! An async function is a handler. [`Router`] selects a handler by the `event_type` header; [`typed`](super::typed)
//! decodes the event first.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;

use crate::consumer::cancellation::Cancellation;
use crate::consumer::classifier::Classifier;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event;

/// How many characters of an event type a reason shows.
const MAX_TYPE_CHARS: usize = 64;

/// A record that is delivered to a handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The record to handle.
    pub record: Record,
    /// How many attempts failed before. Transient failures do not count.
    pub previous_attempts: u32,
    /// Says when the handler should end: its partition is revoked, the consumer stops, or it has taken too long.
    pub cancellation: Cancellation,
}

impl Delivery {
    /// Delivers a record for the first time.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { record, previous_attempts: 0, cancellation: Cancellation::default() }
    }
}

/// Handles records. It is called for many keys at once, but for each key only after the record before is done.
pub trait Handler: Send + Sync + 'static {
    /// Handles one record.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

impl<F, Fut, O> Handler for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send + 'static,
    O: IntoOutcome,
{
    async fn handle(&self, delivery: Delivery) -> Outcome {
        self(delivery).await.into_outcome()
    }
}

/// Selects a handler by the event type: the `event_type` header, or else the tag in the payload.
///
/// ```
/// use walrelay_events::consumer::{Delivery, Failure, Outcome, Router};
///
/// async fn ship(delivery: Delivery) -> Result<Outcome, Failure> {
///     let order = std::str::from_utf8(delivery.record.key().unwrap_or_default())?;
///     Ok(if order.is_empty() { Outcome::dead_letter("the order has no id") } else { Outcome::Ack })
/// }
///
/// let router = Router::new().on("OrderCreated", ship).on("OrderMoved", ship).otherwise(|_: Delivery| async {});
/// ```
#[derive(Default)]
pub struct Router {
    routes: HashMap<String, BoxedHandler>,
    otherwise: Option<BoxedHandler>,
}

impl Router {
    /// Creates a router without handlers. It dead-letters every record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of an event type.
    #[must_use]
    pub fn on(mut self, event_type: &str, handler: impl Handler) -> Self {
        self.routes.insert(event_type.to_owned(), boxed(handler));
        self
    }

    /// Sets the handler of all other records: other types, tombstones, records without a type. Without it they are
    /// dead-lettered.
    #[must_use]
    pub fn otherwise(mut self, handler: impl Handler) -> Self {
        self.otherwise = Some(boxed(handler));
        self
    }
}

impl Handler for Router {
    async fn handle(&self, delivery: Delivery) -> Outcome {
        let record = &delivery.record;
        let header = record.header(event::EVENT_TYPE).map(str::to_owned);
        let event_type = header.or_else(|| tag(record.value()?));
        let route = event_type.as_deref().and_then(|event_type| self.routes.get(event_type));
        match route.or(self.otherwise.as_ref()) {
            Some(handler) => handler(delivery).await,
            None => Outcome::dead_letter(match event_type {
                Some(event_type) => format!("no handler for event type {:?}", shortened(&event_type)),
                None => "the record has no event type".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("types", &self.routes.keys()).finish_non_exhaustive()
    }
}

/// A handler of any type.
pub(crate) type BoxedHandler = Arc<dyn Fn(Delivery) -> HandlerFuture + Send + Sync>;
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(crate) fn boxed(handler: impl Handler) -> BoxedHandler {
    let handler = Arc::new(handler);
    Arc::new(move |delivery| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { handler.handle(delivery).await })
    })
}

/// Lets the application's classifier decide about the errors of a handler.
pub(crate) fn classified(handler: BoxedHandler, classifier: Classifier) -> BoxedHandler {
    Arc::new(move |delivery| {
        let (handling, classifier) = (handler(delivery), classifier.clone());
        Box::pin(async move { handling.await.classified(&classifier) })
    })
}

/// Returns the tag of a payload.
fn tag(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Tag {
        event_type: String,
    }
    serde_json::from_slice::<Tag>(payload).ok().map(|tag| tag.event_type)
}

fn shortened(event_type: &str) -> String {
    event_type.chars().take(MAX_TYPE_CHARS).collect()
}
