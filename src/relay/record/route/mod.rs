//! Converts a row to a record: topic, key, value, headers, timestamp, partition.
//!
//! A row's values are validated before they become identifiers: a topic by Kafka's rule and the allow-list, a header
//! name by its pattern; nothing is rewritten to make it valid. A row that cannot become a record gives a [`Reason`].
//! The same row gives the same record at every repetition: there is no clock here.

mod config;
mod debezium;
mod headers;
mod placement;
mod reason;
mod template;
#[cfg(test)]
mod tests;
mod topic;
mod value;

use std::collections::BTreeSet;

use crate::relay::decode::pgoutput::Micros;
use crate::relay::record::row::Name;
use crate::relay::record::row::Placed;
use crate::relay::record::row::Role;
use crate::relay::record::row::RoleNames;
use crate::relay::record::row::Row;

pub use config::ColumnNames;
pub use config::Columns;
pub use config::Config;
pub use config::Header;
pub use config::Preset;
pub use config::Timestamp;
use debezium::Debezium;
pub use headers::Headers;
pub use placement::BadPlacement;
pub use placement::Placement;
pub use reason::Reason;
pub use template::BadTemplate;
use template::Template;
pub use topic::is_valid as is_valid_topic;
pub use topic::mistakes;
pub use value::Written;
pub use value::unix_micros;
pub use value::written_at;

/// A record to publish, borrowed from the row and from [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub struct ProducerRecord<'a> {
    /// The topic, valid and allowed.
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a Headers,
    /// The timestamp in milliseconds of the Unix clock; none means the time of sending.
    pub timestamp_millis: Option<i64>,
    /// The partition, if the row has one.
    pub partition: Option<i32>,
}

impl ProducerRecord<'_> {
    /// Gives the bytes of key, value and headers.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.size()
    }

    /// Says that the topic lacks the partition that the row chooses.
    #[must_use]
    pub fn no_partition(&self, partition: i32) -> Reason {
        Reason::NoPartition { topic: self.topic.to_owned(), partition, key: self.key.map(printable) }
    }
}

/// Reusable buffers.
#[derive(Debug, Default)]
pub struct Scratch {
    topic: String,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Headers,
    produced_at: (Micros, String),
}

/// Converts the rows of one outbox table to records.
#[derive(Clone, Debug)]
pub struct Route {
    schema: String,
    table: String,
    /// Every name of the table, with its schema: the configured one first.
    tables: Vec<(String, String)>,
    names: RoleNames,
    topic: Template,
    key: Role,
    headers: Vec<Header>,
    timestamp: Timestamp,
    allowed_topics: BTreeSet<String>,
    preset: Preset,
    /// None for the preset `walrelay`.
    debezium: Option<Debezium>,
}

impl Route {
    /// Applies the preset and parses the template.
    pub fn new(config: &Config) -> Result<Self, BadTemplate> {
        let preset = config.preset;
        let topic = Template::parse(config.topic.as_deref().unwrap_or(preset.topic()))?;
        let key = config.key.as_deref().unwrap_or(Role::AggregateId.name());
        let key = Role::named_in_routes(key).ok_or_else(|| BadTemplate::unknown_column(key))?;
        let headers = config.headers.clone().unwrap_or_else(|| preset.headers());
        let timestamp = config.timestamp.unwrap_or_default();
        let split = |name: &str| {
            let (schema, table) = name.split_once('.').unwrap_or(("public", name));
            (schema.to_owned(), table.to_owned())
        };
        let (schema, table) = split(&config.table);
        let tables = [&config.table].into_iter().chain(&config.renamed_from).map(|name| split(name)).collect();

        let uses = |role: Role| match role {
            Role::Id | Role::Payload => true,
            Role::EventType => headers.contains(&Header::EventType) || key == role || topic.uses(role),
            Role::CreatedAt => timestamp == Timestamp::CreatedAt,
            Role::AggregateType | Role::AggregateId | Role::Headers | Role::Partition => {
                key == role || topic.uses(role)
            }
        };
        let columns = &config.columns;
        let mut names = RoleNames::default();
        for (role, name) in Role::ALL.into_iter().zip(&mut names.roles) {
            let given = match role {
                Role::Id => &columns.id,
                Role::AggregateType => &columns.aggregate_type,
                Role::AggregateId => &columns.aggregate_id,
                Role::EventType => &columns.event_type,
                Role::Payload => &columns.payload,
                Role::Headers => &columns.headers,
                Role::CreatedAt => &columns.created_at,
                Role::Partition => &config.partition,
            };
            let required = given.is_some() || uses(role);
            let is_read = required || (role == Role::Headers && preset.has_headers());
            let columns = is_read.then(|| configured(given.as_ref(), preset.column(role)));
            *name = columns.map(|columns| Name { columns, required });
            if name.is_none() {
                names.unused.push(preset.column(role));
            }
        }
        let placed = |placement: &Placement| Placed {
            name: Name { columns: placement.columns.clone(), required: true },
            header: placement.header.clone(),
        };
        names.placed = config.placements.iter().map(placed).collect();
        Ok(Self {
            schema,
            table,
            tables,
            names,
            topic,
            key,
            headers,
            timestamp,
            allowed_topics: config.allowed_topics.iter().cloned().collect(),
            preset,
            debezium: match preset {
                Preset::Walrelay => None,
                Preset::Debezium => Some(Debezium::new(config)),
            },
        })
    }

    /// Creates a route for rows that are read from the table: they need `created_at`, since there is no commit time.
    pub fn for_polling(config: &Config) -> Result<Self, BadTemplate> {
        let mut route = Self::new(config)?;
        let columns = configured(config.columns.created_at.as_ref(), Role::CreatedAt.name());
        for (_, name) in Role::ALL.into_iter().zip(&mut route.names.roles).filter(|(role, _)| *role == Role::CreatedAt)
        {
            *name = Some(Name { columns: columns.clone(), required: true });
        }
        Ok(route)
    }

    /// Gives the route with only this name of the table.
    #[must_use]
    pub fn named(&self, schema: &str, table: &str) -> Self {
        Self { schema: schema.to_owned(), table: table.to_owned(), ..self.clone() }
    }

    /// Gives the route with only the existing name of each column.
    #[must_use]
    pub fn settled(mut self, columns: &[String]) -> Self {
        let placed = self.names.placed.iter_mut().map(|placed| &mut placed.name);
        for name in self.names.roles.iter_mut().flatten().chain(placed) {
            if let Some(found) = name.columns.iter().find(|name| columns.contains(name)) {
                name.columns = vec![found.clone()];
            }
        }
        self
    }

    /// Says whether this is one of the table's names.
    #[must_use]
    pub fn is_for(&self, schema: &str, table: &str) -> bool {
        self.tables.iter().any(|(own_schema, own)| own_schema == schema && own == table)
    }

    /// Gives every possible name of the table, with its schema.
    #[must_use]
    pub fn tables(&self) -> &[(String, String)] {
        &self.tables
    }

    /// Gives the schema and the name of the table.
    #[must_use]
    pub fn table(&self) -> (&str, &str) {
        (&self.schema, &self.table)
    }

    /// Gives the table's name with its schema, for a message.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// Says whether the timestamp of a record is `created_at`.
    #[must_use]
    pub fn tells_when_rows_were_made(&self) -> bool {
        self.timestamp == Timestamp::CreatedAt
    }

    #[must_use]
    pub const fn preset(&self) -> Preset {
        self.preset
    }

    /// Gives the names of its columns.
    #[must_use]
    pub const fn names(&self) -> &RoleNames {
        &self.names
    }

    /// Gives the name of the column that becomes the key.
    #[must_use]
    pub fn key_column(&self) -> &str {
        self.column(self.key)
    }

    /// Gives the name of the column that is the event's id.
    #[must_use]
    pub fn id_column(&self) -> &str {
        self.column(Role::Id)
    }

    /// Gives the name of a role's column; the first one of several.
    #[must_use]
    pub fn column(&self, role: Role) -> &str {
        let name = self.names.roles.get(role as usize).and_then(Option::as_ref);
        name.and_then(|name| name.columns.first()).map_or(self.preset.column(role), String::as_str)
    }

    /// Gives the topics that are known without a row: the only one, or the allowed ones.
    #[must_use]
    pub fn known_topics(&self) -> Vec<String> {
        match self.fixed_topic() {
            Some(topic) => vec![topic.to_owned()],
            None => self.allowed_topics.iter().cloned().collect(),
        }
    }

    /// Gives the SQL expression of a row's topic. `quote` is for names of columns, `literal` for texts.
    #[must_use]
    pub fn topic_expression(&self, quote: fn(&str) -> String, literal: fn(&str) -> String) -> String {
        self.topic.expression(|role| quote(self.column(role)), literal)
    }

    /// Gives the topic, if it is the same for every row.
    #[must_use]
    pub fn fixed_topic(&self) -> Option<&str> {
        self.topic.fixed()
    }

    /// Says whether a row can go to a topic with this name.
    #[must_use]
    pub fn may_publish_to(&self, topic: &str) -> bool {
        self.topic.fits(topic) && self.check_topic(topic).is_ok()
    }

    /// Describes its topics: their names as far as they are known, or the template.
    #[must_use]
    pub fn topics_described(&self) -> String {
        let known = self.known_topics();
        if known.is_empty() { self.topic.to_string() } else { known.join(" or ") }
    }

    /// Creates the record of a row whose transaction committed at `committed_at`.
    pub fn record<'a>(
        &self,
        row: &Row<'a>,
        committed_at: Micros,
        scratch: &'a mut Scratch,
    ) -> Result<ProducerRecord<'a>, Reason> {
        self.topic.render(row, &mut scratch.topic)?;
        self.check_topic(&scratch.topic)?;
        scratch.key.clear();
        let has_key = value::append_text(row, self.key, &mut scratch.key)?;
        self.fill_headers(row, committed_at, scratch)?;
        let value = value::payload(row, &mut scratch.value)?.map(|value| value.bytes(&scratch.value));
        let value = match &self.debezium {
            None => value,
            Some(debezium) => value.filter(|value| !debezium.is_none(row, value)),
        };
        let timestamp_millis = match self.timestamp {
            Timestamp::Commit => Some(unix_micros(committed_at) / 1_000),
            Timestamp::CreatedAt => Some(value::created_at(row, committed_at)? / 1_000),
            Timestamp::Now => None,
        };
        Ok(ProducerRecord {
            topic: &scratch.topic,
            // An empty key counts as none, but Debezium keeps it.
            key: Some(scratch.key.as_slice()).filter(|key| has_key && (!key.is_empty() || self.debezium.is_some())),
            value,
            headers: &scratch.headers,
            timestamp_millis,
            partition: value::partition(row)?,
        })
    }

    fn check_topic(&self, topic: &str) -> Result<(), Reason> {
        if !topic::is_valid(topic) {
            return Err(Reason::Topic(topic.chars().take(80).collect()));
        }
        if !self.allowed_topics.is_empty() && !self.allowed_topics.contains(topic) {
            return Err(Reason::TopicNotAllowed(topic.to_owned()));
        }
        Ok(())
    }

    fn fill_headers(&self, row: &Row<'_>, committed_at: Micros, scratch: &mut Scratch) -> Result<(), Reason> {
        let headers = &mut scratch.headers;
        headers.clear();
        if let Some(debezium) = &self.debezium {
            debezium.fill(row, headers)?;
        }
        for header in &self.headers {
            match header {
                Header::EventId => headers.push_text("event_id", row, Role::Id)?,
                Header::EventType => headers.push_text("event_type", row, Role::EventType)?,
                Header::ProducedAt => {
                    let (of, text) = &mut scratch.produced_at;
                    if *of != committed_at || text.is_empty() {
                        *of = committed_at;
                        *text = value::rfc3339(committed_at);
                    }
                    headers.push("produced_at", text.as_bytes());
                }
            }
        }
        headers.push_object(row)
    }
}

/// Gives the configured names of a column, or the one of the preset.
#[must_use]
pub fn configured(given: Option<&ColumnNames>, preset: &str) -> Vec<String> {
    given.map_or_else(|| vec![preset.to_owned()], |given| given.names().to_vec())
}

/// Gives the event's id, escaped and truncated, for a message.
#[must_use]
pub fn event_id(row: &Row<'_>) -> String {
    let mut text = Vec::new();
    match value::append_text(row, Role::Id, &mut text) {
        Ok(true) => printable(&text),
        _ => "(no id)".to_owned(),
    }
}

/// Escapes and cuts a value of a row, for a message to a person.
#[must_use]
pub fn printable(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(64).flat_map(char::escape_default).collect()
}

/// Says what to do where a topic lacks a partition that a row chooses.
#[must_use]
pub fn add_partitions(topic: &str, partition: i32) -> String {
    format!(
        "if the partition is meant, run `kafka-topics.sh --bootstrap-server BROKER --alter --topic {topic} \
         --partitions {}`",
        i64::from(partition) + 1
    )
}
