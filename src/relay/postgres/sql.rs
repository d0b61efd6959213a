//! Quoting of identifiers and literals.

/// Quotes an identifier.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a literal.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a table's name, with its schema.
#[must_use]
pub fn quote_table((schema, table): (&str, &str)) -> String {
    format!("{}.{}", quote(schema), quote(table))
}
