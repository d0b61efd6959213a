//! The statements of an inbox. Only names and literals that this file quotes are in their text.

use crate::table::Table;
use crate::table::quote;

/// How many rows one statement deletes.
pub(super) const PRUNED_ROWS: u64 = 10_000;
/// How many ids one statement inserts. PostgreSQL accepts 65,535 parameters.
pub(super) const INSERTED_ROWS: usize = 1_000;
/// The suffix of the index's name.
const INDEX_SUFFIX: &str = "_seen_at";
/// The length of the table's part in the index's name. The whole name has at most 63 bytes.
const INDEXED_NAME_BYTES: usize = 55;

/// Returns the script that creates a table.
pub(super) fn script(table: &Table) -> String {
    let mut end = table.name().len().min(INDEXED_NAME_BYTES);
    while !table.name().is_char_boundary(end) {
        end -= 1;
    }
    let name = table.name().get(..end).unwrap_or_default();
    let (schema, index, table) = (quote(table.schema()), quote(&format!("{name}{INDEX_SUFFIX}")), table.quoted());
    format!(
        "-- The inbox: the events that each consumer has handled. Rows are inserted in the transaction of the handler.
CREATE SCHEMA IF NOT EXISTS {schema};

CREATE TABLE IF NOT EXISTS {table} (
    consumer text        NOT NULL,
    event_id text        NOT NULL COLLATE \"C\",
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);

-- For pruning by age. A block range index costs almost nothing on insert.
CREATE INDEX IF NOT EXISTS {index} ON {table} USING brin (seen_at);
"
    )
}

/// Inserts rows of these pairs of expressions. Their type is unknown, so that PostgreSQL infers that of the column.
pub(super) fn insert<'a>(table: &Table, rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let rows: Vec<String> = rows.into_iter().map(|(consumer, id)| format!("({consumer}, {id})")).collect();
    let (table, rows) = (table.quoted(), rows.join(", "));
    format!("INSERT INTO {table} (consumer, event_id) VALUES {rows} ON CONFLICT DO NOTHING")
}

/// Inserts so many rows of the first parameter and one of those after it, and returns the ids that are new.
pub(super) fn insert_each(table: &Table, count: usize) -> String {
    let parameters: Vec<String> = (2..count + 2).map(|number| format!("${number}")).collect();
    returning(&insert(table, parameters.iter().map(|id| ("$1", id.as_str()))))
}

/// Lets an INSERT return the ids that are new.
pub(super) fn returning(insert: &str) -> String {
    format!("{insert} RETURNING event_id::text")
}

/// Deletes a batch of the rows of a consumer ($1) that are older than so many seconds ($2).
pub(super) fn prune(table: &Table) -> String {
    let table = table.quoted();
    // In no order: to sort the remaining rows for each batch would cost quadratic time.
    format!(
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY (
             SELECT ctid FROM {table}
             WHERE consumer = $1 AND seen_at < now() - make_interval(secs => $2)
             LIMIT {PRUNED_ROWS}))"
    )
}

/// Returns a literal. Its ASCII characters other than a-z, A-Z, 0-9, `-`, `_` and `.` are escaped by number, so that no
/// setting of the session gives another meaning to any part of it.
#[cfg(any(feature = "sqlx", test))]
pub(super) fn literal(text: &str) -> String {
    use std::fmt::Write as _;

    let mut literal = String::with_capacity(text.len() + 3);
    literal.push_str("E'");
    for char in text.chars() {
        if !char.is_ascii() || char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.') {
            literal.push(char);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(literal, "\\x{:02X}", u32::from(char));
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        let table = Table::parse("Shop.in\"box").unwrap();
        let insert = insert(&table, [("$1", "$2")]);
        let into = "INSERT INTO \"Shop\".\"in\"\"box\" (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        assert_eq!(insert, into);
        assert!(insert_each(&table, 2).contains("VALUES ($1, $2), ($1, $3) ON CONFLICT"));
        assert_eq!(literal("a-1_B.'"), "E'a-1_B.\\x27'");
        assert_eq!(literal("\\é"), "E'\\x5Cé'");
    }

    #[test]
    fn the_name_of_the_index_differs_from_that_of_the_table() {
        let name = format!("{}é{}", "x".repeat(54), "y".repeat(7));
        let script = script(&Table::parse(&format!("s.{name}")).unwrap());
        assert!(script.contains(&format!("INDEX IF NOT EXISTS \"{}_seen_at\" ON", "x".repeat(54))), "{script}");
    }
}
