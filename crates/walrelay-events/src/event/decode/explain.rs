//! Says why a payload is refused and where, without any value of it.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::event::headers::EVENT_TYPE;

use super::json;
use super::json::Field;
use super::json::Kind;
use super::json::Node;
use super::lenient;
use super::reason::Reason;

/// A place in a payload. Columns are bytes.
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn of(offset: usize, payload: &[u8]) -> Self {
        let before = payload.get(..offset).unwrap_or(payload);
        let in_line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or(before);
        Self { line: before.iter().filter(|byte| **byte == b'\n').count() + 1, column: in_line.len() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// Returns the tag of an object, or why it has none that can be used. serde would take a number as the index of a
/// variant.
pub(super) fn tag(root: &Node<'_>, payload: &[u8]) -> Result<Option<String>, String> {
    let mut tags = fields(root, EVENT_TYPE);
    let Some(first) = tags.next() else { return Ok(None) };
    if let Some(second) = tags.next() {
        return Err(format!("duplicate field {EVENT_TYPE} at {}", Place::of(second.start, payload)));
    }
    let refused = |what: &dyn fmt::Display| Err(format!("{what} at {}", Place::of(first.value.start, payload)));
    match (&first.value.kind, first.value.unusable()) {
        (Kind::Text(quoted), None) => Ok(json::text(quoted)),
        (Kind::Text(_), Some(unusable)) => refused(&unusable),
        (_, _) => refused(&format!("expected a string in {EVENT_TYPE}")),
    }
}

/// Returns why a type refused a payload, and where.
pub(super) fn reason<E: DeserializeOwned>(reason: &Reason, root: &Node<'_>, payload: &[u8]) -> String {
    let failing = || lenient::failing::<E>(root);
    let place = match reason {
        // Nothing is at the place of what is missing.
        Reason::MissingField(_) | Reason::UnknownField(_) => None,
        Reason::DuplicateField(name) => fields(root, name).nth(1).map(|field| field.start),
        Reason::Unusable => match failing().map(|node| (node.unusable(), node.start)) {
            Some((Some(unusable), start)) => return format!("{unusable} at {}", Place::of(start, payload)),
            Some((None, start)) => Some(start),
            None => None,
        },
        Reason::Refused => {
            // It may refuse several values together.
            return match failing() {
                Some(node) => format!("{reason} at or after {}", Place::of(node.start, payload)),
                None => reason.to_string(),
            };
        }
        Reason::UnknownVariant(_) | Reason::Withheld | Reason::Other(_) => failing().map(|node| node.start),
    };
    match place {
        Some(start) => format!("{reason} at {}", Place::of(start, payload)),
        None => reason.to_string(),
    }
}

/// Returns the fields of an object with this name.
fn fields<'n, 'a>(root: &'n Node<'a>, name: &str) -> impl Iterator<Item = &'n Field<'a>> {
    let fields = match &root.kind {
        Kind::Object(fields) => fields.as_slice(),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Number(_)
        | Kind::Text(_)
        | Kind::List(_)
        | Kind::Deep
        | Kind::Unnamed
        | Kind::Given(_) => &[],
    };
    fields.iter().filter(move |field| field.name == name)
}
