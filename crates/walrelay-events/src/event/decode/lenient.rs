//! Gives a JSON value to a type without converting what the type ignores. It fails with a [`Reason`].
//!
//! An enum with a tag holds all fields in a buffer before it knows its variant. serde_json refuses a number out of
//! range already there. Here such a value enters the buffer as a struct around a value, which JSON never is: every type
//! refuses it, and a field that no variant has is dropped with it.
//!
//! To find where a value fails, values from some offset on are withheld: they are delivered as bytes, which JSON never
//! is. The failing value is the last one that is asked for.

use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::EnumAccess;
use serde::de::IntoDeserializer;
use serde::de::VariantAccess;
use serde::de::Visitor;
use serde::de::value::MapDeserializer;
use serde::de::value::SeqDeserializer;

use super::json::Field;
use super::json::Kind;
use super::json::Node;
use super::json::number;
use super::json::text;
use super::reason::Reason;

/// How many structs are around a value that no type can hold. Only this many newtypes around bytes would accept it.
const WRAPPERS: u8 = 8;
/// Not UTF-8, so that no string accepts it.
const BYTES: [u8; 1] = [0xFF];

/// Decodes a value. Those that no type can hold are refused only if the type asks for them.
pub(super) fn decode<E: DeserializeOwned>(root: &Node<'_>) -> Result<E, Reason> {
    E::deserialize(Lenient { node: root, withheld_from: usize::MAX })
}

/// Returns the value that is the last one the type asks for before it fails.
pub(super) fn failing<'n, 'a, E: DeserializeOwned>(root: &'n Node<'a>) -> Option<&'n Node<'a>> {
    let nodes: Vec<_> = root.all().into_iter().filter(|node| node.start > root.start).collect();
    let is_asked_for = |node: &&Node<'_>| {
        let withheld = E::deserialize(Lenient { node: root, withheld_from: node.start });
        matches!(withheld, Err(Reason::Withheld))
    };
    let place = nodes.partition_point(is_asked_for).checked_sub(1)?;
    nodes.get(place).copied()
}

/// A value, and from which offset on values are withheld.
#[derive(Clone, Copy)]
struct Lenient<'n, 'a> {
    node: &'n Node<'a>,
    withheld_from: usize,
}

impl<'n, 'a> Lenient<'n, 'a> {
    fn at(self, node: &'n Node<'a>) -> Self {
        Self { node, ..self }
    }

    fn is_withheld(self) -> bool {
        self.node.start >= self.withheld_from
    }
}

impl<'de> Deserializer<'de> for Lenient<'_, '_> {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        if self.is_withheld() {
            return visitor.visit_bytes(&BYTES);
        }
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Number(digits) => {
                match number(digits).map(|number| (number.as_u64(), number.as_i64(), number.as_f64())) {
                    Some((Some(value), _, _)) => visitor.visit_u64(value),
                    Some((None, Some(value), _)) => visitor.visit_i64(value),
                    Some((None, None, Some(value))) => visitor.visit_f64(value),
                    Some((None, None, None)) | None => visitor.visit_newtype_struct(Unusable(WRAPPERS)),
                }
            }
            Kind::Text(quoted) => match text(quoted) {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_newtype_struct(Unusable(WRAPPERS)),
            },
            Kind::Given(text) => visitor.visit_str(text),
            Kind::Deep | Kind::Unnamed => visitor.visit_newtype_struct(Unusable(WRAPPERS)),
            Kind::List(values) => visitor.visit_seq(SeqDeserializer::new(values.iter().map(|value| self.at(value)))),
            Kind::Object(fields) => {
                let fields = fields.iter().map(|field| (Name(&field.name), self.at(&field.value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        let is_null = !self.is_withheld() && matches!(self.node.kind, Kind::Null);
        if is_null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Reason> {
        if self.is_withheld() {
            return Err(Reason::Withheld);
        }
        match &self.node.kind {
            Kind::Text(quoted) => {
                let name = text(quoted).ok_or(Reason::Unusable)?;
                visitor.visit_enum(Variant { name: &name, content: None })
            }
            Kind::Object(fields) => match fields.as_slice() {
                [Field { name, value, .. }] => visitor.visit_enum(Variant { name, content: Some(self.at(value)) }),
                [] | [_, _, ..] => Err(Reason::Other("expected a variant, found another object".to_owned())),
            },
            Kind::Deep => Err(Reason::Unusable),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Unnamed | Kind::Given(_) => {
                Err(Reason::Other("expected a variant, found something else".to_owned()))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl<'de> IntoDeserializer<'de, Reason> for Lenient<'_, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The name of a field. A map can have numbers as its keys.
struct Name<'n>(&'n str);

macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_str(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Name<'_> {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_some(self)
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
        visitor.visit_enum(self.0.into_deserializer())
    }

    numbers! {
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Reason> for Name<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Structs around a value.
struct Unusable(u8);

impl<'de> Deserializer<'de> for Unusable {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match self.0.checked_sub(1) {
            Some(wrappers) => visitor.visit_newtype_struct(Self(wrappers)),
            None => visitor.visit_bytes(&BYTES),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// A variant of an enum inside an event, by its name.
struct Variant<'n, 'a> {
    name: &'n str,
    content: Option<Lenient<'n, 'a>>,
}

impl<'de, 'n, 'a> EnumAccess<'de> for Variant<'n, 'a> {
    type Error = Reason;
    type Variant = Content<'n, 'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'n, 'a>), Reason> {
        Ok((seed.deserialize(Name(self.name))?, Content(self.content)))
    }
}

struct Content<'n, 'a>(Option<Lenient<'n, 'a>>);

/// What a variant without content has.
static NULL: Node<'static> = Node { start: 0, end: 0, kind: Kind::Null };

impl<'n, 'a> Content<'n, 'a> {
    fn value(self) -> Lenient<'n, 'a> {
        self.0.unwrap_or(Lenient { node: &NULL, withheld_from: usize::MAX })
    }
}

impl<'de> VariantAccess<'de> for Content<'_, '_> {
    type Error = Reason;

    fn unit_variant(self) -> Result<(), Reason> {
        match self.0 {
            Some(content) if content.is_withheld() => Err(Reason::Withheld),
            Some(content) if !matches!(content.node.kind, Kind::Null) => {
                Err(Reason::Other("expected a variant without content, found content".to_owned()))
            }
            Some(_) | None => Ok(()),
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
