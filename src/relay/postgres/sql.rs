//! Quoting of identifiers and literals.

/// Quotes an identifier.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a literal. A backslash is one whatever `standard_conforming_strings` is.
#[must_use]
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Quotes a text with dollars and a tag that it does not contain.
#[must_use]
pub fn dollar_quote(text: &str) -> String {
    let mut tag = "$walrelay$".to_owned();
    let mut number = 0_u32;
    while text.contains(&tag) {
        number += 1;
        tag = format!("$walrelay{number}$");
    }
    format!("{tag}{text}{tag}")
}

/// Quotes a table's name, with its schema.
#[must_use]
pub fn quote_table((schema, table): (&str, &str)) -> String {
    format!("{}.{}", quote(schema), quote(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_stays_one_whatever_it_contains() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'"), r"E'a\\'''");
        assert_eq!(dollar_quote("a"), "$walrelay$a$walrelay$");
        assert_eq!(dollar_quote("$walrelay$"), "$walrelay1$$walrelay$$walrelay1$");
    }
}
