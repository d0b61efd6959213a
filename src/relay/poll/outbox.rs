//! A table to poll, and the names of its columns.

use crate::relay::catalog::quote;
use crate::relay::error::Error as RelayError;
use crate::relay::record::route;
use crate::relay::record::route::Route;
use crate::relay::record::route::configured;
use crate::relay::record::row::Role;
use crate::relay::settings::Settings;

use super::sql::MAX_COUNT;
use super::sql::TableColumns;

/// One outbox table.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Outbox {
    pub(in crate::relay) route: Route,
    pub(in crate::relay) names: TableColumns,
    pub(super) own: Own,
}

/// The possible names of the columns that only polling uses.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) sequence: Vec<String>,
    pub(super) published_at: Vec<String>,
    pub(super) created_at: Vec<String>,
}

impl Outbox {
    /// Uses the first of several names, until the catalog shows which one exists.
    pub(super) fn new(route: Route, own: Own) -> Self {
        let first = |names: &[String]| names.first().cloned().unwrap_or_default();
        let (sequence, published_at) = (first(&own.sequence), first(&own.published_at));
        Self { names: TableColumns::new(&route, &sequence, &published_at, &first(&own.created_at)), route, own }
    }

    /// The query that counts unpublished rows up to a limit.
    pub(in crate::relay) fn count_unpublished(&self) -> String {
        format!(
            "SELECT count(*) FROM (SELECT FROM {} WHERE {} IS NULL LIMIT {MAX_COUNT}) AS counted",
            self.names.table,
            quote(&self.names.published_at),
        )
    }

    /// The statement that creates the index on unpublished rows. The application cannot insert meanwhile.
    pub(in crate::relay) fn create_index(&self) -> String {
        let (_, table) = self.route.table();
        let name = quote(&format!("{table}_unpublished"));
        format!("CREATE INDEX IF NOT EXISTS {name} ON {}", self.index_columns())
    }

    /// The same for a table in use: the application's inserts go on. It cannot run in a transaction, and fails for a
    /// partitioned table.
    pub(super) fn create_index_concurrently(&self) -> String {
        let (_, table) = self.route.table();
        // Without IF NOT EXISTS: another index of this name would hide that this one was not created.
        let name = quote(&format!("{table}_unpublished"));
        format!("CREATE INDEX CONCURRENTLY {name} ON {}", self.index_columns())
    }

    fn index_columns(&self) -> String {
        let TableColumns { table, sequence, published_at, .. } = &self.names;
        format!("{table} ({}) WHERE {} IS NULL", quote(sequence), quote(published_at))
    }
}

/// Collects the tables and the names of their columns.
pub(in crate::relay) fn outboxes(settings: &Settings) -> Result<Vec<Outbox>, RelayError> {
    let outbox = |(route, config): (Route, &route::Config)| {
        let columns = &config.columns;
        let own = Own {
            sequence: configured(columns.sequence.as_ref(), "sequence"),
            published_at: configured(columns.published_at.as_ref(), "published_at"),
            created_at: configured(columns.created_at.as_ref(), Role::CreatedAt.name()),
        };
        Outbox::new(route, own)
    };
    Ok(settings.routes()?.into_iter().zip(&settings.outboxes).map(outbox).collect())
}
