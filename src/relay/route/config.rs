//! The options of `[[outbox]]`: which table, and how its rows become records.

use serde::Deserialize;
use serde::Serialize;

/// One outbox table. What is not said comes from the preset.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The table, with its schema.
    pub table: String,
    /// The shape that fills in whatever is not said here.
    pub preset: Preset,
    /// The topic: text and `{column}` or `{column:lower}`, where a column is one of the roles under `columns`.
    pub topic: Option<String>,
    /// The role of the column that becomes the key.
    pub key: Option<String>,
    /// Which of our own headers a record carries, in this order.
    pub headers: Option<Vec<Header>>,
    /// Where the record's timestamp comes from.
    pub timestamp: Option<Timestamp>,
    /// A column, by its name, that holds the partition to write to.
    pub partition: Option<String>,
    /// The names of the columns.
    pub columns: Columns,
    /// The topics that may be written; empty means any legal one.
    pub allowed_topics: Vec<String>,
}

/// A shape of outbox table.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The table of `sql/outbox.sql`.
    #[default]
    Walrelay,
}

/// A header of ours.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// The event's id.
    EventId,
    /// The event's type.
    EventType,
    /// When the event's transaction committed, RFC 3339 in UTC.
    ProducedAt,
}

/// Where the record's timestamp comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timestamp {
    /// The transaction's commit time; the same at every repetition.
    #[default]
    Commit,
    /// The column `created_at`.
    CreatedAt,
    /// The moment of sending; differs at a repetition.
    Now,
}

/// The names of the columns, by role.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The event's id.
    pub id: Option<String>,
    /// What kind of thing the event is about.
    pub aggregate_type: Option<String>,
    /// Which one the event is about.
    pub aggregate_id: Option<String>,
    /// What happened.
    pub event_type: Option<String>,
    /// The event itself.
    pub payload: Option<String>,
    /// A JSON object of further headers.
    pub headers: Option<String>,
    /// When the row was written.
    pub created_at: Option<String>,
    /// The order of a key's rows; only polling reads it.
    pub sequence: Option<String>,
    /// When the row was published, NULL until then; only polling reads and writes it.
    pub published_at: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            table: "public.outbox_events".to_owned(),
            preset: Preset::default(),
            topic: None,
            key: None,
            headers: None,
            timestamp: None,
            partition: None,
            columns: Columns::default(),
            allowed_topics: Vec::new(),
        }
    }
}
