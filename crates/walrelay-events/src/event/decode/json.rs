//! JSON as it stands in a payload. A value is converted only when a type asks for it: a number of 400 digits is JSON,
//! and it is in nobody's way in a field that the type does not have.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Number;
use serde_json::value::RawValue;

/// How deep lists and objects are read. serde_json has the same limit.
const MAX_DEPTH: usize = 127;

/// A value and its range in the payload.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind<'a>,
}

/// What a value is, before it is converted.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    /// With its quotes and escapes.
    Text(&'a str),
    List(Vec<Node<'a>>),
    Object(Vec<Field<'a>>),
    /// A list or an object below the maximum depth.
    Deep,
    /// A field whose name contains a lone surrogate, with its name. No type has such a field.
    Unnamed,
    /// A text that is not in the payload.
    Given(&'a str),
}

/// A field of an object, and where its name starts.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) start: usize,
    pub(super) name: String,
    pub(super) value: Node<'a>,
}

/// Why no type of Rust can hold a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unusable {
    OutOfRange,
    LoneSurrogate,
    TooDeep,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("number out of range"),
            Self::LoneSurrogate => f.write_str("lone surrogate in a string"),
            Self::TooDeep => write!(f, "more than {MAX_DEPTH} levels"),
        }
    }
}

/// Reads a payload. An error of serde_json says what is wrong and where, and quotes nothing.
pub(super) fn read(payload: &[u8]) -> Result<Node<'_>, serde_json::Error> {
    let raw: &RawValue = serde_json::from_slice(payload)?;
    node(payload.as_ptr().addr(), raw, MAX_DEPTH)
}

fn node(origin: usize, raw: &RawValue, depth: usize) -> Result<Node<'_>, serde_json::Error> {
    let text = raw.get();
    let start = text.as_ptr().addr().saturating_sub(origin);
    let kind = match text.as_bytes().first() {
        Some(b'[' | b'{') if depth == 0 => Kind::Deep,
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(text)?;
            Kind::List(values.into_iter().map(|value| node(origin, value, depth - 1)).collect::<Result<_, _>>()?)
        }
        Some(b'{') => {
            let Fields(fields) = serde_json::from_str(text)?;
            Kind::Object(fields.into_iter().map(|entry| field(origin, entry, depth - 1)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Kind::Text(text),
        Some(b't') => Kind::Bool(true),
        Some(b'f') => Kind::Bool(false),
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number(text),
    };
    Ok(Node { start, end: start + text.len(), kind })
}

fn field<'a>(origin: usize, entry: (&'a RawValue, &'a RawValue), depth: usize) -> Result<Field<'a>, serde_json::Error> {
    let name = entry.0.get();
    let start = name.as_ptr().addr().saturating_sub(origin);
    let value = node(origin, entry.1, depth)?;
    Ok(match text(name) {
        Some(name) => Field { start, name, value },
        None => {
            let value = Node { start, end: value.end, kind: Kind::Unnamed };
            Field { start, name: char::REPLACEMENT_CHARACTER.to_string(), value }
        }
    })
}

/// The fields of an object in their order, also those of one name.
struct Fields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl<'a> Field<'a> {
    /// Creates a field that is not in the payload.
    pub(super) fn given(name: &str, text: &'a str) -> Self {
        Self { start: 0, name: name.to_owned(), value: Node { start: 0, end: 0, kind: Kind::Given(text) } }
    }
}

impl Node<'_> {
    /// Returns why no type can hold the value itself.
    pub(super) fn unusable(&self) -> Option<Unusable> {
        match &self.kind {
            Kind::Number(digits) => number(digits).is_none().then_some(Unusable::OutOfRange),
            Kind::Text(quoted) => text(quoted).is_none().then_some(Unusable::LoneSurrogate),
            Kind::Deep => Some(Unusable::TooDeep),
            Kind::Unnamed => Some(Unusable::LoneSurrogate),
            Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Object(_) | Kind::Given(_) => None,
        }
    }

    /// Returns all values in their order, those inside others after them.
    pub(super) fn all(&self) -> Vec<&Self> {
        let (mut all, mut next) = (Vec::new(), vec![self]);
        while let Some(node) = next.pop() {
            all.push(node);
            match &node.kind {
                Kind::List(values) => next.extend(values.iter().rev()),
                Kind::Object(fields) => next.extend(fields.iter().rev().map(|field| &field.value)),
                Kind::Null
                | Kind::Bool(_)
                | Kind::Number(_)
                | Kind::Text(_)
                | Kind::Deep
                | Kind::Unnamed
                | Kind::Given(_) => (),
            }
        }
        all
    }

    /// Returns the payload with `null` for each value that no type can hold, or none if there is no such value.
    pub(super) fn without_unusable(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (mut copy, mut copied) = (Vec::new(), 0);
        for node in self.all().into_iter().filter(|node| node.unusable().is_some()) {
            copy.extend_from_slice(payload.get(copied..node.start).unwrap_or_default());
            if matches!(node.kind, Kind::Unnamed) {
                copy.extend_from_slice("\"\u{FFFD}\":".as_bytes());
            }
            copy.extend_from_slice(b"null");
            copied = node.end;
        }
        (copied > 0).then(|| {
            copy.extend_from_slice(payload.get(copied..).unwrap_or_default());
            copy
        })
    }
}

/// Returns a number, unless it is out of range.
pub(super) fn number(digits: &str) -> Option<Number> {
    serde_json::from_str(digits).ok()
}

/// Returns a text without its quotes and escapes, unless it contains a lone surrogate.
pub(super) fn text(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_value_has_its_range_and_what_no_type_holds_is_found() {
        let payload = br#" {"a": [1e400, "x"], "\ud800": {"b": 1}, "c": ["\udc00"]}"#;
        let root = read(payload).unwrap();
        let found: Vec<_> = root.all().into_iter().filter(|node| node.unusable().is_some()).collect();
        let found: Vec<_> =
            found.iter().map(|node| std::str::from_utf8(&payload[node.start..node.end]).unwrap()).collect();
        assert_eq!(found, ["1e400", r#""\ud800": {"b": 1}"#, r#""\udc00""#]);
        let copy = root.without_unusable(payload).unwrap();
        assert_eq!(copy, " {\"a\": [null, \"x\"], \"\u{FFFD}\":null, \"c\": [null]}".as_bytes());
        assert_eq!(read(b"[1]").unwrap().without_unusable(b"[1]"), None);
    }

    #[test]
    fn values_that_are_nested_too_deep_are_not_read() {
        let payload = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let root = read(payload.as_bytes()).unwrap();
        let deepest = root.all().pop().map(|node| (node.start, node.unusable().unwrap().to_string()));
        assert_eq!(deepest, Some((127, "more than 127 levels".to_owned())));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in "[\\[\\]{}\":,0-9eE\\\\ud\\-+. ntf]{0,40}") {
            if let Ok(root) = read(payload.as_bytes()) {
                root.without_unusable(payload.as_bytes());
            }
        }
    }
}
