//! Prints dead-letter records. Control characters are escaped, and JSON loses no byte.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::foreign::bytes;
use crate::cli::foreign::escape;
use walrelay_events::consumer::dead_letter::DeadLetter;
use walrelay_events::event;

/// How many characters of a reason a line shows.
const REASON_SHOWN: usize = 72;

/// Formats a record in one line.
pub(super) fn line(dead_letter: &DeadLetter) -> String {
    let record = &dead_letter.record;
    let (reason, from) = dead_letter.provenance.as_ref().map_or(("(no reason)", String::new()), |it| {
        (it.reason.as_str(), format!(" from {}[{}]@{}", it.topic, it.partition, it.offset))
    });
    let header = |name: &str| record.header(name).unwrap_or("-");
    let state = state(dead_letter).map(|state| format!(" {state}")).unwrap_or_default();
    escape(&format!(
        "{}@{}  {}  {}  key {}{from}{state}: {}",
        record.partition(),
        record.offset(),
        header(event::EVENT_ID),
        header(event::EVENT_TYPE),
        record.key().map_or("-".into(), String::from_utf8_lossy),
        reason.chars().take(REASON_SHOWN).collect::<String>(),
    ))
}

const fn state(dead_letter: &DeadLetter) -> Option<&'static str> {
    match (dead_letter.is_redriven, dead_letter.is_repeated) {
        (true, _) => Some("(redriven)"),
        (false, true) => Some("(repeated)"),
        (false, false) => None,
    }
}

/// Formats a whole record, for a person.
pub(super) fn block(dead_letter: &DeadLetter) -> String {
    let record = &dead_letter.record;
    let state = state(dead_letter).map(|state| format!("  {state}")).unwrap_or_default();
    let key = record.key().map_or("(no key)".into(), String::from_utf8_lossy);
    let mut lines = vec![format!("{record}  key {key}{state}")];
    lines.extend(record.raw_headers().map(|(name, value)| {
        let value = value.map_or("(null)".into(), String::from_utf8_lossy);
        format!("  {}: {value}", String::from_utf8_lossy(name))
    }));
    lines.push(format!("  {}", record.value().map_or("(tombstone)".into(), String::from_utf8_lossy)));
    lines.iter().map(|line| format!("{}\n", escape(line))).collect()
}

/// Returns the JSON object of a record in a list.
pub(super) fn object(dead_letter: &DeadLetter) -> Value {
    Value::Object(fields(dead_letter))
}

/// Returns the JSON object of a whole record. Headers are pairs, because a name can occur twice.
pub(super) fn whole(dead_letter: &DeadLetter) -> Value {
    let record = &dead_letter.record;
    let mut fields = fields(dead_letter);
    let headers = record.raw_headers().map(|(name, value)| json!([bytes(Some(name)), bytes(value)])).collect();
    fields.insert("headers".to_owned(), Value::Array(headers));
    fields.insert("value".to_owned(), bytes(record.value()));
    Value::Object(fields)
}

fn fields(dead_letter: &DeadLetter) -> Map<String, Value> {
    let record = &dead_letter.record;
    let from = dead_letter.provenance.as_ref().map(|from| {
        json!({
            "topic": from.topic, "partition": from.partition, "offset": from.offset, "group": from.group,
            "reason": from.reason, "attempts": from.attempts, "at_millis": from.at_millis,
        })
    });
    let pairs = [
        ("topic", json!(record.topic())),
        ("partition", json!(record.partition())),
        ("offset", json!(record.offset())),
        ("key", bytes(record.key())),
        ("event_id", json!(record.header(event::EVENT_ID))),
        ("event_type", json!(record.header(event::EVENT_TYPE))),
        ("has_unreadable_headers", json!(record.has_unreadable_headers())),
        ("is_redriven", json!(dead_letter.is_redriven)),
        ("is_repeated", json!(dead_letter.is_repeated)),
        ("from", json!(from)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use walrelay_events::consumer::Record;

    fn dead_letter(value: Option<&[u8]>) -> DeadLetter {
        let headers: [(&str, Option<&[u8]>); 2] = [("twice", Some(b"\x1b[31m")), ("twice", None)];
        let mut dead_letter = DeadLetter::new(Record::new("t.dlq", 2, 17, None, value, &headers));
        dead_letter.is_redriven = true;
        dead_letter
    }

    #[test]
    fn j5_control_characters_are_escaped() {
        let shown = block(&dead_letter(Some("a\x1b[2Jü\n".as_bytes())));
        assert_eq!(
            shown,
            "t.dlq[2]@17  key (no key)  (redriven)\n  twice: \\u{1b}[31m\n  twice: (null)\n  a\\u{1b}[2Jü\\n\n"
        );
        assert_eq!(line(&dead_letter(None)), "2@17  -  -  key - (redriven): (no reason)");
    }

    #[test]
    fn json_loses_no_byte_and_no_header() {
        let shown = whole(&dead_letter(Some(b"\xff\x00")));
        assert_eq!(shown["value"], json!({ "hex": "ff00" }));
        assert_eq!(shown["headers"], json!([["twice", "\u{1b}[31m"], ["twice", null]]));
        assert_eq!(whole(&dead_letter(None))["value"], Value::Null);
        assert_eq!((&shown["partition"], &shown["is_redriven"]), (&json!(2), &json!(true)));
    }
}
