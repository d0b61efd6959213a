//! The publisher that applications use.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use std::time::SystemTime;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::event;
use crate::event::Envelope;
use crate::event::TraceContext;
use crate::kafka::Tokens;
use crate::kafka_error::KafkaError;
use crate::publisher::client::Client;
use crate::publisher::client::Reports;
use crate::publisher::client::Setup;
use crate::publisher::config::Config;
use crate::publisher::core::Core;
use crate::publisher::error::Error;
use crate::publisher::outgoing::Outgoing;
use crate::publisher::outgoing::Published;
use crate::publisher::pending::Pending;
use crate::publisher::properties;
use crate::publisher::record::Draft;
use crate::publisher::record::Record;
use crate::publisher::supervisor;

/// Publishes events to Kafka. Share one, for example in an `Arc`: it has one connection per broker.
///
/// Its calls need a Tokio runtime with the timer enabled. Events of one key are delivered in the order in which
/// [`enqueue`](Self::enqueue) or [`publish`](Self::publish) accepted them: await one `enqueue` before you call the
/// next.
///
/// If it is dropped without [`close`](Self::close), events without an acknowledgment may be lost. A warning is logged
/// then.
pub struct Publisher {
    config: Config,
    core: Arc<Core>,
    limit: usize,
}

impl Publisher {
    /// Creates a publisher. It connects in the background. With `token_provider`, this must be called on a Tokio
    /// runtime, on which the provider is called.
    pub fn new(config: Config) -> Result<Self, Error> {
        let setup = Setup { config: properties::properties(&config)?, tokens: tokens(&config)? };
        let limit = usize::try_from(config.max_in_flight_bytes).unwrap_or(usize::MAX);
        let core = Arc::new(Core::new(limit, properties::max_record_bytes(&config)?));
        let reports = Arc::clone(&core) as Arc<dyn Reports>;
        core.install(Client::new(&setup, reports).map_err(|error| Error::Configuration(KafkaError::new(error)))?);
        let publisher = Self { config, core: Arc::clone(&core), limit };
        thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || supervisor::run(&core, setup))
            .map_err(|error| Error::Thread(error.to_string()))?;
        Ok(publisher)
    }

    /// Publishes an event that happens now, and waits until it is delivered. It gets a new event id and, with the
    /// feature `otel`, the trace context of the current span. Events of one key go to one partition in their order. An
    /// empty key counts as none.
    ///
    /// If the future is dropped before the event is accepted, nothing is sent. Dropped later, the event is sent, and
    /// [`flush`](Self::flush) reports a failure.
    pub async fn publish<E: Serialize + ?Sized>(&self, topic: &str, key: &str, event: &E) -> Result<Published, Error> {
        self.enqueue(topic, key, event).await?.await
    }

    /// Publishes an event with its metadata, and waits until it is delivered. The aggregate id becomes the key. After
    /// an error that is retriable, publish the same envelope again: it has the same event id, so that a consumer's
    /// inbox recognizes a second delivery.
    pub async fn publish_envelope<E: Serialize>(
        &self,
        topic: &str,
        envelope: &Envelope<E>,
    ) -> Result<Published, Error> {
        self.enqueue_envelope(topic, envelope).await?.await
    }

    /// Accepts an event as [`publish`](Self::publish) does, and returns a handle that completes when it is delivered.
    /// Waits while there is no room. Use it to have many events in flight.
    pub async fn enqueue<E: Serialize + ?Sized>(&self, topic: &str, key: &str, event: &E) -> Result<Pending, Error> {
        let event_id = Uuid::now_v7();
        let now = SystemTime::now();
        let draft = Draft {
            topic,
            key,
            event_id: event_id.to_string(),
            aggregate_type: None,
            occurred_at: now,
            trace: TraceContext::current(),
            encoded: event::encode(event)?,
        };
        self.accept(Record::new(draft, now)?, event_id).await
    }

    /// Accepts an event with its metadata, and returns a handle that completes when it is delivered.
    pub async fn enqueue_envelope<E: Serialize>(&self, topic: &str, envelope: &Envelope<E>) -> Result<Pending, Error> {
        let draft = Draft {
            topic,
            key: &envelope.aggregate_id,
            event_id: envelope.event_id.to_string(),
            aggregate_type: Some(&envelope.aggregate_type),
            occurred_at: envelope.occurred_at,
            trace: envelope.trace.clone(),
            encoded: event::encode(&envelope.event)?,
        };
        self.accept(Record::new(draft, SystemTime::now())?, envelope.event_id).await
    }

    /// Waits until every event that was accepted before is delivered, for at most `delivery_timeout`. Otherwise returns
    /// [`Error::Undelivered`] with the events that are not known to be delivered: those without an acknowledgment, and
    /// those that failed since the last call and whose handle was dropped.
    pub async fn flush(&self) -> Result<(), Error> {
        let end = self.core.settled(self.config.delivery_timeout).await;
        self.core.report_before(end)
    }

    /// Accepts no further events and waits until every accepted one is delivered, for at most `shutdown_timeout`. Then
    /// the publisher ends. Returns [`Error::Undelivered`] as [`flush`](Self::flush) does.
    pub async fn close(&self) -> Result<(), Error> {
        self.core.close();
        self.core.settled(self.config.shutdown_timeout).await;
        self.core.end()
    }

    async fn accept(&self, record: Record, event_id: Uuid) -> Result<Pending, Error> {
        let (started, timeout) = (Instant::now(), self.config.delivery_timeout);
        let permits = u32::try_from(record.size().min(self.limit)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.core.room).acquire_many_owned(permits);
        let room = match tokio::time::timeout(timeout, room).await {
            Ok(room) => room.map_err(|_| Error::Closed)?,
            Err(_) => return Err(record.not_sent(timeout, self.core.waiting())),
        };
        let (reply, result) = oneshot::channel();
        let outgoing = Outgoing { record, event_id, reply, _room: room, sent_at: None, refusal: None };
        let number = self.core.accept(outgoing)?;
        Ok(Pending::new(result, (timeout, started.elapsed()), Arc::clone(&self.core), number))
    }
}

fn tokens(config: &Config) -> Result<Option<Tokens>, Error> {
    let Some(provider) = config.token_provider.clone() else { return Ok(None) };
    let runtime =
        Handle::try_current().map_err(|_| Error::Option("a token provider needs a Tokio runtime".to_owned()))?;
    Tokens::from_provider(provider, runtime).map(Some).map_err(|error| Error::Thread(error.to_string()))
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Err(error) = self.core.end() {
            tracing::warn!(error = %error, "publisher dropped before its events were acknowledged");
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("config", &self.config).finish_non_exhaustive()
    }
}
