use proptest::prelude::*;

use super::*;
use crate::relay::decode::pgoutput::Column;
use crate::relay::decode::pgoutput::Message;
use crate::relay::decode::pgoutput::Relation;
use crate::relay::decode::pgoutput::decode;
use crate::relay::record::row::Plan;

const UUID: &str = "0191e2a4-7c3e-7b1e-9d2a-0123456789ab";
/// 2026-11-24T13:45:35.123456Z.
const COMMITTED: Micros = 848_843_135_123_456;

/// A column: its name, its type's OID, and its value in text or binary form.
type Given<'a> = (&'a str, u32, Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Null,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

fn row<'a>(id: &'a str, payload: Given<'a>, headers: Given<'a>) -> Vec<Given<'a>> {
    vec![
        ("id", 2950, Form::Text(id.as_bytes())),
        ("aggregate_type", 25, Form::Text(b"Order")),
        ("aggregate_id", 25, Form::Text(b"o-1")),
        ("event_type", 25, Form::Text(b"OrderCreated")),
        payload,
        headers,
    ]
}

fn plain() -> Vec<Given<'static>> {
    row(UUID, ("payload", 3802, Form::Text(b"{\"a\": 1}")), ("headers", 3802, Form::Null))
}

fn with<'a>(mut columns: Vec<Given<'a>>, name: &'a str, type_id: u32, form: Form<'a>) -> Vec<Given<'a>> {
    columns.retain(|(other, _, _)| *other != name);
    columns.push((name, type_id, form));
    columns
}

/// The parts of a record, owned.
#[derive(Debug, PartialEq)]
struct Made {
    topic: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// NULL as `(null)`.
    headers: Vec<(String, String)>,
    timestamp_millis: Option<i64>,
    partition: Option<i32>,
}

fn make(config: &Config, columns: &[Given<'_>]) -> Result<Made, Reason> {
    let mut insert = vec![b'I', 0, 0, 0, 1, b'N', 0, u8::try_from(columns.len()).unwrap()];
    for (_, _, form) in columns {
        let (kind, bytes) = match form {
            Form::Null => {
                insert.push(b'n');
                continue;
            }
            Form::Text(bytes) => (b't', bytes),
            Form::Binary(bytes) => (b'b', bytes),
        };
        insert.push(kind);
        insert.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        insert.extend_from_slice(bytes);
    }
    let Ok(Message::Insert { row, .. }) = decode(&insert) else { panic!("not an insert") };
    let route = Route::new(config).unwrap();
    let columns = columns.iter().map(|(name, type_id, _)| Column { name, type_id: *type_id }).collect();
    let relation = Relation { id: 1, schema: "public", name: "outbox_events", columns };
    let plan = Plan::new(&relation, route.names()).unwrap();
    let row = plan.read(row).unwrap();
    let mut scratch = Scratch::default();
    route.record(&row, COMMITTED, &mut scratch).map(|record| Made {
        topic: record.topic.to_owned(),
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.map_or("(null)".into(), String::from_utf8_lossy).into_owned()))
            .collect(),
        timestamp_millis: record.timestamp_millis,
        partition: record.partition,
    })
}

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_walrelay_preset_gives_the_documented_record() {
    let made = make(&Config::default(), &plain()).unwrap();
    let expected = Made {
        topic: "order-events".into(),
        key: Some(b"o-1".to_vec()),
        value: Some(b"{\"a\": 1}".to_vec()),
        headers: pairs(&[
            ("event_id", UUID),
            ("event_type", "OrderCreated"),
            ("produced_at", "2026-11-24T13:45:35.123456Z"),
        ]),
        timestamp_millis: Some(1_795_527_935_123),
        partition: None,
    };
    assert_eq!(made, expected);
}

#[test]
fn the_binary_form_gives_the_same_record_as_the_text_form() {
    let uuid = uuid::Uuid::parse_str(UUID).unwrap();
    let binary: Vec<Given<'_>> = vec![
        ("id", 2950, Form::Binary(uuid.as_bytes())),
        ("aggregate_type", 25, Form::Binary(b"Order")),
        ("aggregate_id", 25, Form::Binary(b"o-1")),
        ("event_type", 25, Form::Binary(b"OrderCreated")),
        ("payload", 3802, Form::Binary(b"\x01{\"a\": 1}")),
        ("headers", 3802, Form::Null),
    ];
    assert_eq!(make(&Config::default(), &binary), make(&Config::default(), &plain()));
    let minus_five = (-5_i64).to_be_bytes();
    let number = with(plain(), "aggregate_id", 20, Form::Binary(&minus_five));
    assert_eq!(make(&Config::default(), &number).unwrap().key, Some(b"-5".to_vec()));
}

#[test]
fn a_payload_of_any_type_is_published_as_stored() {
    let rows: [(u32, Form<'_>, Option<&[u8]>); 7] = [
        (114, Form::Text(b"{ \"a\":1 }"), Some(b"{ \"a\":1 }")),
        (25, Form::Text(b"plain"), Some(b"plain")),
        (25, Form::Text(b""), Some(b"")),
        (17, Form::Text(b"\\x00ff0A"), Some(&[0, 0xFF, 0x0A])),
        (17, Form::Binary(&[0, 0xFF]), Some(&[0, 0xFF])),
        (17, Form::Text(b"\\x"), Some(b"")),
        (3802, Form::Null, None),
    ];
    for (type_id, form, expected) in rows {
        let made = make(&Config::default(), &with(plain(), "payload", type_id, form)).unwrap();
        assert_eq!(made.value.as_deref(), expected, "type {type_id}");
    }
}

#[test]
fn the_headers_of_the_row_come_last() {
    let object = br#"{"traceparent": "00-ab", "n": 7, "deep": {"x": [1, 2]}, "quoted": "a \"b\"", "none": null}"#;
    let made = make(&Config::default(), &with(plain(), "headers", 3802, Form::Text(object))).unwrap();
    let expected = pairs(&[
        ("traceparent", "00-ab"),
        ("n", "7"),
        ("deep", "{\"x\": [1, 2]}"),
        ("quoted", "a \"b\""),
        ("none", "null"),
    ]);
    assert_eq!(made.headers[3..], expected);
}

#[test]
fn d17_hostile_headers_are_rejected_with_the_reason() {
    let many: String = (0..33).map(|n| format!("\"h{n}\":1,")).collect();
    let many = format!("{{{}}}", many.trim_end_matches(','));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(8 << 10));
    let rows = [
        (r#"{"event_id": "forged"}"#, "reserved name \"event_id\""),
        (r#"{"a b": 1}"#, "invalid name \"a b\": allowed are 1 to 64 of A-Z a-z 0-9 . _ -"),
        (r#"{"": 1}"#, "invalid name \"\": allowed are 1 to 64 of A-Z a-z 0-9 . _ -"),
        ("[1]", "expected a JSON object, found an array"),
        (r#""text""#, "expected a JSON object, found a string"),
        ("{", "invalid JSON"),
        (&many, "more than 32 headers"),
        (&long, "more than 8192 bytes"),
    ];
    for (json, expected) in rows {
        let columns = with(plain(), "headers", 25, Form::Text(json.as_bytes()));
        let reason = make(&Config::default(), &columns).unwrap_err();
        assert_eq!(reason, Reason::Headers(expected.into()), "{json}");
    }
}

#[test]
fn d15_an_invalid_topic_is_rejected_and_never_rewritten() {
    let config = Config { topic: Some("{aggregate_type}".into()), ..Config::default() };
    let long = "x".repeat(250);
    for name in ["../x", "a b", "", ".", "..", "__internal", "a\nb", "größe", long.as_str()] {
        let columns = with(plain(), "aggregate_type", 25, Form::Text(name.as_bytes()));
        assert!(matches!(make(&config, &columns), Err(Reason::Topic(_))), "{name:?}");
    }
    let columns = with(plain(), "aggregate_type", 25, Form::Text(b"\xFF"));
    assert!(matches!(make(&config, &columns), Err(Reason::Topic(_))));
}

#[test]
fn d16_a_topic_outside_the_allow_list_is_rejected() {
    let config = Config { allowed_topics: vec!["payment-events".into()], ..Config::default() };
    assert_eq!(make(&config, &plain()), Err(Reason::TopicNotAllowed("order-events".into())));
}

#[test]
fn a_missing_value_is_named() {
    for name in ["id", "aggregate_type", "event_type"] {
        let type_id = if name == "id" { 2950 } else { 25 };
        assert_eq!(make(&Config::default(), &with(plain(), name, type_id, Form::Null)), Err(Reason::Null(name)));
    }
    for form in [Form::Null, Form::Text(b"")] {
        let made = make(&Config::default(), &with(plain(), "aggregate_id", 25, form)).unwrap();
        assert_eq!(made.key, None, "an empty key is no key");
    }
}

#[test]
fn d18_an_impossible_timestamp_is_replaced_by_the_commit_time() {
    let config = Config { timestamp: Some(Timestamp::CreatedAt), ..Config::default() };
    let commit = 1_795_527_935_123;
    let rows = [
        ("2026-11-24 13:45:30.5+00", 1_795_527_930_500),
        ("2026-11-24 13:45:30+00", 1_795_527_930_000),
        ("2027-01-01 00:00:00+00", commit),
        ("1969-12-31 00:00:00+00", commit),
        ("infinity", commit),
        ("0044-03-15 00:00:00+00 BC", commit),
        ("294276-12-31 00:00:00+00", commit),
    ];
    for (text, expected) in rows {
        let columns = with(plain(), "created_at", 1184, Form::Text(text.as_bytes()));
        assert_eq!(make(&config, &columns).unwrap().timestamp_millis, Some(expected), "{text}");
    }
    for (micros, expected) in [(COMMITTED - 1_000, commit - 1), (i64::MAX, commit), (i64::MIN, commit)] {
        let bytes = micros.to_be_bytes();
        let columns = with(plain(), "created_at", 1184, Form::Binary(&bytes));
        assert_eq!(make(&config, &columns).unwrap().timestamp_millis, Some(expected));
    }
}

#[test]
fn a_row_may_choose_its_partition() {
    let config = Config { partition: Some(ColumnNames::One("part".into())), ..Config::default() };
    let made = |form| make(&config, &with(plain(), "part", 23, form)).map(|made| made.partition);
    assert_eq!(made(Form::Text(b"3")), Ok(Some(3)));
    assert_eq!(made(Form::Binary(&[0, 0, 0, 7])), Ok(Some(7)));
    assert_eq!(made(Form::Null), Ok(None));
    assert_eq!(made(Form::Text(b"-1")), Err(Reason::Partition(-1)));
}

/// A row of Debezium's table.
fn router_row<'a>(key: Form<'a>, payload: (u32, Form<'a>)) -> Vec<Given<'a>> {
    vec![
        ("id", 2950, Form::Text(UUID.as_bytes())),
        ("aggregatetype", 1043, Form::Text(b"Order")),
        ("aggregateid", 1043, key),
        ("type", 1043, Form::Text(b"OrderCreated")),
        ("payload", payload.0, payload.1),
        ("headers", 3802, Form::Text(b"{\"read\": \"never\"}")),
    ]
}

fn debezium(placements: &[&str]) -> Config {
    let placements = placements.iter().map(|text| Placement::try_from((*text).to_owned()).unwrap()).collect();
    Config { preset: Preset::Debezium, placements, ..Config::default() }
}

#[test]
fn the_debezium_preset_keeps_case_and_sends_the_id_as_only_header() {
    let made = make(&debezium(&[]), &router_row(Form::Text(b"o-1"), (3802, Form::Text(b"{\"a\": 1}")))).unwrap();
    let expected = Made {
        topic: "outbox.event.Order".into(),
        key: Some(b"o-1".to_vec()),
        value: Some(b"{\"a\": 1}".to_vec()),
        headers: pairs(&[("id", UUID)]),
        timestamp_millis: Some(1_795_527_935_123),
        partition: None,
    };
    assert_eq!(made, expected);
}

#[test]
fn the_debezium_preset_keeps_an_empty_key_and_null_is_none() {
    let key = |form| make(&debezium(&[]), &router_row(form, (25, Form::Null))).unwrap().key;
    assert_eq!(key(Form::Text(b"")), Some(Vec::new()));
    assert_eq!(key(Form::Null), None);
}

#[test]
fn d17_a_rows_own_headers_cannot_have_a_name_that_the_debezium_preset_sends() {
    let columns = Columns { headers: Some(ColumnNames::One("headers".into())), ..Columns::default() };
    let config = Config { columns, ..debezium(&["type:header:eventType"]) };
    for name in ["id", "eventType"] {
        let json = format!("{{\"mine\": 1, \"{name}\": \"forged\"}}");
        let row = with(router_row(Form::Null, (25, Form::Null)), "headers", 25, Form::Text(json.as_bytes()));
        assert_eq!(make(&config, &row), Err(Reason::Headers(format!("reserved name \"{name}\""))));
    }
    let row = with(router_row(Form::Null, (25, Form::Null)), "headers", 25, Form::Text(b"{\"mine\": 1, \"mine\": 2}"));
    assert_eq!(make(&config, &row).unwrap().headers.len(), 4);
}

#[test]
fn the_debezium_preset_places_columns_in_the_order_of_the_configuration_and_null_as_a_header_without_a_value() {
    let config = debezium(&["type:header:id", "n:header", "aggregateid:header:x", "j:header:x"]);
    let number = 7_i64.to_be_bytes();
    for (n, j, id) in [
        (Form::Text(b"7"), Form::Text(b"[1]"), Form::Text(UUID.as_bytes())),
        (Form::Binary(&number), Form::Binary(b"\x01[1]"), Form::Null),
    ] {
        let row = with(router_row(Form::Null, (25, Form::Null)), "n", 20, n);
        let made = make(&config, &with(with(row, "j", 3802, j), "id", 2950, id)).unwrap();
        let id = if matches!(id, Form::Null) { "(null)" } else { UUID };
        let expected = [("id", id), ("id", "OrderCreated"), ("n", "7"), ("x", "(null)"), ("x", "[1]")];
        assert_eq!(made.headers, pairs(&expected));
    }
    let row = with(router_row(Form::Null, (25, Form::Null)), "headers", 3802, Form::Text(b"{\"a\": 1}"));
    let columns = Columns { headers: Some(ColumnNames::One("headers".into())), ..Columns::default() };
    let configured = Config { columns, ..debezium(&[]) };
    assert_eq!(make(&configured, &row).unwrap().headers, pairs(&[("id", UUID), ("a", "1")]));
}

#[test]
fn a_payload_of_ascii_white_space_is_a_tombstone_only_on_request_and_only_of_a_text_type() {
    let blank: [&[u8]; 3] = [b"", b"   ", b"\t\r\n "];
    let rows = blank
        .into_iter()
        .flat_map(|text| [(25, Form::Text(text), true), (17, Form::Binary(text), false)])
        .chain([(3802, Form::Text(b"{}"), false), (114, Form::Text(b" null "), false), (25, Form::Null, true)])
        .chain([(25, Form::Text("\u{a0}".as_bytes()), false), (25, Form::Text("\u{2003}".as_bytes()), false)]);
    for (type_id, form, is_tombstone) in rows {
        let row = router_row(Form::Text(b"o-1"), (type_id, form));
        let kept = make(&debezium(&[]), &row).unwrap().value;
        assert_eq!(kept.is_none(), matches!(form, Form::Null), "{kept:?}");
        let config = Config { tombstone_on_empty_payload: true, ..debezium(&[]) };
        assert_eq!(make(&config, &row).unwrap().value, kept.clone().filter(|_| !is_tombstone), "{type_id} {kept:?}");
    }
}

proptest! {
    #[test]
    fn any_values_give_a_record_or_a_reason_and_never_a_panic(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 7),
        binary in any::<u8>(),
    ) {
        let config = Config { timestamp: Some(Timestamp::CreatedAt), ..Config::default() };
        let types = [2950, 25, 20, 25, 17, 3802, 1184];
        let names = ["id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers", "created_at"];
        let columns: Vec<Given<'_>> = names
            .into_iter()
            .zip(types)
            .zip(&values)
            .enumerate()
            .map(|(place, ((name, type_id), value))| {
                let form = if binary >> place & 1 == 1 { Form::Binary(value) } else { Form::Text(value) };
                (name, type_id, form)
            })
            .collect();
        let _ = make(&config, &columns);
    }
}
