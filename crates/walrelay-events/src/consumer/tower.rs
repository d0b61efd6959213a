//! tower: services as handlers, and layers around handlers.
//!
//! ```text
//!   record --> ServiceHandler ( layer ( layer ( HandlerService ( handler ) ) ) ) --> outcome
//! ```
//!
//! Deliberately absent: retries. The consumer retries, so that other keys continue meanwhile.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tower_layer::Layer;
use tower_service::Service;

use crate::consumer::handler::Delivery;
use crate::consumer::handler::Handler;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;

/// Wraps a handler in a layer: one, or several by tower's `ServiceBuilder`.
///
/// An error of the layer becomes an outcome like an error of a handler: by default it means retry.
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceBuilder;
/// use walrelay_events::consumer::{Delivery, tower::layered};
///
/// async fn ship(_: Delivery) {}
///
/// let layers = ServiceBuilder::new().concurrency_limit(8).timeout(Duration::from_secs(30));
/// let handler = layered(layers, ship);
/// ```
pub fn layered<H: Handler, L: Layer<HandlerService<H>>>(layer: L, handler: H) -> ServiceHandler<L::Service> {
    ServiceHandler(layer.layer(HandlerService(Arc::new(handler))))
}

/// A handler as a tower service. It is always ready.
#[derive(Debug)]
pub struct HandlerService<H>(Arc<H>);

/// The clones share the handler.
impl<H> Clone for HandlerService<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> Service<Delivery> for HandlerService<H> {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move { Ok(handler.handle(delivery).await) })
    }
}

/// A tower service as a handler. Each record is handled by a clone of the service, after it is ready.
#[derive(Clone, Debug)]
pub struct ServiceHandler<S>(S);

impl<S> ServiceHandler<S> {
    /// Takes a service of deliveries whose response is an outcome.
    #[must_use]
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> Handler for ServiceHandler<S>
where
    S: Service<Delivery> + Clone + Send + Sync + 'static,
    S::Response: IntoOutcome,
    S::Error: Into<Box<dyn Error + Send + Sync>> + 'static,
    S::Future: Send,
{
    async fn handle(&self, delivery: Delivery) -> Outcome {
        let mut service = self.0.clone();
        if let Err(error) = std::future::poll_fn(|context| service.poll_ready(context)).await {
            return Err::<Outcome, _>(error).into_outcome();
        }
        service.call(delivery).await.into_outcome()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use tower::ServiceBuilder;

    use super::*;
    use crate::consumer::record::Record;

    fn delivery() -> Delivery {
        Delivery::new(Record::new("t", 0, 0, None, None, &[]))
    }

    #[tokio::test]
    async fn a_layer_sees_each_delivery_and_its_error_means_retry() {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&calls);
        let layers = ServiceBuilder::new().map_request(move |delivery: Delivery| {
            seen.fetch_add(1, Relaxed);
            delivery
        });
        let layers = layers.concurrency_limit(1).timeout(Duration::from_millis(20));
        let slow = |delivery: Delivery| async move {
            if delivery.record.offset() == 0 {
                std::future::pending::<()>().await;
            }
            Outcome::skip("not ours")
        };
        let handler = layered(layers, slow);
        let outcome = handler.handle(delivery()).await;
        assert!(matches!(&outcome, Outcome::Failed(error) if error.error().is::<tower::timeout::error::Elapsed>()));
        let next = Delivery::new(Record::new("t", 0, 1, None, None, &[]));
        assert_eq!(handler.handle(next).await, Outcome::skip("not ours"));
        assert_eq!(calls.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_service_is_a_handler_whatever_it_returns() {
        let service = tower::service_fn(|_: Delivery| async { Err::<(), _>("the carrier is busy".to_owned()) });
        let outcome = ServiceHandler::new(service).handle(delivery()).await;
        assert_eq!(outcome.reason(), Some("the carrier is busy"));
    }
}
