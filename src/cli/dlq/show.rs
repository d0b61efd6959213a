//! How a letter is shown. Nothing that a record holds is obeyed by a terminal, and JSON loses no byte.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use walrelay_events::consumer::dead_letter::Letter;
use walrelay_events::event;

/// How many characters of a reason a line shows.
const REASON_SHOWN: usize = 72;
/// What stands where headers should.
const UNREADABLE: &str = "(a header whose name is not UTF-8: none can be shown)";

/// Gives a letter in one line.
pub(super) fn line(letter: &Letter) -> String {
    let record = &letter.record;
    let nothing = if record.has_unreadable_headers() { UNREADABLE } else { "(no reason)" };
    let (reason, from) = letter.provenance.as_ref().map_or((nothing, String::new()), |it| {
        (it.reason.as_str(), format!(" from {}[{}]@{}", it.topic, it.partition, it.offset))
    });
    let header = |name: &str| record.header(name).unwrap_or("-");
    let state = state(letter).map(|state| format!(" {state}")).unwrap_or_default();
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

const fn state(letter: &Letter) -> Option<&'static str> {
    match (letter.is_redriven, letter.is_repeated) {
        (true, _) => Some("(redriven)"),
        (false, true) => Some("(again)"),
        (false, false) => None,
    }
}

/// Gives a letter whole, for a person.
pub(super) fn block(letter: &Letter) -> String {
    let record = &letter.record;
    let state = state(letter).map(|state| format!("  {state}")).unwrap_or_default();
    let key = record.key().map_or("(no key)".into(), String::from_utf8_lossy);
    let mut lines = vec![format!("{record}  key {key}{state}")];
    let headers = record.headers();
    lines.extend(
        headers.map(|(name, value)| format!("  {name}: {}", value.map_or("(null)".into(), String::from_utf8_lossy))),
    );
    if record.has_unreadable_headers() {
        lines.push(format!("  {UNREADABLE}"));
    }
    lines.push(format!("  {}", record.value().map_or("(tombstone)".into(), String::from_utf8_lossy)));
    lines.iter().map(|line| format!("{}\n", escape(line))).collect()
}

/// Gives what a list tells of a letter.
pub(super) fn object(letter: &Letter) -> Value {
    Value::Object(fields(letter))
}

/// Gives a letter whole: headers as pairs, for a name may come twice.
pub(super) fn whole(letter: &Letter) -> Value {
    let record = &letter.record;
    let mut fields = fields(letter);
    let headers = record.headers().map(|(name, value)| json!([name, bytes(value)])).collect();
    fields.insert("headers".to_owned(), Value::Array(headers));
    fields.insert("value".to_owned(), bytes(record.value()));
    Value::Object(fields)
}

fn fields(letter: &Letter) -> Map<String, Value> {
    let record = &letter.record;
    let from = letter.provenance.as_ref().map(|from| {
        json!({
            "topic": from.topic, "partition": from.partition, "offset": from.offset, "group": from.group,
            "reason": from.reason, "tries": from.tries, "at_millis": from.at_millis,
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
        ("is_redriven", json!(letter.is_redriven)),
        ("is_repeated", json!(letter.is_repeated)),
        ("from", json!(from)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Gives UTF-8 as a text, and anything else as `{"hex": ...}`.
fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    std::str::from_utf8(bytes).map_or_else(
        |_| json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        |text| json!(text),
    )
}

/// Shows control characters instead of obeying them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            escaped.extend(char.escape_default());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    use walrelay_events::consumer::Record;

    fn letter(value: Option<&[u8]>) -> Letter {
        let headers: [(&str, Option<&[u8]>); 2] = [("twice", Some(b"\x1b[31m")), ("twice", None)];
        Letter {
            record: Record::new("t.dlq", 2, 17, None, value, &headers),
            provenance: None,
            is_redriven: true,
            is_repeated: false,
        }
    }

    #[test]
    fn j5_control_characters_are_shown_and_not_obeyed() {
        let shown = block(&letter(Some("a\x1b[2Jü\n".as_bytes())));
        assert_eq!(
            shown,
            "t.dlq[2]@17  key (no key)  (redriven)\n  twice: \\u{1b}[31m\n  twice: (null)\n  a\\u{1b}[2Jü\\n\n"
        );
        assert_eq!(line(&letter(None)), "2@17  -  -  key - (redriven): (no reason)");
    }

    #[test]
    fn json_loses_no_byte_and_no_header() {
        let shown = whole(&letter(Some(b"\xff\x00")));
        assert_eq!(shown["value"], json!({ "hex": "ff00" }));
        assert_eq!(shown["headers"], json!([["twice", "\u{1b}[31m"], ["twice", null]]));
        assert_eq!(whole(&letter(None))["value"], Value::Null);
        assert_eq!((&shown["partition"], &shown["is_redriven"]), (&json!(2), &json!(true)));
    }
}
