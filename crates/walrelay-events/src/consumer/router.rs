//! Selects a handler by topic or event type.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;

use crate::consumer::handler::BoxedHandler;
use crate::consumer::handler::Delivery;
use crate::consumer::handler::Handler;
use crate::consumer::handler::boxed;
use crate::consumer::outcome::Outcome;
use crate::consumer::unknown::OnUnknown;
use crate::event;

/// Selects a handler by the topic, or else by the event type: the `event_type` header, or else the tag in the payload.
///
/// ```
/// use walrelay_events::consumer::{Delivery, Failure, OnUnknown, Outcome, Router};
///
/// async fn ship(delivery: Delivery) -> Result<Outcome, Failure> {
///     let order = std::str::from_utf8(delivery.record.key().unwrap_or_default())?;
///     Ok(if order.is_empty() { Outcome::dead_letter("the order has no id") } else { Outcome::Ack })
/// }
///
/// let orders = Router::new().on("OrderCreated", ship).on("OrderMoved", ship);
/// let router = Router::new().on_topic("order-events", orders).on_unknown(OnUnknown::Stop);
/// ```
#[derive(Default)]
pub struct Router {
    topics: HashMap<String, BoxedHandler>,
    types: HashMap<String, BoxedHandler>,
    otherwise: Option<BoxedHandler>,
    on_unknown: OnUnknown,
}

impl Router {
    /// Creates a router without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of all records of a topic, for example another router.
    #[must_use]
    pub fn on_topic(mut self, topic: &str, handler: impl Handler) -> Self {
        self.topics.insert(topic.to_owned(), boxed(handler));
        self
    }

    /// Adds the handler of an event type.
    #[must_use]
    pub fn on(mut self, event_type: &str, handler: impl Handler) -> Self {
        self.types.insert(event_type.to_owned(), boxed(handler));
        self
    }

    /// Sets the handler of all other records: other types, and records without a type. Without it, records without a
    /// type are dead-lettered, and [`Router::on_unknown`] decides about other types.
    #[must_use]
    pub fn otherwise(mut self, handler: impl Handler) -> Self {
        self.otherwise = Some(boxed(handler));
        self
    }

    /// Sets what happens to an event of a type that has no handler. By default it is skipped and counted.
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.on_unknown = on_unknown;
        self
    }
}

impl Handler for Router {
    async fn handle(&self, delivery: Delivery) -> Outcome {
        let record = &delivery.record;
        if let Some(handler) = self.topics.get(record.topic()) {
            return handler(delivery).await;
        }
        let header = record.header(event::EVENT_TYPE).map(str::to_owned);
        let event_type = header.or_else(|| tag(record.value()?));
        let route = event_type.as_deref().and_then(|event_type| self.types.get(event_type));
        match (route.or(self.otherwise.as_ref()), event_type) {
            (Some(handler), _) => handler(delivery).await,
            (None, Some(event_type)) => self.on_unknown.outcome(&event_type),
            (None, None) => Outcome::dead_letter("the record has no event type"),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Router");
        text.field("topics", &self.topics.keys()).field("types", &self.types.keys());
        text.field("on_unknown", &self.on_unknown).finish_non_exhaustive()
    }
}

/// Returns the tag of a payload.
fn tag(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Tag {
        event_type: String,
    }
    serde_json::from_slice::<Tag>(payload).ok().map(|tag| tag.event_type)
}
