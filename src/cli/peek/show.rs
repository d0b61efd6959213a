//! Prints pending events. Control characters are escaped, and JSON loses no byte. The field names of the JSON are
//! stable.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::foreign::bytes;
use crate::cli::foreign::escape;
use crate::relay::peek::Pending;
use crate::relay::peek::PendingRecord;
use crate::relay::peek::Place;
use crate::relay::peek::Unpublishable;
use walrelay_events::event;

/// Formats an event, for a person.
pub(super) fn block(pending: &Pending) -> String {
    let place = match pending.place {
        Place::Commit(at) => format!("commit {at}"),
        Place::Sequence(number) => format!("sequence {number}"),
    };
    let lines = match &pending.record {
        Ok(record) => of_record(record, &place),
        Err(Unpublishable { code, text, .. }) => {
            vec![format!("cannot be published  {place}"), format!("  {code}: {text}")]
        }
    };
    lines.iter().map(|line| format!("{}\n", escape(line))).collect()
}

fn of_record(record: &PendingRecord, place: &str) -> Vec<String> {
    let PendingRecord { topic, key, value, headers, partition, .. } = record;
    let key = key.as_deref().map_or("(no key)".into(), String::from_utf8_lossy);
    let partition = partition.map(|partition| format!("[{partition}]")).unwrap_or_default();
    let mut lines = vec![format!("{topic}{partition}  key {key}  {place}")];
    lines.extend(headers.iter().map(|(name, value)| {
        let value = value.as_deref().map_or("(null)".into(), String::from_utf8_lossy);
        format!("  {name}: {value}")
    }));
    lines.push(format!("  {}", value.as_deref().map_or("(tombstone)".into(), String::from_utf8_lossy)));
    lines
}

/// Returns the JSON object of an event. Headers are pairs, because a name can occur twice.
pub(super) fn object(pending: &Pending) -> Value {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match pending.place {
        Place::Commit(at) => set("commit_lsn", json!(at.to_string())),
        Place::Sequence(number) => set("sequence", json!(number)),
    };
    match &pending.record {
        Ok(record) => {
            let header =
                |name| record.headers.iter().rfind(|(found, _)| found == name).and_then(|(_, value)| value.as_deref());
            let headers = record.headers.iter().map(|(name, value)| json!([name, bytes(value.as_deref())])).collect();
            set("topic", json!(record.topic));
            set("partition", json!(record.partition));
            set("key", bytes(record.key.as_deref()));
            set("event_id", bytes(header(event::EVENT_ID)));
            set("event_type", bytes(header(event::EVENT_TYPE)));
            set("timestamp_millis", json!(record.timestamp_millis));
            set("headers", Value::Array(headers));
            set("value", bytes(record.value.as_deref()));
        }
        Err(Unpublishable { code, text, help }) => {
            set("error", json!({ "code": code, "text": text, "help": help }));
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(value: Option<&[u8]>) -> Pending {
        let headers = vec![
            ("event_id".to_owned(), Some(b"e-1".to_vec())),
            ("twice".to_owned(), Some(b"\x1b[31m".to_vec())),
            ("none".to_owned(), None),
        ];
        let record = PendingRecord {
            topic: "t".to_owned(),
            key: None,
            value: value.map(<[u8]>::to_vec),
            headers,
            timestamp_millis: Some(5),
            partition: Some(2),
        };
        Pending { place: Place::Sequence(7), record: Ok(record) }
    }

    #[test]
    fn j5_control_characters_of_a_row_are_escaped() {
        let shown = block(&pending(Some("a\x1b[2Jü\n".as_bytes())));
        let expected = "t[2]  key (no key)  sequence 7\n  event_id: e-1\n  twice: \\u{1b}[31m\n  none: (null)\n  \
                        a\\u{1b}[2Jü\\n\n";
        assert_eq!(shown, expected);
        assert!(block(&pending(None)).ends_with("  (tombstone)\n"));
    }

    #[test]
    fn json_loses_no_byte_of_a_row() {
        let shown = object(&pending(Some(b"\xff\x00")));
        assert_eq!(shown["value"], json!({ "hex": "ff00" }));
        assert_eq!(shown["headers"], json!([["event_id", "e-1"], ["twice", "\u{1b}[31m"], ["none", null]]));
        assert_eq!((&shown["event_id"], &shown["partition"]), (&json!("e-1"), &json!(2)));
        let error = Unpublishable { code: "WR-6801".to_owned(), text: "\x1b".to_owned(), help: None };
        let poison = Pending { record: Err(error), ..pending(None) };
        assert_eq!(object(&poison)["error"]["code"], "WR-6801");
        assert_eq!(block(&poison), "cannot be published  sequence 7\n  WR-6801: \\u{1b}\n");
    }
}
