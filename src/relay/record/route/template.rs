//! A topic template: text and `{column}` or `{column:lower}`.

use crate::relay::record::row::Role;
use crate::relay::record::row::Row;

use super::reason::Reason;
use super::value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Column { role: Role, lower: bool },
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Column { .. } => "",
        }
    }
}

/// The template is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTemplate {
    /// Unbalanced braces.
    #[error("unbalanced brace in {0:?}")]
    Unbalanced(String),
    #[error("{found:?} is not one of {allowed}")]
    UnknownColumn {
        /// The name.
        found: String,
        /// The allowed names.
        allowed: String,
    },
    #[error("unknown modifier {0:?}: the only one is lower")]
    UnknownModifier(String),
}

impl BadTemplate {
    pub(super) fn unknown_column(found: &str) -> Self {
        let allowed = [Role::Id, Role::AggregateType, Role::AggregateId, Role::EventType].map(Role::name).join(", ");
        Self::UnknownColumn { found: found.to_owned(), allowed }
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let unbalanced = || BadTemplate::Unbalanced(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, behind) = after.split_once('}').ok_or_else(unbalanced)?;
            if before.contains('}') {
                return Err(unbalanced());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, lower) = match inside.split_once(':') {
                None => (inside, false),
                Some((name, "lower")) => (name, true),
                Some((_, modifier)) => return Err(BadTemplate::UnknownModifier(modifier.to_owned())),
            };
            let role = Role::named_in_routes(name).ok_or_else(|| BadTemplate::unknown_column(name))?;
            parts.push(Part::Column { role, lower });
            rest = behind;
        }
        if rest.contains('}') {
            return Err(unbalanced());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    pub(super) fn uses(&self, wanted: Role) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Column { role, .. } if *role == wanted))
    }

    pub(super) fn has_columns(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Column { .. }))
    }

    /// Gives all of the text between the columns.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(Part::text).collect()
    }

    /// Gives the text before the first column.
    pub(super) fn fixed_start(&self) -> &str {
        self.0.first().map_or("", Part::text)
    }

    pub(super) fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Gives it as an SQL expression. Lower case is that of ASCII, as in [`Self::render`].
    pub(super) fn expression(&self, column: impl Fn(Role) -> String, literal: fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => literal(text),
            Part::Column { role, lower: false } => format!("{}::text", column(*role)),
            Part::Column { role, lower: true } => format!("lower({}::text COLLATE \"C\")", column(*role)),
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(" || ")
    }

    pub(super) fn render(&self, row: &Row<'_>, out: &mut String) -> Result<(), Reason> {
        let mut bytes = std::mem::take(out).into_bytes();
        bytes.clear();
        for part in &self.0 {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::Column { role, lower } => {
                    let start = bytes.len();
                    if !value::append_text(row, *role, &mut bytes)? {
                        return Err(Reason::Null(role.name()));
                    }
                    if let (true, Some(added)) = (*lower, bytes.get_mut(start..)) {
                        added.make_ascii_lowercase();
                    }
                }
            }
        }
        *out = String::from_utf8(bytes)
            .map_err(|bad| Reason::Topic(String::from_utf8_lossy(bad.as_bytes()).chars().take(80).collect()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_columns() {
        let parsed = Template::parse("outbox.{aggregate_type:lower}.{event_type}-x").unwrap();
        let expected = [
            Part::Text("outbox.".into()),
            Part::Column { role: Role::AggregateType, lower: true },
            Part::Text(".".into()),
            Part::Column { role: Role::EventType, lower: false },
            Part::Text("-x".into()),
        ];
        assert_eq!(parsed.0, expected);
        assert_eq!(Template::parse("orders").unwrap().fixed(), Some("orders"));
    }

    #[test]
    fn an_invalid_template_is_an_error() {
        let rows = [
            ("{aggregate_type", "unbalanced brace in \"{aggregate_type\""),
            ("a}b", "unbalanced brace in \"a}b\""),
            ("}{id}", "unbalanced brace in \"}{id}\""),
            ("{kind}", "\"kind\" is not one of id, aggregate_type, aggregate_id, event_type"),
            ("{payload}", "\"payload\" is not one of id, aggregate_type, aggregate_id, event_type"),
            ("{id:upper}", "unknown modifier \"upper\": the only one is lower"),
        ];
        for (text, expected) in rows {
            assert_eq!(Template::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
