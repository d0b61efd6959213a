//! What decodes, and what is said of what does not.

use proptest::prelude::*;
use serde::Deserialize;
use serde::Serialize;

use super::*;
use crate::event::encode::Encoded;
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
fn an_error_names_parts_of_the_type_and_the_place_and_quotes_no_value_of_the_payload() {
    let no_json = "the payload is not JSON";
    let rows = [
        ("Shipped", r#"{"weight":1}"#, "missing field parcels".to_owned()),
        ("Shipped", r#"{"parcels":[],"weight":"geheim"}"#, "expected u64, found a string at line 1 column 24".into()),
        ("Shipped", r#"{"parcels":[],"weight":-77}"#, "expected u64, found another value at line 1 column 24".into()),
        (
            "Shipped",
            "{\n \"weight\":1,\n \"parcels\":[\"geheim\",7]}",
            at("expected a string, found an integer", 3, 22),
        ),
        ("Paid", r#"{"cents":1,"currency":"geheim"}"#, at("expected one of Eur, Usd", 1, 23)),
        ("Created", r#"{"total":["geheim"]}"#, at("expected i64, found a string", 1, 11)),
        ("Created", r#"{"event_type":7}"#, at("expected a string in event_type", 1, 15)),
        ("Created", r#"{"event_type":null}"#, at("expected a string in event_type", 1, 15)),
        ("Created", r#"{"event_type":"\ud800"}"#, at("lone surrogate in a string", 1, 15)),
        ("Created", r#"{"event_type":"Created","event_type":"Closed"}"#, at("duplicate field event_type", 1, 25)),
        ("Shipped", r#"{"weight":1,"parcels":[],"weight":77}"#, at("duplicate field weight", 1, 26)),
        ("Closed", "geheim", at(&format!("{no_json}: expected value"), 1, 1)),
        ("Closed", "{\"a\":geheim}", at(&format!("{no_json}: expected value"), 1, 6)),
        ("Closed", "{\"a\":1", at(&format!("{no_json}: EOF while parsing an object"), 1, 6)),
        ("Closed", "[]", "the payload is not a JSON object".into()),
    ];
    for (name, payload, expected) in rows {
        let text = refused::<OrderEvent>(Some(name), payload);
        assert_eq!(text, format!("cannot decode event \"{name}\": {expected}"), "{payload}");
        assert!(!text.contains("geheim") && !text.contains("77"), "{text}");
    }
    let by_index = refused::<OrderEvent>(None, r#"{"event_type":3}"#);
    assert_eq!(by_index, "cannot decode event: expected a string in event_type at line 1 column 15");
    let long = "x".repeat(10_000);
    assert!(refused::<OrderEvent>(Some("Closed"), &format!("{{\"event_type\":\"{long}\"}}")).len() < 200);
}

fn at(reason: &str, line: usize, column: usize) -> String {
    format!("{reason} at line {line} column {column}")
}

/// JSON that no type of Rust can hold.
fn unusable() -> [(String, &'static str); 5] {
    [
        ("9".repeat(400), "number out of range"),
        ("-1e400".to_owned(), "number out of range"),
        (r#""\ud800""#.to_owned(), "lone surrogate in a string"),
        (r#""geheim\udc00x""#.to_owned(), "lone surrogate in a string"),
        (format!("{}{}", "[".repeat(500), "]".repeat(500)), "more than 127 levels"),
    ]
}

#[test]
fn what_no_type_can_hold_is_ignored_in_a_field_that_the_type_does_not_have() {
    let shipped = Decoded::Known(OrderEvent::Shipped { parcels: vec!["p".into()], weight: 7 });
    for (value, _) in unusable() {
        for payload in [
            format!(r#"{{"parcels":["p"],"extra":{value},"weight":7}}"#),
            format!(r#"{{"extra":{{"deep":[1,{value}]}},"parcels":["p"],"weight":7}}"#),
            format!(r#"{{"parcels":["p"],"weight":7,"\udc00":{value}}}"#),
        ] {
            assert_eq!(decode(Some("Shipped"), payload.as_bytes()), Ok(shipped.clone()), "{payload}");
            let tagged = payload.replacen('{', r#"{ "event_type": "Shipped","#, 1);
            assert_eq!(decode(Some("Shipped"), tagged.as_bytes()), Ok(shipped.clone()), "{tagged}");
            assert_eq!(decode(None, tagged.as_bytes()), Ok(shipped.clone()), "{tagged}");
            assert!(matches!(decode::<OrderEvent>(Some("Split"), payload.as_bytes()), Ok(Decoded::Unknown(_))));
        }
        let row = format!(r#"{{"extra":{value},"id":7}}"#);
        assert_eq!(decode(Some("Row"), row.as_bytes()), Ok(Decoded::Known(Row { id: 7 })), "{row}");
        assert_eq!(decode(None, row.as_bytes()), Ok(Decoded::Known(Row { id: 7 })), "{row}");
    }
}

#[test]
fn what_no_type_can_hold_is_refused_with_its_place_in_a_field_that_the_type_has() {
    let [scalars @ .., (deep, too_deep)] = unusable();
    for (value, reason) in scalars {
        let payload = format!(r#"{{"extra":{value},"parcels":[],"weight":{value}}}"#);
        let column = r#"{"extra":,"parcels":[],"weight":"#.len() + value.len() + 1;
        let text = refused::<OrderEvent>(Some("Shipped"), &payload);
        assert_eq!(text, format!("cannot decode event \"Shipped\": {}", at(reason, 1, column)));
        let payload = format!(r#"{{"event_type":"Created","total":{{"cents":1,"currency":"Eur"}},"note":{value}}}"#);
        let column = payload.len() - value.len();
        let text = refused::<OrderEvent>(None, &payload);
        assert_eq!(
            text,
            format!("cannot decode event \"Created\": {}", at(reason, 1, column)),
            "an option is not none"
        );
        let payload = format!("{{\n  \"id\": {value}\n}}");
        assert_eq!(refused::<Row>(None, &payload), format!("cannot decode event: {}", at(reason, 2, 9)));
        let any = format!(r#"{{"event_type":"A","a":[{value}]}}"#);
        let text = refused::<serde_json::Value>(None, &any);
        assert_eq!(text, format!("cannot decode event \"A\": {}", at(reason, 1, 24)));
    }
    // A type that takes no list at all refuses the outermost one.
    let weight = refused::<OrderEvent>(Some("Shipped"), &format!(r#"{{"parcels":[],"weight":{deep}}}"#));
    assert_eq!(weight, format!("cannot decode event \"Shipped\": {}", at("expected u64, found a list", 1, 24)));
    let any = refused::<serde_json::Value>(None, &format!(r#"{{"event_type":"A","a":{deep}}}"#));
    assert!(any.starts_with(&format!("cannot decode event \"A\": {too_deep} at line 1 column ")), "{any}");
}

#[test]
fn a_value_that_the_types_own_code_refuses_has_a_place_and_is_not_quoted() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Iban;
    impl TryFrom<String> for Iban {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            Err(format!("{text} is no IBAN"))
        }
    }
    #[derive(Debug, Deserialize)]
    #[serde(tag = "event_type")]
    enum Payment {
        Paid {
            #[expect(dead_code, reason = "it is only decoded")]
            iban: Iban,
        },
    }
    let text = refused::<Payment>(Some("Paid"), r#"{"a":1,"iban":"geheim"}"#);
    assert_eq!(text, "cannot decode event \"Paid\": a value was refused by its type at or after line 1 column 15");
}

#[test]
fn a_struct_is_decoded_whatever_its_type_is() {
    for header in [None, Some("Anything")] {
        assert_eq!(decode(header, br#"{"id":7}"#), Ok(Decoded::Known(Row { id: 7 })));
    }
    assert_eq!(refused::<Row>(None, "{}"), "cannot decode event: missing field id");
    assert_eq!(
        refused::<Row>(None, ""),
        "cannot decode event: the payload is not JSON: EOF while parsing a value at line 1 column 0"
    );
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
    fn an_event_is_decoded_whatever_is_in_fields_that_its_type_does_not_have(
        event in events(),
        name in "[a-z]{8}|\\\\ud800",
        place in 0..5_usize,
        has_header in any::<bool>(),
    ) {
        let Encoded { event_type, payload } = encode(&event).unwrap();
        let value = &unusable()[place].0;
        let payload = payload.replacen('{', &format!("{{\"{name}\":[{value}],"), 1);
        let header = has_header.then_some(event_type.as_str());
        prop_assert_eq!(decode(header, payload.as_bytes()), Ok(Decoded::Known(event)));
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
        value in "null|true|-1|1e400|\"Eur\"|\"\\\\ud800\"|\\[\\]|\\{\\}|\\[\\[\\[|\\{\"Eur\":null\\}",
    ) {
        let _ = decode::<OrderEvent>(Some(&name), format!("{{\"{field}\":{value}}}").as_bytes());
    }
}
