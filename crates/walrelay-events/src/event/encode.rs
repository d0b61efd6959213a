//! From an event to its type and its JSON.

use std::borrow::Cow;

use serde::Deserialize;
use serde::Serialize;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// An event as it stands in a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// The type's name, which is also the payload's tag.
    pub event_type: String,
    /// The event as a JSON object, with its tag.
    pub payload: String,
}

/// A value is not an event.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It cannot become JSON at all.
    #[error("write the event as JSON")]
    Json(#[source] serde_json::Error),
    /// It is a number, a text or a list.
    #[error("expected an event that is a JSON object")]
    NotAnObject,
    /// It does not say its type, or says it twice or not as a text.
    #[error("expected an event with one text field event_type")]
    Untagged,
    /// PostgreSQL stores no such text.
    #[error("the event holds a text with the character U+0000, which PostgreSQL does not store")]
    Nul,
}

impl Diagnose for EncodeError {
    fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::new(Exit::Internal, 60),
            Self::NotAnObject | Self::Untagged => Code::new(Exit::Internal, 61),
            Self::Nul => Code::new(Exit::Internal, 62),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Json(_) => None,
            Self::NotAnObject | Self::Untagged => {
                Some("put #[serde(tag = \"event_type\")] on the enum; no field may have that name".to_owned())
            }
            Self::Nul => Some("refuse or replace U+0000 where the text enters the application".to_owned()),
        }
    }
}

/// The one field of a payload that says what it is.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
}

/// Writes an event as JSON and reads its type from the tag.
pub fn encode<E: Serialize + ?Sized>(event: &E) -> Result<Encoded, EncodeError> {
    let payload = serde_json::to_string(event).map_err(EncodeError::Json)?;
    if !payload.starts_with('{') {
        return Err(EncodeError::NotAnObject);
    }
    if has_nul(&payload) {
        return Err(EncodeError::Nul);
    }
    let tag: Tag<'_> = serde_json::from_str(&payload).map_err(|_| EncodeError::Untagged)?;
    if tag.event_type.is_empty() {
        return Err(EncodeError::Untagged);
    }
    Ok(Encoded { event_type: tag.event_type.into_owned(), payload })
}

/// Finds `\u0000` with a backslash that is not itself escaped.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(place, _)| {
        let before = json.as_bytes().get(..place).unwrap_or_default();
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_object_that_says_its_type_once_is_an_event() {
        #[derive(Serialize)]
        #[serde(tag = "event_type")]
        enum Twice {
            Said(Inner),
        }
        #[derive(Serialize)]
        struct Inner {
            event_type: String,
        }
        #[derive(Serialize)]
        struct Keys {
            keys: std::collections::BTreeMap<(u8, u8), u8>,
        }
        let check = |result: Result<Encoded, EncodeError>, expected: &str| {
            assert_eq!(result.unwrap_err().to_string(), expected);
        };
        let untagged = "expected an event with one text field event_type";
        check(encode(&json!(["event_type"])), "expected an event that is a JSON object");
        check(encode("Created"), "expected an event that is a JSON object");
        check(encode(&json!({})), untagged);
        check(encode(&json!({"event_type": 1})), untagged);
        check(encode(&json!({"event_type": ""})), untagged);
        check(encode(&Twice::Said(Inner { event_type: "x".into() })), untagged);
        check(encode(&Keys { keys: [((1, 2), 3)].into() }), "write the event as JSON");
    }

    #[test]
    fn what_postgresql_does_not_store_is_refused_before_it_breaks_a_transaction() {
        let event = |text: &str| json!({"event_type": "A", "text": text});
        assert!(matches!(encode(&event("\0")), Err(EncodeError::Nul)));
        assert!(matches!(encode(&event("\\\0")), Err(EncodeError::Nul)));
        for text in ["\\u0000", "\\\\u0000", "u0000", "\u{1}"] {
            assert!(encode(&event(text)).is_ok(), "{text:?}");
        }
    }
}
