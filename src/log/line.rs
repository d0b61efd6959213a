//! One event is one line.
//!
//! Values come from rows, servers and brokers. They can neither end a line nor control a terminal: control characters,
//! line separators and characters that reorder text are escaped in every format (CWE-117). Long values are cut.

use std::error::Error;
use std::fmt;
use std::fmt::Write;
use std::time::SystemTime;

use tracing::Event;
use tracing::Level;
use tracing::field::Field;
use tracing::field::Visit;

use walrelay_events::fault;

use super::complete::completed;

/// How much text of one event is kept, in bytes before escaping.
const MAX_TEXT_BYTES: usize = 4_096;

/// The format of a line, after `auto` is resolved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// Text for people.
    Pretty { is_colored: bool },
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// The message and fields of an event.
#[derive(Debug)]
pub(super) struct Content {
    message: String,
    fields: Vec<(&'static str, Value)>,
    bytes_left: usize,
}

#[derive(Debug)]
enum Value {
    /// A number or a truth value: it needs no quotes and no escapes.
    Bare(String),
    Text(String),
}

/// Formats a line, with its line end.
pub(super) fn write(look: Look, time: SystemTime, level: Level, target: &str, content: &Content) -> String {
    let mut line = String::with_capacity(160);
    let written = match look {
        Look::Pretty { is_colored } => pretty(&mut line, Paint { is_colored }, time, level, target, content),
        Look::Json => json(&mut line, time, level, target, content),
        Look::Logfmt => logfmt(&mut line, time, level, target, content),
    };
    // Only a time outside the calendar can fail. Then the rest of the line is missing, but not its end.
    debug_assert!(written.is_ok(), "a value refused to be written");
    line.push('\n');
    line
}

impl Content {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut content = Self { message: String::new(), fields: Vec::new(), bytes_left: MAX_TEXT_BYTES };
        event.record(&mut content);
        content
    }

    /// The content of a line that the logger itself writes.
    pub(super) fn new(message: &str, (name, count): (&'static str, u64), code: Option<String>) -> Self {
        let mut fields = vec![(name, Value::Bare(count.to_string()))];
        fields.extend(code.map(|code| ("code", Value::Text(code))));
        Self { message: message.to_owned(), fields, bytes_left: 0 }
    }

    /// The content of a line that is no tracing event.
    pub(super) fn of_texts(message: &str, fields: &[(&'static str, &str)]) -> Self {
        let mut content = Self { message: message.to_owned(), fields: Vec::new(), bytes_left: MAX_TEXT_BYTES };
        for (name, text) in fields {
            let text = content.completed(name, text);
            content.fields.push((name, Value::Text(text)));
        }
        content
    }

    /// The value of a field as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|(each, value)| match value {
            Value::Text(text) | Value::Bare(text) if *each == name => Some(text.as_str()),
            Value::Text(_) | Value::Bare(_) => None,
        })
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn add(&mut self, field: &Field, text: &str) {
        let text = self.completed(field.name(), text);
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), Value::Text(text)));
        }
    }

    /// Completes the commands in a next step, and cuts what is too long.
    fn completed(&mut self, name: &str, text: &str) -> String {
        let completed = matches!(name, "help" | "next").then(|| completed(text));
        self.cut(completed.as_deref().unwrap_or(text))
    }

    fn add_bare(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.fields.push((field.name(), Value::Bare(value.to_string())));
    }

    fn cut(&mut self, text: &str) -> String {
        let mut end = text.len().min(self.bytes_left);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes_left -= end;
        let kept = text.get(..end).unwrap_or_default();
        if end < text.len() { format!("{kept}...") } else { kept.to_owned() }
    }
}

impl Visit for Content {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, &fault::chain(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_bare(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_bare(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        if value.is_finite() {
            self.add_bare(field, &value);
        } else {
            self.add(field, &value.to_string());
        }
    }
}

#[derive(Clone, Copy)]
struct Paint {
    is_colored: bool,
}

impl Paint {
    fn on(self, line: &mut String, color: &str, text: &str) {
        if self.is_colored {
            line.push_str("\u{1b}[");
            line.push_str(color);
            line.push('m');
            line.push_str(text);
            line.push_str("\u{1b}[0m");
        } else {
            line.push_str(text);
        }
    }
}

const DIM: &str = "2";

fn pretty(
    line: &mut String,
    paint: Paint,
    time: SystemTime,
    level: Level,
    target: &str,
    content: &Content,
) -> fmt::Result {
    let mut stamp = String::new();
    write!(stamp, "{}", humantime::format_rfc3339_millis(time))?;
    paint.on(line, DIM, &stamp);
    write!(line, " ")?;
    paint.on(line, color(level), &format!("{:>5}", level.as_str()));
    write!(line, " ")?;
    escape(line, &content.message, Quote::None);
    let is_next = |name: &str| matches!(name, "next" | "help");
    for (name, value) in content.fields.iter().filter(|(name, _)| !is_next(name)) {
        write!(line, " ")?;
        paint.on(line, DIM, &format!("{name}="));
        plain(line, value);
    }
    write!(line, " ")?;
    paint.on(line, DIM, &format!("({target})"));
    // On a line of its own and without quotes, so that its command can be pasted.
    for (_, value) in content.fields.iter().filter(|(name, _)| is_next(name)) {
        write!(line, "\n  ")?;
        paint.on(line, DIM, "next:");
        write!(line, " ")?;
        match value {
            Value::Bare(text) | Value::Text(text) => escape(line, text, Quote::None),
        }
    }
    Ok(())
}

fn json(line: &mut String, time: SystemTime, level: Level, target: &str, content: &Content) -> fmt::Result {
    write!(line, "{{\"timestamp\":\"{}\"", humantime::format_rfc3339_millis(time))?;
    write!(line, ",\"level\":\"{}\",\"target\":\"", level.as_str())?;
    escape(line, target, Quote::Json);
    line.push_str("\",\"message\":\"");
    escape(line, &content.message, Quote::Json);
    line.push('"');
    for (name, value) in &content.fields {
        // JSON readers disagree about duplicate keys.
        let prefix = if matches!(*name, "timestamp" | "level" | "target") { "field_" } else { "" };
        write!(line, ",\"{prefix}")?;
        escape(line, name, Quote::Json);
        line.push_str("\":");
        match value {
            Value::Bare(text) => line.push_str(text),
            Value::Text(text) => {
                line.push('"');
                escape(line, text, Quote::Json);
                line.push('"');
            }
        }
    }
    line.push('}');
    Ok(())
}

fn logfmt(line: &mut String, time: SystemTime, level: Level, target: &str, content: &Content) -> fmt::Result {
    write!(line, "time={}", humantime::format_rfc3339_millis(time))?;
    write!(line, " level={} target={target} msg=", level.as_str().to_ascii_lowercase())?;
    quoted(line, &content.message);
    for (name, value) in &content.fields {
        let prefix = if matches!(*name, "time" | "level" | "target" | "msg") { "field_" } else { "" };
        write!(line, " {prefix}{name}=")?;
        plain(line, value);
    }
    Ok(())
}

const fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "1;31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

/// Writes a value with quotes only if its end would be ambiguous without.
fn plain(line: &mut String, value: &Value) {
    match value {
        Value::Bare(text) => line.push_str(text),
        Value::Text(text) => {
            let is_bare = |c: char| !c.is_whitespace() && !is_unprintable(c) && !matches!(c, '"' | '=' | '\\');
            if !text.is_empty() && text.chars().all(is_bare) {
                line.push_str(text);
            } else {
                quoted(line, text);
            }
        }
    }
}

fn quoted(line: &mut String, text: &str) {
    line.push('"');
    escape(line, text, Quote::Text);
    line.push('"');
}

/// The quotes around a text, which decide its escapes.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Quote {
    /// No quotes.
    None,
    /// Rust's escapes: `\u{1b}`.
    Text,
    /// JSON's escapes: `\u001b`.
    Json,
}

fn escape(line: &mut String, text: &str, quote: Quote) {
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '"' | '\\' if quote != Quote::None => {
                line.push('\\');
                line.push(character);
            }
            other if !is_unprintable(other) => line.push(other),
            other if quote == Quote::Json => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
            other => line.extend(other.escape_unicode()),
        }
    }
}

/// Whether a character could end a line, control a terminal or reorder the text around it.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    const NASTY: &str = "a\nb\r\u{1b}[31m\"c\"\\ \u{85}\u{2028}\u{202e}\u{7f}\0=é";

    fn line(look: Look, value: &str) -> String {
        let content = Content {
            message: "row refused".to_owned(),
            fields: vec![("id", Value::Text(value.to_owned())), ("attempt", Value::Bare("3".to_owned()))],
            bytes_left: 0,
        };
        write(look, UNIX_EPOCH + Duration::from_millis(1_500), Level::WARN, "walrelay::relay", &content)
    }

    #[test]
    fn each_format_reads_as_it_should() {
        for (look, expected) in [
            (
                Look::Pretty { is_colored: false },
                "1970-01-01T00:00:01.500Z  WARN row refused id=7 attempt=3 (walrelay::relay)\n",
            ),
            (
                Look::Json,
                "{\"timestamp\":\"1970-01-01T00:00:01.500Z\",\"level\":\"WARN\",\"target\":\"walrelay::relay\",\
                 \"message\":\"row refused\",\"id\":\"7\",\"attempt\":3}\n",
            ),
            (
                Look::Logfmt,
                "time=1970-01-01T00:00:01.500Z level=warn target=walrelay::relay msg=\"row refused\" id=7 attempt=3\n",
            ),
        ] {
            assert_eq!(line(look, "7"), expected);
        }
    }

    #[test]
    fn a_hostile_value_stays_within_its_line_and_its_quotes() {
        for look in [Look::Pretty { is_colored: false }, Look::Json, Look::Logfmt] {
            let line = line(look, NASTY);
            let (body, end) = line.split_at(line.len() - 1);
            assert_eq!(end, "\n");
            assert!(!body.chars().any(is_unprintable), "{body:?}");
            assert!(body.contains('é'), "harmless text is left alone: {body}");
        }
        let json: serde_json::Value = serde_json::from_str(&line(Look::Json, NASTY)).unwrap();
        assert_eq!(json["id"], NASTY);
    }

    #[test]
    fn a_value_cannot_pretend_to_be_another_field() {
        let line = line(Look::Logfmt, "x level=error");
        assert!(line.contains(" id=\"x level=error\" "), "{line}");
    }

    #[test]
    fn colors_frame_the_level_and_never_the_value() {
        let line = line(Look::Pretty { is_colored: true }, "\u{1b}[2J");
        assert!(line.contains("\u{1b}[33m WARN\u{1b}[0m"), "{line:?}");
        assert!(line.contains("\"\\u{1b}[2J\""), "{line:?}");
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let mut content = Content { message: String::new(), fields: Vec::new(), bytes_left: 4 };
        assert_eq!(content.cut("aéééé"), "aé...");
        assert_eq!(content.cut("bcd"), "b...");
        assert_eq!(content.cut("e"), "...");
    }
}
