//! Decodes an event from a payload and its header.
//!
//! The type comes from the header, or else from the payload's tag. A header supplies a missing tag. A type that the
//! enum does not have is not an error: producers can be newer than readers.

mod explain;
mod json;
mod lenient;
mod probe;
mod reason;
mod tag;

use std::fmt;

use serde::de::DeserializeOwned;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

use super::headers::EVENT_TYPE;

use json::Field;
use json::Kind;

/// How many characters of a type an error shows.
const MAX_SHOWN_CHARS: usize = 64;

/// A decoded event.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Decoded<E> {
    /// An event of a type that `E` has.
    Known(E),
    /// An event of a type that `E` does not have.
    Unknown(Unknown),
}

/// An event of an unknown type.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Unknown {
    /// The type that `E` does not have.
    pub event_type: String,
    /// The payload, unchanged.
    pub payload: Vec<u8>,
}

impl Unknown {
    /// Creates an event of an unknown type, as a codec of an application does.
    #[must_use]
    pub fn new(event_type: &str, payload: &[u8]) -> Self {
        Self { event_type: event_type.to_owned(), payload: payload.to_vec() }
    }
}

/// An event type from a record. It is displayed escaped and shortened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TypeName(String);

impl TypeName {
    fn new(name: &str) -> Self {
        Self(name.chars().take(MAX_SHOWN_CHARS).collect())
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An event cannot be decoded. Messages contain names of the type, never values of the payload.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Neither the header nor the payload has a type.
    #[error("cannot decode event: no event_type in the headers or the payload")]
    Untyped,
    /// The header and the payload have different types.
    #[error("cannot decode event: event_type is {header} in the headers and {tag} in the payload")]
    TypesDiffer {
        /// The header's.
        header: TypeName,
        /// The payload's.
        tag: TypeName,
    },
    /// The payload does not match its type.
    #[error("cannot decode event {event_type}: {reason}")]
    Malformed {
        /// The event's type.
        event_type: TypeName,
        /// Why.
        reason: String,
    },
    /// The payload is not an event.
    #[error("cannot decode event: {0}")]
    NotAnEvent(String),
}

impl Diagnose for DecodeError {
    fn code(&self) -> Code {
        match self {
            Self::Untyped => Code::new(Exit::Poison, 30),
            Self::TypesDiffer { .. } => Code::new(Exit::Poison, 31),
            Self::Malformed { .. } => Code::new(Exit::Poison, 32),
            Self::NotAnEvent(_) => Code::new(Exit::Poison, 33),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Untyped => "set the event_type header or a tag in the payload at the producer",
                Self::TypesDiffer { .. } => {
                    "write the same type to the column event_type, which becomes the header, and to the tag"
                }
                Self::Malformed { .. } | Self::NotAnEvent(_) => {
                    "compare the producer's type with the reader's; docs/events.md lists compatible changes"
                }
            }
            .to_owned(),
        )
    }
}

/// Decodes an event from a payload. `header_type` is the record's `event_type` header.
///
/// ```
/// # use walrelay_events::event::{Decoded, Unknown, decode};
/// #[derive(Debug, PartialEq, serde::Deserialize)]
/// #[serde(tag = "event_type")]
/// enum OrderEvent {
///     OrderCreated { total_cents: u64 },
/// }
///
/// let newer = decode::<OrderEvent>(Some("OrderSplit"), b"{}")?;
/// assert!(matches!(newer, Decoded::Unknown(Unknown { event_type, .. }) if event_type == "OrderSplit"));
///
/// let broken = decode::<OrderEvent>(Some("OrderCreated"), b"{}").unwrap_err();
/// assert_eq!(broken.to_string(), "cannot decode event \"OrderCreated\": missing field total_cents");
/// # Ok::<(), walrelay_events::event::DecodeError>(())
/// ```
pub fn decode<E: DeserializeOwned>(header_type: Option<&str>, payload: &[u8]) -> Result<Decoded<E>, DecodeError> {
    let tag = tag::read(payload);
    if let Ok(tag) = &tag {
        let event_type = agreed(header_type, tag.as_deref())?;
        let event = match event_type {
            Some(event_type) if tag.is_none() => {
                tag::insert(payload, event_type).and_then(|tagged| serde_json::from_slice(&tagged).ok())
            }
            Some(_) | None => serde_json::from_slice(payload).ok(),
        };
        if let Some(event) = event {
            return Ok(Decoded::Known(event));
        }
    }
    decode_slowly(header_type, tag.ok().flatten().as_deref(), payload)
}

/// Decodes an event that serde_json refuses. It may be of a type that the enum does not have, or have a value that no
/// type can hold in a field that its type does not have. Otherwise this finds the reason.
#[cold]
fn decode_slowly<E: DeserializeOwned>(
    header_type: Option<&str>,
    tag: Option<&str>,
    payload: &[u8],
) -> Result<Decoded<E>, DecodeError> {
    let malformed = |event_type: Option<&str>, reason: String| match event_type {
        Some(event_type) => DecodeError::Malformed { event_type: TypeName::new(event_type), reason },
        None => DecodeError::NotAnEvent(reason),
    };
    let read = json::read(payload).map_err(|error| format!("the payload is not JSON: {error}"));
    let found = read.as_ref().map_or(Ok(None), |root| explain::tag(root, payload));
    let found = found.as_ref().map(|found| found.as_deref().or(tag));
    let event_type = agreed(header_type, found.ok().flatten())?;
    if let Some(event_type) = event_type
        && !probe::knows::<E>(event_type)
    {
        return Ok(Decoded::Unknown(Unknown::new(event_type, payload)));
    }
    if let Err(reason) = found {
        return Err(malformed(event_type, reason.clone()));
    }
    let mut root = read.map_err(|reason| malformed(event_type, reason))?;
    let is_tagged = matches!(found, Ok(Some(_)));
    let tagged = match event_type {
        Some(event_type) if !is_tagged => {
            let Kind::Object(fields) = &mut root.kind else {
                return Err(malformed(Some(event_type), "the payload is not a JSON object".to_owned()));
            };
            fields.insert(0, Field::given(EVENT_TYPE, event_type));
            Some(event_type)
        }
        Some(_) | None => None,
    };
    match lenient::decode::<E>(&root) {
        Ok(_) => {
            // The type asks for none of the values that it cannot hold. Without them serde_json decodes it.
            let copy = root.without_unusable(payload).and_then(|copy| match tagged {
                Some(tagged) => tag::insert(&copy, tagged),
                None => Some(copy),
            });
            let event = copy.and_then(|copy| serde_json::from_slice(&copy).ok());
            event
                .map(Decoded::Known)
                .ok_or_else(|| malformed(event_type, "the JSON does not match the type".to_owned()))
        }
        Err(_) if event_type.is_none() && probe::requires_tag::<E>() => Err(DecodeError::Untyped),
        Err(reason) => Err(malformed(event_type, explain::reason::<E>(&reason, &root, payload))),
    }
}

/// Returns the type of the header, or else of the tag. Both must agree.
fn agreed<'t>(header_type: Option<&'t str>, tag: Option<&'t str>) -> Result<Option<&'t str>, DecodeError> {
    match (header_type, tag) {
        (Some(header), Some(tag)) if header != tag => {
            Err(DecodeError::TypesDiffer { header: TypeName::new(header), tag: TypeName::new(tag) })
        }
        (header, tag) => Ok(header.or(tag)),
    }
}

#[cfg(test)]
mod tests;
