//! From a payload and its header back to an event.
//!
//! The type comes from the header, else from the payload's tag; a header fills in a tag that is missing. A type the enum
//! does not have is an answer, not an error: a newer producer may say more than this reader knows.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

use super::names::EVENT_TYPE;
use super::reason;
use super::reason::Reason;

/// How much of a foreign name an error shows.
const SHOWN_MAX: usize = 64;

/// An event, as far as this reader knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoded<E> {
    /// One of the types of `E`.
    Known(E),
    /// A type that `E` does not have.
    Unknown(Unknown),
}

/// An event of a type that this reader does not know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unknown {
    /// Its type.
    pub event_type: String,
    /// The payload, as it came.
    pub payload: Vec<u8>,
}

/// A name out of a record. It is shown escaped and cut short.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name(String);

impl Name {
    fn new(name: &str) -> Self {
        Self(name.chars().take(SHOWN_MAX).collect())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A record does not hold an event of the type that was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Nobody says what it is.
    #[error("neither a header nor the payload names the event's type")]
    Untyped,
    /// Two say different things.
    #[error("the header says the event's type is {header}, the payload says {tag}")]
    TypesDiffer {
        /// What the header says.
        header: Name,
        /// What the payload says.
        tag: Name,
    },
    /// The type is known, and the payload does not fit it.
    #[error("the payload does not fit {event_type}: {reason}")]
    Malformed {
        /// The event's type.
        event_type: Name,
        /// Why, in words of the type.
        reason: String,
    },
    /// The payload fits no type at all.
    #[error("the payload is not an event: {0}")]
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
                Self::Untyped => "let the producer name the type: in the header event_type, or by a tag in the payload",
                Self::TypesDiffer { .. } => "let header and tag agree; the column event_type is the header",
                Self::Malformed { .. } | Self::NotAnEvent(_) => {
                    "compare what the producer writes with the type; docs/events.md says which changes are safe"
                }
            }
            .to_owned(),
        )
    }
}

/// The tag of a payload, if it has one.
#[derive(Default, Deserialize)]
struct Tag<'a> {
    #[serde(borrow, default)]
    event_type: Option<Cow<'a, str>>,
}

/// Reads an event out of a payload; `header_type` is the record's header `event_type`.
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
/// assert_eq!(broken.to_string(), "the payload does not fit \"OrderCreated\": the field total_cents is missing");
/// # Ok::<(), walrelay_events::event::DecodeError>(())
/// ```
pub fn decode<E: DeserializeOwned>(header_type: Option<&str>, payload: &[u8]) -> Result<Decoded<E>, DecodeError> {
    // What has no readable tag is looked at again below, once it is known whether it matters.
    let is_object = payload.trim_ascii_start().starts_with(b"{");
    let tag = if is_object { serde_json::from_slice::<Tag<'_>>(payload).unwrap_or_default().event_type } else { None };
    let event_type = match (header_type, tag.as_deref()) {
        (Some(header), Some(tag)) if header != tag => {
            return Err(DecodeError::TypesDiffer { header: Name::new(header), tag: Name::new(tag) });
        }
        (Some(header), _) => header,
        (None, Some(tag)) => tag,
        (None, None) => return untyped(payload),
    };
    if !reason::knows::<E>(event_type) {
        return Ok(Decoded::Unknown(Unknown { event_type: event_type.to_owned(), payload: payload.to_vec() }));
    }
    let malformed =
        |reason: &Reason| DecodeError::Malformed { event_type: Name::new(event_type), reason: reason.to_string() };
    if tag.is_some() {
        return match serde_json::from_slice(payload) {
            Ok(event) => Ok(Decoded::Known(event)),
            Err(_) => Err(malformed(&look(payload).map_or_else(|reason| reason, reason::why::<E>))),
        };
    }
    let mut value = look(payload).map_err(|reason| malformed(&reason))?;
    let Value::Object(fields) = &mut value else {
        return Err(malformed(&Reason::Other("it is not a JSON object".to_owned())));
    };
    if fields.insert(EVENT_TYPE.to_owned(), event_type.into()).is_some() {
        return Err(malformed(&no_text()));
    }
    match serde_json::from_value(value.clone()) {
        Ok(event) => Ok(Decoded::Known(event)),
        Err(_) => Err(malformed(&reason::why::<E>(value))),
    }
}

/// Reads a payload of which nobody says the type: a struct needs none.
fn untyped<E: DeserializeOwned>(payload: &[u8]) -> Result<Decoded<E>, DecodeError> {
    let value = look(payload).map_err(|reason| DecodeError::NotAnEvent(reason.to_string()))?;
    if value.get(EVENT_TYPE).is_some() {
        return Err(DecodeError::NotAnEvent(no_text().to_string()));
    }
    if let Ok(event) = serde_json::from_slice(payload) {
        return Ok(Decoded::Known(event));
    }
    if reason::asks_for_tag::<E>() {
        return Err(DecodeError::Untyped);
    }
    Err(DecodeError::NotAnEvent(reason::why::<E>(value).to_string()))
}

/// A tag is there, but is no text, or is there twice. serde would take a number for the place of a variant.
fn no_text() -> Reason {
    Reason::Other("expected one text in event_type".to_owned())
}

fn look(payload: &[u8]) -> Result<Value, Reason> {
    serde_json::from_slice(payload).map_err(|_| Reason::Other("it is not JSON".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::super::encode;
    use super::*;

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
    fn the_type_comes_from_the_header_else_from_the_tag_and_both_must_agree() {
        let known = Decoded::Known(OrderEvent::Closed);
        assert_eq!(decode(Some("Closed"), b"{}"), Ok(known.clone()));
        assert_eq!(decode(None, br#"{"event_type":"Closed"}"#), Ok(known.clone()));
        assert_eq!(decode(Some("Closed"), br#"{"event_type":"Closed"}"#), Ok(known));
        assert_eq!(
            refused::<OrderEvent>(Some("Closed"), r#"{"event_type":"Paid\n"}"#),
            r#"the header says the event's type is "Closed", the payload says "Paid\n""#
        );
        assert_eq!(refused::<OrderEvent>(None, "{}"), "neither a header nor the payload names the event's type");
    }

    #[test]
    fn a_type_of_a_newer_producer_is_unknown_and_a_broken_payload_of_a_known_type_is_not() {
        for payload in [&b"{\"event_type\":\"Split\",\"into\":2}"[..], b"{}", b"not JSON", b"[1]", b""] {
            let decoded = decode::<OrderEvent>(Some("Split"), payload);
            let unknown = Unknown { event_type: "Split".into(), payload: payload.to_vec() };
            assert_eq!(decoded, Ok(Decoded::Unknown(unknown)));
        }
        let renamed = decode::<OrderEvent>(None, br#"{"event_type":"Sent","parcels":[],"weight":1}"#);
        assert_eq!(renamed, Ok(Decoded::Known(OrderEvent::Shipped { parcels: Vec::new(), weight: 1 })));
    }

    #[test]
    fn an_error_speaks_of_the_type_and_quotes_nothing_of_the_payload() {
        let rows = [
            ("Shipped", r#"{"weight":1}"#, "the field parcels is missing"),
            ("Shipped", r#"{"parcels":[],"weight":"geheim"}"#, "expected u64, found a text"),
            ("Shipped", r#"{"parcels":[],"weight":-77}"#, "expected u64, found another value"),
            ("Paid", r#"{"cents":1,"currency":"geheim"}"#, "a field is none of Eur, Usd"),
            ("Created", r#"{"total":["geheim"]}"#, "expected i64, found a text"),
            ("Created", r#"{"event_type":7}"#, "expected one text in event_type"),
            ("Created", r#"{"event_type":"Created","event_type":"Closed"}"#, "expected one text in event_type"),
            ("Closed", "geheim", "it is not JSON"),
            ("Closed", "[]", "it is not a JSON object"),
        ];
        for (name, payload, expected) in rows {
            let told = refused::<OrderEvent>(Some(name), payload);
            assert!(told.starts_with(&format!("the payload does not fit \"{name}\": ")), "{told}");
            assert!(!told.contains("geheim") && !told.contains("77"), "{told}");
            assert!(told.ends_with(expected), "{told}, not {expected}");
        }
        let by_place = refused::<OrderEvent>(None, r#"{"event_type":3}"#);
        assert_eq!(by_place, "the payload is not an event: expected one text in event_type");
        let long = "x".repeat(10_000);
        assert!(refused::<OrderEvent>(Some("Closed"), &format!("{{\"event_type\":\"{long}\"}}")).len() < 200);
    }

    #[test]
    fn a_struct_is_known_whatever_its_type_is_called() {
        for header in [None, Some("Anything")] {
            assert_eq!(decode(header, br#"{"id":7}"#), Ok(Decoded::Known(Row { id: 7 })));
        }
        assert_eq!(refused::<Row>(None, "{}"), "the payload is not an event: the field id is missing");
        assert_eq!(refused::<Row>(None, ""), "the payload is not an event: it is not JSON");
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
        fn what_was_encoded_is_decoded_again(event in events(), has_header in any::<bool>()) {
            let encoded = encode(&event).unwrap();
            let header = has_header.then_some(encoded.event_type.as_str());
            prop_assert_eq!(decode(header, encoded.payload.as_bytes()), Ok(Decoded::Known(event)));
        }

        #[test]
        fn no_bytes_make_it_panic(header in proptest::option::of(".{0,9}"), payload in any::<Vec<u8>>()) {
            let _ = decode::<OrderEvent>(header.as_deref(), &payload);
            let _ = decode::<Row>(header.as_deref(), &payload);
        }

        #[test]
        fn no_object_makes_it_panic(
            name in "Created|Shipped|Paid|Closed|Other",
            field in "event_type|total|note|parcels|weight|cents|currency",
            value in "null|true|-1|1e400|\"Eur\"|\\[\\]|\\{\\}|\\[\\[\\[|\\{\"Eur\":null\\}",
        ) {
            let _ = decode::<OrderEvent>(Some(&name), format!("{{\"{field}\":{value}}}").as_bytes());
        }
    }
}
