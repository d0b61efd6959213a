//! From a row to a record: topic, key, value, headers, timestamp, partition.
//!
//! A row's values never become identifiers by themselves: a topic passes Kafka's own rule and the allow-list, a header name
//! its pattern, and nothing is rewritten to make it fit. A row that cannot become a record gives a [`Reason`]
//! instead. The same row gives the same record, at every repetition: there is no clock here.

mod config;
mod headers;
mod template;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;

use crate::relay::decode::pgoutput::Micros;
use crate::relay::record::row::Name;
use crate::relay::record::row::Names;
use crate::relay::record::row::Role;
use crate::relay::record::row::Row;

pub use config::ColumnNames;
pub use config::Columns;
pub use config::Config;
pub use config::Header;
pub use config::Preset;
pub use config::Timestamp;
pub use headers::Headers;
pub use template::BadTemplate;
use template::Template;
pub use value::Written;
pub use value::unix_micros;
pub use value::written_at;

/// What is handed to Kafka, borrowed from the row and from [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic, legal and allowed.
    pub topic: &'a str,
    /// The key; records of one key go to one partition.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a Headers,
    /// The timestamp in milliseconds of the Unix clock; none is the moment of sending.
    pub timestamp_millis: Option<i64>,
    /// The partition, if the row chooses it.
    pub partition: Option<i32>,
}

impl Record<'_> {
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

/// Buffers that are used again for every record.
#[derive(Debug, Default)]
pub struct Scratch {
    topic: String,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Headers,
    produced_at: (Micros, String),
}

/// Why a row cannot become a record. The text holds no payload, and nothing of the row that is not escaped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// A value is missing that the record needs.
    #[error("{0} is NULL")]
    Null(&'static str),
    /// A value is not what its type says.
    #[error("{role} is not a legal {expected}")]
    Illegal {
        /// Whose value.
        role: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The topic breaks Kafka's rule.
    #[error(
        "the topic {0:?} is not legal: 1 to 249 of A-Z a-z 0-9 . _ -, not \".\" or \"..\", not starting with \"__\""
    )]
    Topic(String),
    /// The topic is not in the allow-list.
    #[error("the topic {0:?} is not among allowed_topics")]
    TopicNotAllowed(String),
    /// The row's headers cannot be headers.
    #[error("headers: {0}")]
    Headers(String),
    /// The partition is negative or too large.
    #[error("partition {0} is not a partition number")]
    Partition(i64),
    /// The topic has fewer partitions.
    #[error("topic {topic} has no partition {partition} (key {})", key.as_deref().unwrap_or("none"))]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition that the row chooses.
        partition: i32,
        /// The record's key, escaped and cut.
        key: Option<String>,
    },
    /// The record is larger than the producer takes.
    #[error("the record has {size} bytes, more than the {limit} of message.max.bytes, which is walrelay's own limit")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// How the rows of one outbox table become records.
#[derive(Clone, Debug)]
pub struct Route {
    schema: String,
    table: String,
    /// Every name of the table, with its schema: the configured one first.
    tables: Vec<(String, String)>,
    names: Names,
    topic: Template,
    key: Role,
    headers: Vec<Header>,
    timestamp: Timestamp,
    allowed_topics: BTreeSet<String>,
}

impl Route {
    /// Fills in the preset and checks the template.
    pub fn new(config: &Config) -> Result<Self, BadTemplate> {
        let topic = config.topic.as_deref().unwrap_or(match config.preset {
            Preset::Walrelay => "{aggregate_type:lower}-events",
        });
        let topic = Template::parse(topic)?;
        let key = config.key.as_deref().unwrap_or(Role::AggregateId.name());
        let key = Role::named(key).ok_or_else(|| BadTemplate::unknown_column(key))?;
        let headers =
            config.headers.clone().unwrap_or_else(|| vec![Header::EventId, Header::EventType, Header::ProducedAt]);
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
        let mut names = Names::default();
        for (role, name) in Role::ALL.into_iter().zip(&mut names.0) {
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
            let is_read = required || role == Role::Headers;
            let columns = is_read.then(|| configured(given.as_ref(), role.name()));
            *name = columns.map(|columns| Name { columns, required });
        }
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
        })
    }

    /// Makes a route for rows that are read from the table: there is no commit time, so it must say when a row was written.
    pub fn for_polling(config: &Config) -> Result<Self, BadTemplate> {
        let mut route = Self::new(config)?;
        let columns = configured(config.columns.created_at.as_ref(), Role::CreatedAt.name());
        for (_, name) in Role::ALL.into_iter().zip(&mut route.names.0).filter(|(role, _)| *role == Role::CreatedAt) {
            *name = Some(Name { columns: columns.clone(), required: true });
        }
        Ok(route)
    }

    /// Takes one of the names that the table may have for its own.
    #[must_use]
    pub fn named(&self, schema: &str, table: &str) -> Self {
        Self { schema: schema.to_owned(), table: table.to_owned(), ..self.clone() }
    }

    /// Keeps, of the names that a column may have, the one that the table has.
    #[must_use]
    pub fn settled(mut self, columns: &[String]) -> Self {
        for name in self.names.0.iter_mut().flatten() {
            if let Some(found) = name.columns.iter().find(|name| columns.contains(name)) {
                name.columns = vec![found.clone()];
            }
        }
        self
    }

    /// Says whether this is the table, by one of its names.
    #[must_use]
    pub fn is_for(&self, schema: &str, table: &str) -> bool {
        self.tables.iter().any(|(own_schema, own)| own_schema == schema && own == table)
    }

    /// Gives every name that the table may have, with its schema.
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

    /// Says whether the time of a record is when its row was made.
    #[must_use]
    pub fn tells_when_rows_were_made(&self) -> bool {
        self.timestamp == Timestamp::CreatedAt
    }

    /// Gives the names of the columns it reads.
    #[must_use]
    pub const fn names(&self) -> &Names {
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

    /// Gives the name of the column of a role; of several the first one.
    #[must_use]
    pub fn column(&self, role: Role) -> &str {
        let name = self.names.0.get(role as usize).and_then(Option::as_ref);
        name.and_then(|name| name.columns.first()).map_or(role.name(), String::as_str)
    }

    /// Gives the topic if it is the same for every row.
    #[must_use]
    pub fn fixed_topic(&self) -> Option<&str> {
        self.topic.fixed()
    }

    /// Makes the record of a row whose transaction committed at `committed_at`.
    pub fn record<'a>(
        &self,
        row: &Row<'a>,
        committed_at: Micros,
        scratch: &'a mut Scratch,
    ) -> Result<Record<'a>, Reason> {
        self.topic.render(row, &mut scratch.topic)?;
        self.check_topic(&scratch.topic)?;
        scratch.key.clear();
        let has_key = value::append_text(row, self.key, &mut scratch.key)?;
        self.fill_headers(row, committed_at, scratch)?;
        let value = value::payload(row, &mut scratch.value)?;
        let timestamp_millis = match self.timestamp {
            Timestamp::Commit => Some(unix_micros(committed_at) / 1_000),
            Timestamp::CreatedAt => Some(value::created_at(row, committed_at)? / 1_000),
            Timestamp::Now => None,
        };
        Ok(Record {
            topic: &scratch.topic,
            // Java and librdkafka place an empty key differently, so it counts as none.
            key: Some(scratch.key.as_slice()).filter(|key| has_key && !key.is_empty()),
            value: value.map(|value| value.bytes(&scratch.value)),
            headers: &scratch.headers,
            timestamp_millis,
            partition: value::partition(row)?,
        })
    }

    fn check_topic(&self, topic: &str) -> Result<(), Reason> {
        let legal = (1..=249).contains(&topic.len())
            && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && topic != "."
            && topic != ".."
            && !topic.starts_with("__");
        if !legal {
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

/// Gives the names of a column: as configured, or the one of the preset.
#[must_use]
pub fn configured(given: Option<&ColumnNames>, preset: &str) -> Vec<String> {
    given.map_or_else(|| vec![preset.to_owned()], |given| given.names().to_vec())
}

/// Gives the event's id, escaped and cut, for a message to a person.
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
         --partitions {}`, then restart; the WAL keeps the row as it was written, and walrelay does not skip the event",
        i64::from(partition) + 1
    )
}
