//! A topic template: text and `{column}` or `{column:lower}`.

use std::fmt;

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

/// As it is configured.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Column { role, lower: false } => write!(f, "{{{}}}", role.name()),
            Part::Column { role, lower: true } => write!(f, "{{{}:lower}}", role.name()),
        })
    }
}

/// Says whether a text has these parts, in order and with nothing else.
fn fits(parts: &[Part], text: &str) -> bool {
    match parts.split_first() {
        None => text.is_empty(),
        Some((Part::Text(fixed), rest)) => text.strip_prefix(fixed.as_str()).is_some_and(|text| fits(rest, text)),
        Some((Part::Column { lower, .. }, rest)) => (0..=text.len()).any(|end| {
            let Some((value, after)) = text.split_at_checked(end) else { return false };
            !(*lower && value.bytes().any(|byte| byte.is_ascii_uppercase())) && fits(rest, after)
        }),
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

    /// Says whether some row gives this topic.
    pub(super) fn fits(&self, topic: &str) -> bool {
        fits(&self.0, topic)
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
    fn a_topic_fits_a_template_if_some_row_gives_it() {
        let rows = [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("{aggregate_type:lower}-events", "order-events", true),
            ("{aggregate_type:lower}-events", "order-events-events", true),
            ("{aggregate_type:lower}-events", "Order-events", false),
            ("{aggregate_type}-events", "Order-events", true),
            ("{aggregate_type:lower}-events", "order-events.dlq", false),
            ("a.{aggregate_type}.{event_type}", "a.b.c.d", true),
            ("a.{aggregate_type}.{event_type}", "a.b", false),
        ];
        for (template, topic, expected) in rows {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.fits(topic), expected, "{template} {topic}");
            assert_eq!(parsed.to_string(), template);
        }
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
