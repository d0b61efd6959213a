//! Prints records, one line each. Control characters are escaped, and JSON loses no byte. The field names of the JSON
//! are stable.

use serde_json::Value;
use serde_json::json;

use crate::cli::foreign::bytes;
use crate::cli::foreign::escape;
use walrelay_events::consumer::Record;
use walrelay_events::event;

/// Formats a record, for a person.
pub(super) fn line(record: &Record) -> String {
    let header = |name: &str| record.header(name).unwrap_or("-");
    escape(&format!(
        "{record}  key {}  {}  {}  {}",
        record.key().map_or("-".into(), String::from_utf8_lossy),
        header(event::EVENT_TYPE),
        header(event::EVENT_ID),
        record.value().map_or("(tombstone)".into(), String::from_utf8_lossy),
    ))
}

/// Returns the JSON object of a record. Headers are pairs, because a name can occur twice.
pub(super) fn object(record: &Record) -> Value {
    let headers: Vec<Value> =
        record.raw_headers().map(|(name, value)| json!([bytes(Some(name)), bytes(value)])).collect();
    json!({
        "topic": record.topic(),
        "partition": record.partition(),
        "offset": record.offset(),
        "timestamp_millis": record.timestamp().millis(),
        "key": bytes(record.key()),
        "event_id": record.header(event::EVENT_ID),
        "event_type": record.header(event::EVENT_TYPE),
        "headers": headers,
        "value": bytes(record.value()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<&[u8]>) -> Record {
        let headers: [(&str, Option<&[u8]>); 2] = [("event_id", Some(b"e-1")), ("event_type", Some(b"\x1b[31m"))];
        Record::new("t", 2, 17, Some(b"k"), value, &headers)
    }

    #[test]
    fn j5_control_characters_of_a_record_are_escaped() {
        assert_eq!(line(&record(Some(b"a\x1b\nb"))), "t[2]@17  key k  \\u{1b}[31m  e-1  a\\u{1b}\\nb");
        assert_eq!(line(&Record::new("t", 0, 1, None, None, &[])), "t[0]@1  key -  -  -  (tombstone)");
    }

    #[test]
    fn json_loses_no_byte_of_a_record() {
        let shown = object(&record(Some(b"\xff\x00")));
        assert_eq!(shown["value"], json!({ "hex": "ff00" }));
        assert_eq!(shown["headers"], json!([["event_id", "e-1"], ["event_type", "\u{1b}[31m"]]));
        assert_eq!((&shown["offset"], &shown["key"], &shown["event_id"]), (&json!(17), &json!("k"), &json!("e-1")));
    }
}
