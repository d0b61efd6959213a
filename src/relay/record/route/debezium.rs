//! What the records of the preset `debezium` have beside those of walrelay: Debezium's outbox event router with
//! `StringConverter` and `SimpleHeaderConverter`.

use crate::relay::record::row::Kind;
use crate::relay::record::row::Role;
use crate::relay::record::row::Row;

use super::config::Config;
use super::headers::Headers;
use super::reason::Reason;

/// The header of the event's id.
const ID: &str = "id";

/// The options of the preset.
#[derive(Clone, Debug)]
pub(super) struct Debezium {
    /// The names of the headers of placed columns, in order.
    placed: Vec<String>,
    tombstone_on_empty_payload: bool,
}

impl Debezium {
    pub(super) fn new(config: &Config) -> Self {
        let placed = config.placements.iter().map(|placement| placement.header.clone()).collect();
        Self { placed, tombstone_on_empty_payload: config.tombstone_on_empty_payload }
    }

    /// Adds the event's id and the placed columns. NULL is a header without a value.
    pub(super) fn fill(&self, row: &Row<'_>, headers: &mut Headers) -> Result<(), Reason> {
        headers.push_value(ID, row.value(Role::Id), Role::Id.name())?;
        for (name, value) in self.placed.iter().zip(row.placed()) {
            headers.push_value(name, Some(value), "placed column")?;
        }
        Ok(())
    }

    /// Says whether a payload counts as none: it is text, and nothing but what Java's `trim` removes.
    pub(super) fn is_none(&self, row: &Row<'_>, payload: &[u8]) -> bool {
        self.tombstone_on_empty_payload
            && row.value(Role::Payload).is_some_and(|value| value.kind != Kind::Bytea)
            && payload.iter().all(|byte| *byte <= b' ')
    }
}
