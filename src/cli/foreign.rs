//! Bytes of records, for people and for programs: nothing in them can move the cursor, and JSON loses no byte.

use serde_json::Value;
use serde_json::json;

/// Returns UTF-8 as a string, and other bytes as `{"hex": ...}`.
pub(super) fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    std::str::from_utf8(bytes).map_or_else(
        |_| json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        |text| json!(text),
    )
}

/// Escapes control characters.
pub(super) fn escape(text: &str) -> String {
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
