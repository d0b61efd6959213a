//! Why a value does not match a type, without any part of the value.
//!
//! serde's own errors quote the value. This one contains names of the type only (fields, variants). It also
//! distinguishes the one failure that is not an error: a variant that the type does not have.

use std::fmt;

use serde::de;
use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::IntoDeserializer;
use serde::de::Unexpected;
use serde::de::VariantAccess;
use serde::de::Visitor;
use serde::de::value::MapDeserializer;
use serde::de::value::SeqDeserializer;
use serde_json::Value;

use super::headers::EVENT_TYPE;

/// Why a value does not match a type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// The type has no such variant, only these.
    UnknownVariant(&'static [&'static str]),
    /// The value lacks this field.
    MissingField(&'static str),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariant(expected) => write!(f, "expected one of {}", expected.join(", ")),
            Self::MissingField(name) => write!(f, "missing field {name}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Reason {}

impl de::Error for Reason {
    fn custom<T: fmt::Display>(_: T) -> Self {
        // The text is not serde's own and may quote the value.
        Self::Other("a value was refused by its type".to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Other(format!("expected {expected}, found {}", kind(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Other(format!("expected {expected}, found another value"))
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::Other(format!("expected {expected}, found {length} elements"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::UnknownVariant(expected)
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Other(format!("expected one of {}", expected.join(", ")))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::MissingField(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Other(format!("duplicate field {name}"))
    }
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::NewtypeStruct | Unexpected::Map => "an object",
        Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant => "a variant",
        Unexpected::Other(_) => "something else",
    }
}

/// Returns whether a type has a variant of this name. It is given the tag alone: an internally tagged enum reads it
/// first, and any error but an unknown variant proves that the variant exists.
pub(super) fn knows<E: DeserializeOwned>(event_type: &str) -> bool {
    let tag = MapDeserializer::<_, Reason>::new(std::iter::once((EVENT_TYPE, event_type)));
    !matches!(E::deserialize(tag), Err(Reason::UnknownVariant(_)))
}

/// Returns whether a type requires the tag.
pub(super) fn requires_tag<E: DeserializeOwned>() -> bool {
    let nothing = MapDeserializer::<_, Reason>::new(std::iter::empty::<(&str, &str)>());
    matches!(E::deserialize(nothing), Err(Reason::MissingField(EVENT_TYPE)))
}

/// Returns why a value does not match a type.
pub(super) fn why<E: DeserializeOwned>(value: Value) -> Reason {
    match E::deserialize(Quiet(value)) {
        Err(reason) => reason,
        Ok(_) => Reason::Other("the JSON does not match the type".to_owned()),
    }
}

/// A JSON value whose deserializer fails with a [`Reason`].
struct Quiet(Value);

impl<'de> Deserializer<'de> for Quiet {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Quiet))),
            Value::Object(fields) => {
                visitor.visit_map(MapDeserializer::new(fields.into_iter().map(|(name, value)| (name, Quiet(value)))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Reason> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Variant { name, content: None }),
            Value::Object(fields) if fields.len() == 1 => match fields.into_iter().next() {
                Some((name, content)) => visitor.visit_enum(Variant { name, content: Some(content) }),
                None => Err(Reason::Other("expected a variant, found nothing".to_owned())),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(Reason::Other("expected a variant, found something else".to_owned()))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Reason> for Quiet {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A variant of an enum inside an event, by its name.
struct Variant {
    name: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Reason;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), Reason> {
        let name = seed.deserialize(self.name.into_deserializer())?;
        Ok((name, Content(self.content)))
    }
}

struct Content(Option<Value>);

impl Content {
    fn value(self) -> Quiet {
        Quiet(self.0.unwrap_or(Value::Null))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Reason;

    fn unit_variant(self) -> Result<(), Reason> {
        match self.0 {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(Reason::Other("expected a variant without content, found content".to_owned())),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Reason> {
        seed.deserialize(self.value())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Reason> {
        self.value().deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Reason> {
        self.value().deserialize_any(visitor)
    }
}
