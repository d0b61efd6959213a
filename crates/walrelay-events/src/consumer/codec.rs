//! Codecs: from a record to a typed event.
//!
//! [`Json`] reads what the relay writes. An application implements [`Codec`] for other formats, for example Avro or
//! Protobuf behind Confluent's schema id.

use serde::de::DeserializeOwned;

use crate::consumer::outcome::Failure;
use crate::consumer::record::Record;
use crate::event;
use crate::event::BadEventId;
use crate::event::Decoded;
use crate::event::EventId;
use crate::event::Unknown;

/// The payload of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Payload<E> {
    /// An event of a known type.
    Event(E),
    /// An event of a type that `E` does not have.
    Unknown(Unknown),
    /// A record without a value.
    Tombstone,
}

/// What a [`Codec`] reads from a record.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DecodedEvent<E> {
    /// The event's id. It is the same in every delivery, so that an inbox recognizes it.
    pub event_id: EventId,
    /// The event, or why there is none.
    pub payload: Payload<E>,
}

impl<E> DecodedEvent<E> {
    /// Combines an id with a payload.
    #[must_use]
    pub fn new(event_id: impl Into<EventId>, payload: Payload<E>) -> Self {
        Self { event_id: event_id.into(), payload }
    }
}

/// Decodes records into events of type `E`.
///
/// An error is a [`Failure`]: dead-letter a record that can never be decoded. With `?` an error means retry, for
/// example while a schema registry does not answer.
///
/// ```
/// use walrelay_events::consumer::{Codec, DecodedEvent, Failure, Outcome, Payload, Received, Record, typed};
///
/// struct Parcel {
///     grams: u32,
/// }
///
/// /// Four bytes, behind a zero byte and the four bytes of a schema id.
/// struct Framed;
///
/// impl Codec<Parcel> for Framed {
///     async fn decode(&self, record: &Record) -> Result<DecodedEvent<Parcel>, Failure> {
///         let id = record.header("id").ok_or_else(|| Failure::dead_letter("the record has no id header"))?;
///         let payload = match record.value() {
///             None => Payload::Tombstone,
///             Some([0, _, _, _, 7, grams @ ..]) => {
///                 Payload::Event(Parcel { grams: u32::from_be_bytes(grams.try_into()?) })
///             }
///             Some(_) => return Err(Failure::dead_letter("the schema is not 7")),
///         };
///         Ok(DecodedEvent::new(id.parse::<walrelay_events::event::EventId>()?, payload))
///     }
/// }
///
/// let handler = typed(|_: Received<Parcel>| async { Outcome::Ack }).with_codec(Framed);
/// ```
pub trait Codec<E>: Send + Sync + 'static {
    /// Decodes a record before its handler is called. Later records of its key wait meanwhile.
    fn decode(&self, record: &Record) -> impl Future<Output = Result<DecodedEvent<E>, Failure>> + Send;
}

/// JSON as the relay writes it: the event's id and type in headers, an object with the tag `event_type` as the value.
///
/// ```
/// use walrelay_events::consumer::Json;
///
/// let debezium = Json::with_headers("id", "eventType");
/// let cloud_events_in_binary_mode = Json::with_headers("ce_id", "ce_type");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Json {
    id_header: String,
    type_header: String,
}

impl Json {
    /// Reads the event's id and type from other headers. Without a header for the type the tag in the value decides.
    #[must_use]
    pub fn with_headers(id: &str, event_type: &str) -> Self {
        Self { id_header: id.to_owned(), type_header: event_type.to_owned() }
    }

    fn read<E: DeserializeOwned>(&self, record: &Record) -> Result<DecodedEvent<E>, String> {
        let name = &self.id_header;
        let id = record.header(name).ok_or_else(|| format!("the record has no {name} header"))?;
        let event_id: EventId = id.parse().map_err(|error: BadEventId| error.to_string())?;
        let Some(value) = record.value() else { return Ok(DecodedEvent::new(event_id, Payload::Tombstone)) };
        let decoded = event::decode(record.header(&self.type_header), value).map_err(|error| error.to_string())?;
        let payload = match decoded {
            Decoded::Known(event) => Payload::Event(event),
            Decoded::Unknown(unknown) => Payload::Unknown(unknown),
        };
        Ok(DecodedEvent::new(event_id, payload))
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::with_headers(event::EVENT_ID, event::EVENT_TYPE)
    }
}

impl<E: DeserializeOwned + Send + 'static> Codec<E> for Json {
    async fn decode(&self, record: &Record) -> Result<DecodedEvent<E>, Failure> {
        self.read(record).map_err(Failure::dead_letter)
    }
}
