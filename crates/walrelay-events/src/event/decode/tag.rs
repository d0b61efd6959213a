//! The tag of a payload, read and inserted without decoding the rest.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use serde::de::Visitor;

use crate::event::headers::EVENT_TYPE;

/// The tag of an object, if it has one. It must be a string.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, default)]
    event_type: Text<'a>,
}

/// A string that is not copied unless it contains escapes.
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Some(text.into())))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Some(text.to_owned().into())))
            }
        }
        deserializer.deserialize_str(One)
    }
}

/// Reads the tag of a payload. Only an object has one.
pub(super) fn read(payload: &[u8]) -> Result<Option<Cow<'_, str>>, serde_json::Error> {
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    serde_json::from_slice::<Tag<'_>>(payload).map(|tag| tag.event_type.0)
}

/// Inserts a tag into an object that has none. Nothing else is an object.
pub(super) fn insert(payload: &[u8], event_type: &str) -> Option<Vec<u8>> {
    let fields = payload.trim_ascii_start().strip_prefix(b"{")?;
    let comma = if fields.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let event_type = serde_json::to_string(event_type).ok()?;
    let mut tagged = format!("{{\"{EVENT_TYPE}\":{event_type}{comma}").into_bytes();
    tagged.extend_from_slice(fields);
    Some(tagged)
}
