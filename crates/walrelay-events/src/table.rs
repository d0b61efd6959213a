//! The name of a table in any schema, quoted for SQL.

use std::fmt;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// PostgreSQL truncates longer names.
const MAX_NAME_BYTES: usize = 63;

/// A table and its schema, each without quotes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    schema: String,
    name: String,
}

/// The name of a table or column is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid name {name:?} of the {what}: expected 1 to {MAX_NAME_BYTES} bytes without U+0000")]
pub struct BadName {
    what: &'static str,
    name: String,
}

impl Diagnose for BadName {
    fn code(&self) -> Code {
        Code::new(Exit::Configuration, 60)
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some("write the table as `schema.table` and the columns without quotes".to_owned())
    }
}

impl Table {
    /// Reads `schema.table`, or a table of `public`. The schema ends at the first dot.
    pub(crate) fn parse(table: &str) -> Result<Self, BadName> {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        check("schema", schema)?;
        check("table", name)?;
        Ok(Self::new(schema, name))
    }

    /// Names that are known to be valid.
    pub(crate) fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned() }
    }

    /// Returns both names quoted, for a statement.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Returns the schema without quotes.
    #[cfg(feature = "consumer")]
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the table's own name without quotes.
    #[cfg(feature = "consumer")]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// `schema.table`, for messages.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Refuses names that PostgreSQL would truncate or cannot store.
pub(crate) fn check(what: &'static str, name: &str) -> Result<(), BadName> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(BadName { what, name: name.chars().take(MAX_NAME_BYTES).collect() })
}

/// Quotes an identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_checked() {
        let quoted = |table: &str| Table::parse(table).map(|table| table.quoted());
        assert_eq!(quoted("events").unwrap(), "\"public\".\"events\"");
        assert_eq!(quoted("Shop.e\"v; DROP").unwrap(), "\"Shop\".\"e\"\"v; DROP\"");
        assert_eq!(quoted("a.b.c").unwrap(), "\"a\".\"b.c\"");
        let long = "x".repeat(64);
        for table in ["", ".events", "shop.", "a\0b", &long] {
            assert!(quoted(table).is_err(), "{table:?}");
        }
        let error = quoted("").unwrap_err();
        assert_eq!(error.to_string(), "invalid name \"\" of the table: expected 1 to 63 bytes without U+0000");
    }
}
