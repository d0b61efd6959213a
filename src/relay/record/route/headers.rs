//! The headers of one record, in a reusable buffer.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::relay::decode::pgoutput::Cell;
use crate::relay::record::row::Role;
use crate::relay::record::row::Row;
use crate::relay::record::row::Value;

use super::reason::Reason;
use super::value;

/// The number of headers of a row.
const MAX_COUNT: usize = 32;
/// The bytes of their names and values.
const MAX_BYTES: usize = 8 << 10;
/// The length of a name.
const MAX_NAME: usize = 64;
/// walrelay's headers, which a row must not use; nor those that the preset sends.
const RESERVED: [&str; 3] = ["event_id", "event_type", "produced_at"];

/// Names and values, in order.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    entries: Vec<(Range<usize>, Option<Range<usize>>)>,
}

impl Headers {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push((start..middle, Some(middle..self.bytes.len())));
    }

    /// Adds a header with the text of a column: without a value for NULL, and for a column that the table lacks.
    pub(super) fn push_value(
        &mut self,
        name: &str,
        value: Option<Value<'_>>,
        what: &'static str,
    ) -> Result<(), Reason> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        let has_value = value.map_or(Ok(false), |value| value::append(value, what, &mut self.bytes))?;
        self.entries.push((start..middle, has_value.then_some(middle..self.bytes.len())));
        Ok(())
    }

    pub(super) fn push_text(&mut self, name: &str, row: &Row<'_>, role: Role) -> Result<(), Reason> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        if !value::append_text(row, role, &mut self.bytes)? {
            return Err(Reason::Null(role.name()));
        }
        self.entries.push((start..middle, Some(middle..self.bytes.len())));
        Ok(())
    }

    /// Adds the row's headers: a JSON object, or nothing.
    pub(super) fn push_object(&mut self, row: &Row<'_>) -> Result<(), Reason> {
        let Some(value) = row.value(Role::Headers) else { return Ok(()) };
        let json = match value.cell {
            Cell::Null => return Ok(()),
            Cell::Text(_) | Cell::Binary(_) | Cell::Unchanged => value::json(value, Role::Headers.name())?,
        };
        let (start, own) = (self.bytes.len(), self.entries.len());
        let mut json = serde_json::Deserializer::from_slice(json);
        let added = Object { headers: self, own, start, count: 0 };
        json.deserialize_any(added).and_then(|()| json.end()).map_err(|error| Reason::Headers(describe(&error)))
    }

    /// Counts the headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts the bytes of all names and values.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Gives every name and value, in order. A header without a value is one of a NULL.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.entries.iter().map(|(name, value)| {
            let name = self.bytes.get(name.clone()).unwrap_or_default();
            let value = value.clone().map(|value| self.bytes.get(value).unwrap_or_default());
            (std::str::from_utf8(name).unwrap_or_default(), value)
        })
    }
}

/// Describes a JSON error without its position and without any part of the row.
fn describe(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            text.split(" at line ").next().unwrap_or_default().to_owned()
        }
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            "invalid JSON".to_owned()
        }
    }
}

struct Object<'h> {
    headers: &'h mut Headers,
    /// The number of headers that are not the row's own.
    own: usize,
    start: usize,
    count: usize,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of names and values")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let value: &RawValue = map.next_value()?;
            self.add(&name.0, value).map_err(A::Error::custom)?;
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        // The text belongs to the row and must not be part of a message.
        Err(E::custom("expected a JSON object, found a string"))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("expected a JSON object, found an array"))
    }
}

impl Object<'_> {
    fn add(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        let legal = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        let shown = || name.chars().take(MAX_NAME).collect::<String>();
        if !legal {
            return Err(format!("invalid name {:?}: allowed are 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -", shown()));
        }
        if RESERVED.contains(&name) || self.headers.iter().take(self.own).any(|(own, _)| own == name) {
            return Err(format!("reserved name {:?}", shown()));
        }
        self.count += 1;
        if self.count > MAX_COUNT {
            return Err(format!("more than {MAX_COUNT} headers"));
        }
        let text = value.get();
        if text.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str::<Name<'_>>(text).map_err(|_| "invalid JSON".to_owned())?.0;
            self.headers.push(name, text.as_bytes());
        } else {
            self.headers.push(name, text.as_bytes());
        }
        if self.headers.bytes.len() - self.start > MAX_BYTES {
            return Err(format!("more than {MAX_BYTES} bytes"));
        }
        Ok(())
    }
}

/// A string that is borrowed if JSON needs no unescaping.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
