//! Why a value does not match a type, without any part of the value.
//!
//! serde's own errors quote the value. This one contains names of the type only (fields, variants). It also
//! distinguishes the one failure that is not an error: a variant that the type does not have.

use std::fmt;

use serde::de;
use serde::de::Unexpected;

/// Why a value does not match a type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// The type has no such variant, only these.
    UnknownVariant(&'static [&'static str]),
    /// The type has no such field, only these.
    UnknownField(&'static [&'static str]),
    /// The value lacks this field.
    MissingField(&'static str),
    /// The value has this field twice.
    DuplicateField(&'static str),
    /// A value that no type can hold was asked for. Only such a value is delivered as a struct around a value.
    Unusable,
    /// A value was asked for that is withheld. Only such a value is delivered as bytes.
    Withheld,
    /// The type's own code refused a value.
    Refused,
    /// Anything else.
    Other(String),
}

impl Reason {
    fn found(found: Unexpected<'_>, reason: impl FnOnce(&'static str) -> String) -> Self {
        match found {
            Unexpected::NewtypeStruct => Self::Unusable,
            Unexpected::Bytes(_) => Self::Withheld,
            Unexpected::Bool(_)
            | Unexpected::Unsigned(_)
            | Unexpected::Signed(_)
            | Unexpected::Float(_)
            | Unexpected::Char(_)
            | Unexpected::Str(_)
            | Unexpected::Unit
            | Unexpected::Option
            | Unexpected::Seq
            | Unexpected::Map
            | Unexpected::Enum
            | Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant
            | Unexpected::Other(_) => Self::Other(reason(kind(found))),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVariant(expected) | Self::UnknownField(expected) => {
                write!(f, "expected one of {}", expected.join(", "))
            }
            Self::MissingField(name) => write!(f, "missing field {name}"),
            Self::DuplicateField(name) => write!(f, "duplicate field {name}"),
            Self::Unusable | Self::Withheld => f.write_str("a value cannot be represented"),
            Self::Refused => f.write_str("a value was refused by its type"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Reason {}

impl de::Error for Reason {
    fn custom<T: fmt::Display>(_: T) -> Self {
        // The text is not serde's own and may quote the value.
        Self::Refused
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::found(found, |found| format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::found(found, |_| format!("expected {expected}, found another value"))
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::Other(format!("expected {expected}, found {length} elements"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::UnknownVariant(expected)
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::UnknownField(expected)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::MissingField(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::DuplicateField(name)
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
