//! Handlers: what an application does with a record.
//!
//! An async function is a handler. [`Router`](super::Router) selects a handler by topic or event type;
//! [`typed`](super::typed) decodes the event first.

use std::pin::Pin;
use std::sync::Arc;

use crate::consumer::cancellation::Cancellation;
use crate::consumer::classifier::Classifier;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;
use crate::consumer::record::Record;

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

impl<H: Handler> Handler for Arc<H> {
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Outcome> + Send {
        H::handle(self, delivery)
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
