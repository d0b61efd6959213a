//! The id of an event, of whatever kind the outbox table gives it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// The maximum length. A row of an index on (consumer, event id) stays below PostgreSQL's limit of 2,704 bytes.
const MAX_BYTES: usize = 1_024;

/// An event's id. It is the same in every delivery. Cloning it copies no text.
///
/// The relay publishes any column as the id: `uuid`, `bigint`, `text`. An event has one id, so the text of a UUID is
/// canonical: lower case with hyphens. Any other text stays as it is.
///
/// ```
/// use walrelay_events::event::EventId;
///
/// let id: EventId = "0190A5C3-7B1E-7D3A-9F00-2C8E6A1B4D5F".parse()?;
/// assert_eq!(id.to_string(), "0190a5c3-7b1e-7d3a-9f00-2c8e6a1b4d5f");
/// assert!(id.as_uuid().is_some());
/// let number: EventId = "42".parse()?;
/// assert_eq!((number.to_string().as_str(), number.as_uuid()), ("42", None));
/// # Ok::<(), walrelay_events::event::BadEventId>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(Form);

#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Form {
    Uuid(Uuid),
    Text(Arc<str>),
}

/// A text cannot be an event's id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEventId {
    /// An empty text identifies nothing.
    #[error("the event id is empty")]
    Empty,
    /// PostgreSQL cannot index it together with the consumer's name.
    #[error("the event id has more than {MAX_BYTES} bytes")]
    TooLong,
    /// PostgreSQL cannot store it.
    #[error("the event id contains U+0000")]
    Nul,
}

impl EventId {
    /// Returns the id as a UUID, if it is one.
    #[must_use]
    pub const fn as_uuid(&self) -> Option<Uuid> {
        match &self.0 {
            Form::Uuid(uuid) => Some(*uuid),
            Form::Text(_) => None,
        }
    }
}

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(Self(Form::Uuid(uuid)));
        }
        if text.is_empty() {
            return Err(BadEventId::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(BadEventId::TooLong);
        }
        if text.contains('\0') {
            return Err(BadEventId::Nul);
        }
        Ok(Self(Form::Text(text.into())))
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(Form::Uuid(uuid))
    }
}

impl From<i64> for EventId {
    fn from(number: i64) -> Self {
        Self(Form::Text(number.to_string().into()))
    }
}

impl From<&Self> for EventId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

/// The canonical text.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Form::Text(text) => f.pad(text),
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(uuid) => write!(f, "EventId({uuid})"),
            Form::Text(text) => write!(f, "EventId({text:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_event_has_one_id_whatever_the_case_of_its_uuid() {
        let uuid: Uuid = "0190a5c3-7b1e-7d3a-9f00-2c8e6a1b4d5f".parse().unwrap();
        for text in ["0190A5C3-7B1E-7D3A-9F00-2C8E6A1B4D5F", "0190a5c37b1e7d3a9f002c8e6a1b4d5f"] {
            let id: EventId = text.parse().unwrap();
            assert_eq!((id.to_string(), id.as_uuid()), (uuid.to_string(), Some(uuid)));
            assert_eq!((&id, &id), (&EventId::from(uuid), &EventId::from(&id)));
        }
    }

    #[test]
    fn numbers_ulids_and_words_are_ids_as_they_are() {
        for text in ["42", "-1", "007", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "order-7 Zoë", " ", "x".repeat(1_024).as_str()] {
            let id: EventId = text.parse().unwrap();
            assert_eq!((id.to_string().as_str(), id.as_uuid()), (text, None));
        }
        assert_eq!("-42".parse(), Ok(EventId::from(-42)));
        assert_ne!("a".parse::<EventId>(), "A".parse());
    }

    #[test]
    fn a_text_that_identifies_nothing_or_cannot_be_stored_is_no_id() {
        assert_eq!("".parse::<EventId>(), Err(BadEventId::Empty));
        assert_eq!("x".repeat(1_025).parse::<EventId>(), Err(BadEventId::TooLong));
        assert_eq!("a\0".parse::<EventId>(), Err(BadEventId::Nul));
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_the_same_id(text in "[^\0]{1,40}|[0-9a-fA-F]{32}") {
            let id: EventId = text.parse().unwrap();
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }
    }
}
