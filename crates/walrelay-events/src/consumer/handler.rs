//! What an application brings: something that takes a delivery and decides.
//!
//! An async function is a handler. [`Router`] chooses one by the `event_type` header; [`typed`](super::typed) decodes first.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;

use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;
use crate::event;

/// A record that is handed to a handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// How often it has been tried before.
    pub tries: u32,
}

/// Something that deals with records. It may be called for many keys at once, and for one key again only after it is done.
pub trait Handler: Send + Sync + 'static {
    /// Deals with one record.
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

/// Chooses a handler by the type of the event: its `event_type` header, else the tag in its payload.
///
/// ```
/// use walrelay_events::consumer::{Delivery, Failure, Outcome, Router};
///
/// async fn ship(delivery: Delivery) -> Result<Outcome, Failure> {
///     let order = std::str::from_utf8(delivery.record.key().unwrap_or_default())?;
///     Ok(if order.is_empty() { Outcome::reject("an order without an id") } else { Outcome::Done })
/// }
///
/// let router = Router::new().on("OrderCreated", ship).on("OrderMoved", ship).otherwise(|_: Delivery| async {});
/// ```
#[derive(Default)]
pub struct Router {
    routes: HashMap<String, Erased>,
    otherwise: Option<Erased>,
}

impl Router {
    /// Starts without any handler: every record is rejected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends events of one type to a handler.
    #[must_use]
    pub fn on(mut self, event_type: &str, handler: impl Handler) -> Self {
        self.routes.insert(event_type.to_owned(), erase(handler));
        self
    }

    /// Sends everything else to a handler: other types, tombstones, records without a type. Without one they are rejected.
    #[must_use]
    pub fn otherwise(mut self, handler: impl Handler) -> Self {
        self.otherwise = Some(erase(handler));
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
            None => Outcome::reject(match event_type {
                Some(event_type) => format!("no handler for events of type {:?}", cut(&event_type)),
                None => "a record without an event type".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("types", &self.routes.keys()).finish_non_exhaustive()
    }
}

/// A handler whose type is forgotten.
pub(crate) type Erased = Arc<dyn Fn(Delivery) -> Handling + Send + Sync>;
/// What an erased handler gives.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(crate) fn erase(handler: impl Handler) -> Erased {
    let handler = Arc::new(handler);
    Arc::new(move |delivery| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { handler.handle(delivery).await })
    })
}

/// Gives the tag of a payload, if it has one.
fn tag(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Tag {
        event_type: String,
    }
    serde_json::from_slice::<Tag>(payload).ok().map(|tag| tag.event_type)
}

/// A name out of a record, short enough for a message.
pub(super) fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}
