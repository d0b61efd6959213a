//! Encodes an event as JSON and reads its type.

use std::borrow::Cow;

use serde::Deserialize;
use serde::Serialize;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// An encoded event, as it is written to a row.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// The type, which is also the payload's tag.
    pub event_type: String,
    /// The event as a JSON object, with its tag.
    pub payload: String,
}

/// A value cannot be encoded as an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// serde failed.
    #[error("cannot encode event as JSON")]
    Json(#[source] serde_json::Error),
    /// The value is a number, a string or a list.
    #[error("cannot encode event: it is not a JSON object")]
    NotAnObject,
    /// The tag is missing, occurs twice, or is not a string.
    #[error("cannot encode event: expected one string field event_type")]
    Untagged,
    /// PostgreSQL cannot store this string.
    #[error("cannot encode event: a string contains U+0000, which PostgreSQL cannot store")]
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
                Some("add #[serde(tag = \"event_type\")] to the enum, and name no field event_type".to_owned())
            }
            Self::Nul => Some("refuse or replace U+0000 in the application's input".to_owned()),
        }
    }
}

/// The tag of a payload.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
}

/// Encodes an event as JSON and reads its type from the tag.
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

/// Finds `\u0000` whose backslash is not escaped itself.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(index, _)| {
        let before = json.as_bytes().get(..index).unwrap_or_default();
        before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_object_with_one_type_is_an_event() {
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
        let untagged = "cannot encode event: expected one string field event_type";
        check(encode(&json!(["event_type"])), "cannot encode event: it is not a JSON object");
        check(encode("Created"), "cannot encode event: it is not a JSON object");
        check(encode(&json!({})), untagged);
        check(encode(&json!({"event_type": 1})), untagged);
        check(encode(&json!({"event_type": ""})), untagged);
        check(encode(&Twice::Said(Inner { event_type: "x".into() })), untagged);
        check(encode(&Keys { keys: [((1, 2), 3)].into() }), "cannot encode event as JSON");
    }

    #[test]
    fn a_string_that_postgresql_cannot_store_is_refused_before_it_aborts_a_transaction() {
        let event = |text: &str| json!({"event_type": "A", "text": text});
        assert!(matches!(encode(&event("\0")), Err(EncodeError::Nul)));
        assert!(matches!(encode(&event("\\\0")), Err(EncodeError::Nul)));
        for text in ["\\u0000", "\\\\u0000", "u0000", "\u{1}"] {
            assert!(encode(&event(text)).is_ok(), "{text:?}");
        }
    }
}
