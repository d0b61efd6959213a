//! One outbox as the server has it, and its statements.

use tokio_postgres::Row;

use crate::relay::catalog::quote;
use crate::relay::decode::pgoutput::Column;
use crate::relay::decode::pgoutput::Relation;
use crate::relay::record::row::Plan;
use crate::relay::record::row::RoleNames;

use super::error::Error;
use super::numbers::Drawn;
use super::numbers::Sequence;
use super::outbox::Outbox;
use super::sql;
use super::sql::OWN_COLUMNS;
use super::sql::TableColumns;
use super::verify::Found;

/// One outbox and its statements.
pub(super) struct Table {
    schema: String,
    name: String,
    /// The table's OID: the class of its advisory locks.
    pub(super) class: u32,
    roles: RoleNames,
    pub(super) names: TableColumns,
    pub(super) sequences: Vec<Sequence>,
    has_index: bool,
    pub(super) claim: String,
    pub(super) fetch: String,
    pub(super) count: String,
    pub(super) blocked: String,
    pub(super) mark: String,
    pub(super) backlog: String,
    pub(super) drawn: String,
}

impl Table {
    pub(super) fn new(found: Found) -> Self {
        let Outbox { route, mut names, .. } = found.outbox;
        let (schema, name) = route.table();
        names.read.retain(|column| found.columns.contains(column));
        Self {
            schema: schema.to_owned(),
            name: name.to_owned(),
            class: found.id,
            roles: route.names().clone(),
            sequences: found.sequences,
            has_index: found.index_statement.is_none(),
            claim: sql::claim(),
            fetch: names.fetch(),
            count: names.count(),
            blocked: names.blocked(),
            mark: names.mark(),
            backlog: names.backlog(),
            drawn: names.drawn(),
            names,
        }
    }

    /// Gives the table's name.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Gives the table's OID.
    pub(super) const fn class(&self) -> u32 {
        self.class
    }

    /// Warns of a missing index, unless that was done before.
    pub(super) fn warn_of_missing_index(&self, is_warned: &mut bool) {
        if !self.has_index && !std::mem::replace(is_warned, true) {
            tracing::warn!(
                table = self.name(),
                next = "`walrelay check` prints the statement that creates it",
                "no index on unpublished rows: each poll reads the whole table"
            );
        }
    }

    /// Warns of a sequence near its end, once for each further percent.
    pub(super) fn warn_of_exhaustion(&self, drawn: &[Drawn], warned: &mut u64) {
        let used = drawn
            .iter()
            .zip(&self.sequences)
            .filter_map(|(drawn, sequence)| Some((drawn.percent_used(sequence)?, sequence)));
        let Some((percent, sequence)) =
            used.max_by_key(|(percent, _)| *percent).filter(|(percent, _)| percent > warned)
        else {
            return;
        };
        *warned = percent;
        let (table, sequence, column) = (&self.names.table, &sequence.name, quote(&self.names.sequence));
        tracing::warn!(
            code = "WR-6525",
            table = self.name(),
            percent,
            next =
                format!("ALTER SEQUENCE {sequence} AS bigint; ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint"),
            "sequence near its end: then the application cannot insert events any more"
        );
    }

    /// Creates the plan of its rows from the columns of the result.
    pub(super) fn plan(&self, row: &Row) -> Result<Plan, Error> {
        let columns = row.columns().get(OWN_COLUMNS..).unwrap_or_default().iter();
        let columns = columns.map(|column| Column { name: column.name(), type_id: column.type_().oid() }).collect();
        let relation = Relation { id: self.class, schema: &self.schema, name: &self.name, columns };
        Ok(Plan::new(&relation, &self.roles)?)
    }
}
