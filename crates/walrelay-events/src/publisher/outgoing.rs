//! A record on its way, and how its caller hears of the result.

use std::time::Duration;
use std::time::Instant;

use rdkafka::error::KafkaError as ClientError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::fault::chain;
use crate::kafka_error::KafkaError;
use crate::publisher::error::Error;
use crate::publisher::error::MAX_NAMED;
use crate::publisher::error::Undelivered;
use crate::publisher::record::Record;

/// Where an event is in Kafka.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The event's id.
    pub event_id: Uuid,
    /// The partition of the topic.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
}

/// A record without a result.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) record: Record,
    pub(super) event_id: Uuid,
    pub(super) reply: oneshot::Sender<Result<Published, Error>>,
    /// Its part of `max_in_flight_bytes`, given back when this is dropped.
    pub(super) _room: OwnedSemaphorePermit,
    /// When this client, or the one before, got it.
    pub(super) sent_at: Option<Instant>,
    /// Why Kafka refused its batch.
    pub(super) refusal: Option<ClientError>,
}

impl Outgoing {
    pub(super) fn published(self, partition: i32, offset: i64) {
        // The caller may have given up.
        let _ = self.reply.send(Ok(Published { event_id: self.event_id, partition, offset }));
    }

    /// Replies with an error. Returns the event if nobody hears of it.
    pub(super) fn fail(self, error: Error) -> Option<Undelivered> {
        let Self { record, reply, .. } = self;
        let Err(Err(error)) = reply.send(Err(error)) else { return None };
        let (event_id, reason) = (record.event_id().to_owned(), chain(&error));
        Some(Undelivered { topic: record.topic, event_id, may_be_delivered: error.may_be_delivered(), reason })
    }

    /// The publisher ends.
    pub(super) fn end(self, was_sent: bool) {
        let (topic, event_id) = self.names();
        // The end of the publisher is reported as a whole.
        let _ = self.reply.send(Err(if was_sent { Error::Ended { topic, event_id } } else { Error::Closed }));
    }

    pub(super) fn unsettled(&self, was_sent: bool) -> Undelivered {
        let (topic, event_id) = self.names();
        let reason = if was_sent { "not acknowledged" } else { "not sent" };
        Undelivered { topic, event_id, may_be_delivered: was_sent, reason: reason.to_owned() }
    }

    pub(super) fn refused(&self) -> Error {
        let (topic, event_id) = self.names();
        let source = Box::new(KafkaError::new(self.refusal.clone().unwrap_or(ClientError::Canceled)));
        Error::Refused { topic, event_id, source }
    }

    pub(super) fn too_large(&self, limit: usize) -> Error {
        let (topic, event_id) = self.names();
        Error::TooLarge { topic, event_id, size: self.record.bytes(), limit }
    }

    pub(super) fn topic_missing(&self) -> Error {
        let (topic, event_id) = self.names();
        Error::TopicMissing { topic, event_id }
    }

    pub(super) fn access_denied(&self, source: KafkaError) -> Error {
        let (topic, event_id) = self.names();
        Error::AccessDenied { topic, event_id, source: Box::new(source) }
    }

    pub(super) fn not_acknowledged(&self, timeout: Duration, waiting: Option<String>) -> Error {
        let (topic, event_id) = self.names();
        Error::NotAcknowledged { topic, event_id, timeout, waiting }
    }

    fn names(&self) -> (String, String) {
        (self.record.topic.clone(), self.record.event_id().to_owned())
    }
}

/// Events that are not known to be delivered, and whose callers did not hear of it.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    count: usize,
    events: Vec<Undelivered>,
}

impl Unheard {
    pub(super) fn add(&mut self, event: Undelivered) {
        self.count += 1;
        if self.events.len() < MAX_NAMED {
            self.events.push(event);
        }
    }

    pub(super) fn into_result(self) -> Result<(), Error> {
        let Self { count, events } = self;
        if count == 0 { Ok(()) } else { Err(Error::Undelivered { count, events }) }
    }
}
