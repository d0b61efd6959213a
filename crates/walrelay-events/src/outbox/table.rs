//! The outbox table and its columns, and the INSERT statement.

use std::sync::Arc;
use std::sync::LazyLock;

use crate::table::BadName;
use crate::table::Table;
use crate::table::check;
use crate::table::quote;

/// The default table, whose statement is built once.
static DEFAULT: LazyLock<Outbox> =
    LazyLock::new(|| Outbox::build(&Table::new("public", "outbox_events"), &Columns::default()));

/// An outbox table. The default is `public.outbox_events` with the columns of the preset `walrelay`. It must match the
/// relay's `[[outbox]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outbox {
    table: String,
    sql: Arc<str>,
    uses_prepared_statements: bool,
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
        DEFAULT.clone()
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
        let table = Table::parse(table)?;
        for (name, _) in columns.sources() {
            check("column", name)?;
        }
        Ok(Self::build(&table, columns))
    }

    /// Prepares no statements on sqlx, for a pooler in transaction mode that does not know them (PgBouncer before
    /// 1.21). Each statement then takes two round trips. Without this only the first one of a connection takes two. On
    /// tokio-postgres it changes nothing.
    #[must_use]
    pub fn without_prepared_statements(mut self) -> Self {
        self.uses_prepared_statements = false;
        self
    }

    fn build(table: &Table, columns: &Columns) -> Self {
        let (names, values): (Vec<_>, Vec<_>) = columns.sources().map(|(name, value)| (quote(name), value)).unzip();
        // Parameters are text, so that clients need not know the column types. Each element of the seven arrays is a
        // row.
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], \
             $5::text[], $6::text[], $7::text[]) WITH ORDINALITY \
             AS e (id, aggregate_type, aggregate_id, event_type, payload, headers, occurred_at, number) \
             ORDER BY e.number",
            table.quoted(),
            names.join(", "),
            values.join(", ")
        );
        Self { table: table.to_string(), sql: sql.into(), uses_prepared_statements: true }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    pub(super) fn walrelay() -> &'static Self {
        &DEFAULT
    }

    pub(super) const fn sql(&self) -> &Arc<str> {
        &self.sql
    }

    #[cfg(feature = "sqlx")]
    pub(super) const fn uses_prepared_statements(&self) -> bool {
        self.uses_prepared_statements
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
        assert!(Outbox::new("shop.", &Columns::default()).is_err());
        let columns = Columns { headers: Some(String::new()), ..Columns::default() };
        let error = Outbox::new("events", &columns).unwrap_err();
        assert_eq!(error.to_string(), "invalid name \"\" of the column: expected 1 to 63 bytes without U+0000");
    }
}
