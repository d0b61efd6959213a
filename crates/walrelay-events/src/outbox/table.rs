//! The outbox table and its columns, and the INSERT statement.

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;

/// PostgreSQL truncates longer names.
const MAX_NAME_BYTES: usize = 63;

/// An outbox table. The default is `public.outbox_events` with the columns of the preset `walrelay`. It must match the
/// relay's `[[outbox]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outbox {
    table: String,
    sql: String,
}

/// The names of the columns.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Columns {
    /// The event's id: `uuid` or `text`.
    pub id: String,
    /// The aggregate type: `text`.
    pub aggregate_type: String,
    /// The aggregate id: `text`.
    pub aggregate_id: String,
    /// The event type: `text`.
    pub event_type: String,
    /// The event: `jsonb` or `json`.
    pub payload: String,
    /// Headers, with the trace context: `jsonb` or `json`. Without this column they are dropped.
    pub headers: Option<String>,
    /// When the event happened: `timestamptz`. Without this column the time is dropped.
    pub created_at: Option<String>,
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

impl Default for Columns {
    fn default() -> Self {
        Self {
            id: "id".to_owned(),
            aggregate_type: "aggregate_type".to_owned(),
            aggregate_id: "aggregate_id".to_owned(),
            event_type: "event_type".to_owned(),
            payload: "payload".to_owned(),
            headers: Some("headers".to_owned()),
            created_at: Some("created_at".to_owned()),
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::build("public", "outbox_events", &Columns::default())
    }
}

impl Outbox {
    /// Uses another table, `schema.table` or a table of `public`, and its columns. Names are written without quotes, as
    /// in the relay's configuration.
    ///
    /// ```
    /// use walrelay_events::outbox::Columns;
    /// use walrelay_events::outbox::Outbox;
    ///
    /// let mut columns = Columns::default();
    /// columns.payload = "body".to_owned();
    /// columns.headers = None;
    /// let outbox = Outbox::new("shop.events", &columns)?;
    /// # Ok::<(), walrelay_events::outbox::BadName>(())
    /// ```
    pub fn new(table: &str, columns: &Columns) -> Result<Self, BadName> {
        let (schema, table) = table.split_once('.').unwrap_or(("public", table));
        check("schema", schema)?;
        check("table", table)?;
        for (name, _) in columns.sources() {
            check("column", name)?;
        }
        Ok(Self::build(schema, table, columns))
    }

    fn build(schema: &str, table: &str, columns: &Columns) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = columns.sources().map(|(name, value)| (quote(name), value)).unzip();
        // Parameters are text, so that clients need not know the column types. Each element of the seven arrays is a
        // row.
        let sql = format!(
            "INSERT INTO {}.{} ({}) SELECT {} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], \
             $5::text[], $6::text[], $7::text[]) WITH ORDINALITY \
             AS e (id, aggregate_type, aggregate_id, event_type, payload, headers, occurred_at, number) \
             ORDER BY e.number",
            quote(schema),
            quote(table),
            names.join(", "),
            values.join(", ")
        );
        Self { table: format!("{schema}.{table}"), sql }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }
}

impl Columns {
    /// Returns each column with its value.
    fn sources(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let more = [(&self.headers, "e.headers::jsonb"), (&self.created_at, "e.occurred_at::timestamptz")];
        let more = more.into_iter().filter_map(|(name, value)| Some((name.as_deref()?, value)));
        [
            (self.id.as_str(), "e.id::uuid"),
            (&self.aggregate_type, "e.aggregate_type"),
            (&self.aggregate_id, "e.aggregate_id"),
            (&self.event_type, "e.event_type"),
            (&self.payload, "e.payload::jsonb"),
        ]
        .into_iter()
        .chain(more)
    }
}

fn check(what: &'static str, name: &str) -> Result<(), BadName> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0') {
        return Ok(());
    }
    Err(BadName { what, name: name.chars().take(MAX_NAME_BYTES).collect() })
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let columns =
            Columns { id: "i\"d; DROP".into(), headers: None, created_at: Some("At".into()), ..Columns::default() };
        let outbox = Outbox::new("shop.ev\"ents", &columns).unwrap();
        let expected = "INSERT INTO \"shop\".\"ev\"\"ents\" (\"i\"\"d; DROP\", \"aggregate_type\", \"aggregate_id\", \
                        \"event_type\", \"payload\", \"At\") SELECT e.id::uuid,";
        assert!(outbox.sql().starts_with(expected), "{}", outbox.sql());
        assert_eq!(Outbox::new("outbox_events", &Columns::default()), Ok(Outbox::default()));
        let long = "x".repeat(64);
        for table in ["", ".events", "shop.", "a\0b", &long] {
            assert!(Outbox::new(table, &Columns::default()).is_err(), "{table:?}");
        }
        let columns = Columns { headers: Some(String::new()), ..Columns::default() };
        let error = Outbox::new("events", &columns).unwrap_err();
        assert_eq!(error.to_string(), "invalid name \"\" of the column: expected 1 to 63 bytes without U+0000");
    }
}
