//! Decodes an event from a payload and its header.
//!
//! The type comes from the header, or else from the payload's tag. A header supplies a missing tag. A type that the
//! enum does not have is not an error: producers can be newer than readers.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

use super::headers::EVENT_TYPE;
use super::reason;
use super::reason::Reason;

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

/// The tag of a payload.
#[derive(Default, Deserialize)]
struct Tag<'a> {
    #[serde(borrow, default)]
    event_type: Option<Cow<'a, str>>,
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
    // A payload without a readable tag is checked again below, where it matters.
    let is_object = payload.trim_ascii_start().starts_with(b"{");
    let tag = if is_object { serde_json::from_slice::<Tag<'_>>(payload).unwrap_or_default().event_type } else { None };
    let event_type = match (header_type, tag.as_deref()) {
        (Some(header), Some(tag)) if header != tag => {
            return Err(DecodeError::TypesDiffer { header: TypeName::new(header), tag: TypeName::new(tag) });
        }
        (Some(header), _) => header,
        (None, Some(tag)) => tag,
        (None, None) => return untyped(payload),
    };
    if !reason::knows::<E>(event_type) {
        return Ok(Decoded::Unknown(Unknown { event_type: event_type.to_owned(), payload: payload.to_vec() }));
    }
    let malformed =
        |reason: &Reason| DecodeError::Malformed { event_type: TypeName::new(event_type), reason: reason.to_string() };
    if tag.is_some() {
        return match serde_json::from_slice(payload) {
            Ok(event) => Ok(Decoded::Known(event)),
            Err(_) => Err(malformed(&parse(payload).map_or_else(|reason| reason, reason::why::<E>))),
        };
    }
    let mut value = parse(payload).map_err(|reason| malformed(&reason))?;
    let Value::Object(fields) = &mut value else {
        return Err(malformed(&Reason::Other("the payload is not a JSON object".to_owned())));
    };
    if fields.insert(EVENT_TYPE.to_owned(), event_type.into()).is_some() {
        return Err(malformed(&invalid_tag()));
    }
    match serde_json::from_value(value.clone()) {
        Ok(event) => Ok(Decoded::Known(event)),
        Err(_) => Err(malformed(&reason::why::<E>(value))),
    }
}

/// Decodes a payload without a type. A struct needs none.
fn untyped<E: DeserializeOwned>(payload: &[u8]) -> Result<Decoded<E>, DecodeError> {
    let value = parse(payload).map_err(|reason| DecodeError::NotAnEvent(reason.to_string()))?;
    if value.get(EVENT_TYPE).is_some() {
        return Err(DecodeError::NotAnEvent(invalid_tag().to_string()));
    }
    if let Ok(event) = serde_json::from_slice(payload) {
        return Ok(Decoded::Known(event));
    }
    if reason::requires_tag::<E>() {
        return Err(DecodeError::Untyped);
    }
    Err(DecodeError::NotAnEvent(reason::why::<E>(value).to_string()))
}

/// The tag is not a string, or occurs twice. serde would take a number as the index of a variant.
fn invalid_tag() -> Reason {
    Reason::Other("expected one string in event_type".to_owned())
}

fn parse(payload: &[u8]) -> Result<Value, Reason> {
    serde_json::from_slice(payload).map_err(|_| Reason::Other("the payload is not JSON".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;
    use crate::event::encode::encode;

    #[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
    enum Currency {
        Eur,
        Usd,
    }

    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    struct Money {
        cents: i64,
        currency: Currency,
    }

    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    #[serde(tag = "event_type")]
    enum OrderEvent {
        Created {
            total: Money,
            #[serde(default)]
            note: Option<String>,
        },
        #[serde(alias = "Sent")]
        Shipped {
            parcels: Vec<String>,
            weight: u64,
        },
        Paid(Money),
        Closed,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        id: u64,
    }

    fn refused<E: DeserializeOwned + fmt::Debug>(header: Option<&str>, payload: &str) -> String {
        decode::<E>(header, payload.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_type_comes_from_the_header_or_else_from_the_tag_and_both_must_agree() {
        let known = Decoded::Known(OrderEvent::Closed);
        assert_eq!(decode(Some("Closed"), b"{}"), Ok(known.clone()));
        assert_eq!(decode(None, br#"{"event_type":"Closed"}"#), Ok(known.clone()));
        assert_eq!(decode(Some("Closed"), br#"{"event_type":"Closed"}"#), Ok(known));
        assert_eq!(
            refused::<OrderEvent>(Some("Closed"), r#"{"event_type":"Paid\n"}"#),
            r#"cannot decode event: event_type is "Closed" in the headers and "Paid\n" in the payload"#
        );
        let untyped = "cannot decode event: no event_type in the headers or the payload";
        assert_eq!(refused::<OrderEvent>(None, "{}"), untyped);
    }

    #[test]
    fn a_type_of_a_newer_producer_is_unknown_and_an_invalid_payload_of_a_known_type_is_an_error() {
        for payload in [&b"{\"event_type\":\"Split\",\"into\":2}"[..], b"{}", b"not JSON", b"[1]", b""] {
            let decoded = decode::<OrderEvent>(Some("Split"), payload);
            let unknown = Unknown { event_type: "Split".into(), payload: payload.to_vec() };
            assert_eq!(decoded, Ok(Decoded::Unknown(unknown)));
        }
        let renamed = decode::<OrderEvent>(None, br#"{"event_type":"Sent","parcels":[],"weight":1}"#);
        assert_eq!(renamed, Ok(Decoded::Known(OrderEvent::Shipped { parcels: Vec::new(), weight: 1 })));
    }

    #[test]
    fn an_error_names_parts_of_the_type_and_quotes_no_value_of_the_payload() {
        let rows = [
            ("Shipped", r#"{"weight":1}"#, "missing field parcels"),
            ("Shipped", r#"{"parcels":[],"weight":"geheim"}"#, "expected u64, found a string"),
            ("Shipped", r#"{"parcels":[],"weight":-77}"#, "expected u64, found another value"),
            ("Paid", r#"{"cents":1,"currency":"geheim"}"#, "expected one of Eur, Usd"),
            ("Created", r#"{"total":["geheim"]}"#, "expected i64, found a string"),
            ("Created", r#"{"event_type":7}"#, "expected one string in event_type"),
            ("Created", r#"{"event_type":"Created","event_type":"Closed"}"#, "expected one string in event_type"),
            ("Closed", "geheim", "the payload is not JSON"),
            ("Closed", "[]", "the payload is not a JSON object"),
        ];
        for (name, payload, expected) in rows {
            let text = refused::<OrderEvent>(Some(name), payload);
            assert_eq!(text, format!("cannot decode event \"{name}\": {expected}"));
            assert!(!text.contains("geheim") && !text.contains("77"), "{text}");
        }
        let by_index = refused::<OrderEvent>(None, r#"{"event_type":3}"#);
        assert_eq!(by_index, "cannot decode event: expected one string in event_type");
        let long = "x".repeat(10_000);
        assert!(refused::<OrderEvent>(Some("Closed"), &format!("{{\"event_type\":\"{long}\"}}")).len() < 200);
    }

    #[test]
    fn a_struct_is_decoded_whatever_its_type_is() {
        for header in [None, Some("Anything")] {
            assert_eq!(decode(header, br#"{"id":7}"#), Ok(Decoded::Known(Row { id: 7 })));
        }
        assert_eq!(refused::<Row>(None, "{}"), "cannot decode event: missing field id");
        assert_eq!(refused::<Row>(None, ""), "cannot decode event: the payload is not JSON");
    }

    fn events() -> impl Strategy<Value = OrderEvent> {
        let money = (any::<i64>(), any::<bool>())
            .prop_map(|(cents, euro)| Money { cents, currency: if euro { Currency::Eur } else { Currency::Usd } });
        let text = "[^\0]{0,20}";
        prop_oneof![
            (money.clone(), proptest::option::of(text)).prop_map(|(total, note)| OrderEvent::Created { total, note }),
            (proptest::collection::vec(text, 0..4), any::<u64>())
                .prop_map(|(parcels, weight)| OrderEvent::Shipped { parcels, weight }),
            money.prop_map(OrderEvent::Paid),
            Just(OrderEvent::Closed),
        ]
    }

    proptest! {
        #[test]
        fn an_encoded_event_is_decoded_again(event in events(), has_header in any::<bool>()) {
            let encoded = encode(&event).unwrap();
            let header = has_header.then_some(encoded.event_type.as_str());
            prop_assert_eq!(decode(header, encoded.payload.as_bytes()), Ok(Decoded::Known(event)));
        }

        #[test]
        fn no_bytes_panic(header in proptest::option::of(".{0,9}"), payload in any::<Vec<u8>>()) {
            let _ = decode::<OrderEvent>(header.as_deref(), &payload);
            let _ = decode::<Row>(header.as_deref(), &payload);
        }

        #[test]
        fn no_object_panics(
            name in "Created|Shipped|Paid|Closed|Other",
            field in "event_type|total|note|parcels|weight|cents|currency",
            value in "null|true|-1|1e400|\"Eur\"|\\[\\]|\\{\\}|\\[\\[\\[|\\{\"Eur\":null\\}",
        ) {
            let _ = decode::<OrderEvent>(Some(&name), format!("{{\"{field}\":{value}}}").as_bytes());
        }
    }
}
