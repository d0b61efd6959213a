//! The options of `[[outbox]]`: the table, and how its rows become records.

use serde::Deserialize;
use serde::Serialize;

use crate::relay::record::row::Role;

use super::placement::Placement;

/// One outbox table. The preset provides the defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The table, with its schema.
    pub table: String,
    /// Earlier names of the table, with their schema: WAL has the name of the time when it was written.
    pub renamed_from: Vec<String>,
    pub preset: Preset,
    /// The topic: text and `{column}` or `{column:lower}`, where a column is one of the roles under `columns`.
    pub topic: Option<String>,
    /// The role of the column that becomes the key.
    pub key: Option<String>,
    /// walrelay's headers of a record, in this order.
    pub headers: Option<Vec<Header>>,
    /// The source of the record's timestamp.
    pub timestamp: Option<Timestamp>,
    /// The column with the partition number.
    pub partition: Option<ColumnNames>,
    /// The columns that become headers, in order; only for the preset `debezium`.
    pub placements: Vec<Placement>,
    /// Whether a payload of white space becomes a record without a value, as NULL does; only for the preset
    /// `debezium`.
    pub tombstone_on_empty_payload: bool,
    /// The names of the columns.
    pub columns: Columns,
    /// The allowed topics; empty means any valid one.
    pub allowed_topics: Vec<String>,
}

/// The name of a column, or several names of which the table has one at a time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged, expecting = "a column's name, or a list of the names that it may have")]
pub enum ColumnNames {
    /// One name.
    One(String),
    /// One of these.
    Any(Vec<String>),
}

impl ColumnNames {
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Any(names) => names,
        }
    }

    /// Says whether there is at least one name, and none is empty or repeated.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        let names = self.names();
        let is_fit =
            |(place, name): (usize, &String)| !name.is_empty() && !names.iter().take(place).any(|other| other == name);
        !names.is_empty() && names.iter().enumerate().all(is_fit)
    }
}

impl Columns {
    /// Gives the names that are configured, each with its option.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, Option<&ColumnNames>); 9] {
        [
            ("id", self.id.as_ref()),
            ("aggregate_type", self.aggregate_type.as_ref()),
            ("aggregate_id", self.aggregate_id.as_ref()),
            ("event_type", self.event_type.as_ref()),
            ("payload", self.payload.as_ref()),
            ("headers", self.headers.as_ref()),
            ("created_at", self.created_at.as_ref()),
            ("sequence", self.sequence.as_ref()),
            ("published_at", self.published_at.as_ref()),
        ]
    }
}

/// A set of defaults for an outbox table.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The table of `sql/outbox.sql`.
    #[default]
    Walrelay,
    /// The table and the records of Debezium's outbox event router.
    Debezium,
}

impl Preset {
    /// Gives the name of a role's column.
    #[must_use]
    pub const fn column(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::Debezium, Role::AggregateType) => "aggregatetype",
            (Self::Debezium, Role::AggregateId) => "aggregateid",
            (Self::Debezium, Role::EventType) => "type",
            (Self::Walrelay | Self::Debezium, _) => role.name(),
        }
    }

    /// Gives the template of the topic.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Walrelay => "{aggregate_type:lower}-events",
            Self::Debezium => "outbox.event.{aggregate_type}",
        }
    }

    /// Gives walrelay's headers of a record.
    #[must_use]
    pub fn headers(self) -> Vec<Header> {
        match self {
            Self::Walrelay => vec![Header::EventId, Header::EventType, Header::ProducedAt],
            Self::Debezium => Vec::new(),
        }
    }

    /// Says whether the column `headers` is read where it is not configured.
    #[must_use]
    pub const fn has_headers(self) -> bool {
        match self {
            Self::Walrelay => true,
            Self::Debezium => false,
        }
    }
}

/// One of walrelay's headers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// The event's id.
    EventId,
    /// The event's type.
    EventType,
    /// The commit time, RFC 3339 in UTC.
    ProducedAt,
}

/// The source of the record's timestamp.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timestamp {
    /// The commit time; the same at every repetition.
    #[default]
    Commit,
    /// The column `created_at`.
    CreatedAt,
    /// The time of sending; differs at a repetition.
    Now,
}

/// The names of the columns, by role.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The event's id.
    pub id: Option<ColumnNames>,
    /// The type of the aggregate.
    pub aggregate_type: Option<ColumnNames>,
    /// The id of the aggregate.
    pub aggregate_id: Option<ColumnNames>,
    /// The type of the event.
    pub event_type: Option<ColumnNames>,
    /// The event's payload.
    pub payload: Option<ColumnNames>,
    /// A JSON object of further headers.
    pub headers: Option<ColumnNames>,
    /// When the row was written.
    pub created_at: Option<ColumnNames>,
    /// The order of a key's rows; only for mode `poll`.
    pub sequence: Option<ColumnNames>,
    /// When the row was published, NULL until then; only for mode `poll`, which also writes it.
    pub published_at: Option<ColumnNames>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            table: "public.outbox_events".to_owned(),
            renamed_from: Vec::new(),
            preset: Preset::default(),
            topic: None,
            key: None,
            headers: None,
            timestamp: None,
            partition: None,
            placements: Vec::new(),
            tombstone_on_empty_payload: false,
            columns: Columns::default(),
            allowed_topics: Vec::new(),
        }
    }
}
