//! The statements of the polling source, for one outbox table.
//!
//! Rows are found by not being published, never by a remembered number: numbers are not drawn in commit order, so a row may
//! become visible behind one that was seen before. The order of a key's rows is the column `sequence`. A row is marked by
//! where it lies (`ctid`), which stands still while it is locked: it is marked if and only if it is the one that was read.

use crate::relay::contract::quote;
use crate::relay::contract::quote_table;
use crate::relay::route::Route;

use super::sweep::BUCKETS;
use super::sweep::CLAIM_MAX;

/// How many columns of `fetch` come before the mapped ones: the table's id, the row's place, its sequence and its key.
pub(super) const OWN_COLUMNS: usize = 4;
/// Beyond so many rows it is not counted how many are unpublished.
pub(super) const COUNT_MAX: u32 = 10_000;

/// Where a table is and what its columns are called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The table, quoted, with its schema.
    pub(super) table: String,
    /// The column of the order.
    pub(super) sequence: String,
    /// The column that says when a row was published.
    pub(super) published_at: String,
    /// The column that becomes the key.
    pub(super) key: String,
    /// The column that says when a row was written.
    pub(super) created_at: String,
    /// The columns that the route reads.
    pub(super) read: Vec<String>,
}

impl Names {
    pub(super) fn new(route: &Route, sequence: &str, published_at: &str, created_at: &str) -> Self {
        let mut read: Vec<String> = Vec::new();
        for name in route.names().0.iter().flatten() {
            if !read.contains(&name.column) {
                read.push(name.column.clone());
            }
        }
        Self {
            table: quote_table(route.table()),
            sequence: sequence.to_owned(),
            published_at: published_at.to_owned(),
            key: route.key_column().to_owned(),
            created_at: created_at.to_owned(),
            read,
        }
    }

    /// Claims buckets of table `$1` among `$2`, in this order, until the transaction ends.
    pub(super) fn claim() -> String {
        format!(
            "SELECT bucket FROM unnest($2::int4[]) AS bucket WHERE pg_try_advisory_xact_lock($1, bucket) LIMIT {CLAIM_MAX}"
        )
    }

    /// Locks and reads at most `$2` unpublished rows of the buckets `$1`, without those of the keys `$3`.
    pub(super) fn fetch(&self) -> String {
        let read: String = self.read.iter().map(|column| format!(", t.{}", quote(column))).collect();
        format!(
            "SELECT t.tableoid, t.ctid::text, t.{sequence}::int8, {key}{read} FROM {table} AS t WHERE {due}
             AND {key} <> ALL ($3) ORDER BY t.{sequence} LIMIT $2 FOR UPDATE OF t SKIP LOCKED",
            sequence = quote(&self.sequence),
            key = self.key(),
            table = self.table,
            due = self.due(),
        )
    }

    /// Counts what is unpublished up to sequence `$2`, in the buckets `$1`, without the keys `$3`.
    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) FROM {}", self.up_to())
    }

    /// Gives, by key, the first unpublished row up to sequence `$2` that is not one of the tables `$4` and places `$5`.
    pub(super) fn blocked(&self) -> String {
        format!(
            "SELECT {key}, min(t.{sequence})::int8 FROM {up_to} AND NOT EXISTS (SELECT FROM
             unnest($4::oid[], $5::text[]) AS mine (part, place) WHERE mine.part = t.tableoid AND mine.place::tid = t.ctid)
             GROUP BY 1",
            key = self.key(),
            sequence = quote(&self.sequence),
            up_to = self.up_to(),
        )
    }

    /// Marks the rows at the places `$1` of the table, or part of it, `$2`.
    pub(super) fn mark(&self) -> String {
        format!(
            "UPDATE {} AS t SET {} = now() WHERE t.ctid = ANY ($1::text[]::tid[]) AND t.tableoid = $2",
            self.table,
            quote(&self.published_at)
        )
    }

    /// Counts what is unpublished, up to a limit; gives the age of the first of it and the server's clock, in microseconds.
    pub(super) fn backlog(&self) -> String {
        format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM {table} AS t WHERE t.{published} IS NULL LIMIT {COUNT_MAX}) AS counted),
                    coalesce((SELECT CASE WHEN isfinite(first.at)
                              THEN (extract(epoch FROM clock_timestamp() - first.at) * 1000000)::int8 END
                              FROM (SELECT t.{created} AS at FROM {table} AS t WHERE t.{published} IS NULL
                                    ORDER BY t.{sequence} LIMIT 1) AS first), 0),
                    (extract(epoch FROM clock_timestamp()) * 1000000)::int8",
            table = self.table,
            published = quote(&self.published_at),
            created = quote(&self.created_at),
            sequence = quote(&self.sequence),
        )
    }

    fn up_to(&self) -> String {
        let (sequence, key) = (quote(&self.sequence), self.key());
        format!("{} AS t WHERE {} AND t.{sequence} <= $2::int8 AND {key} <> ALL ($3)", self.table, self.due())
    }

    fn due(&self) -> String {
        let (published, key) = (quote(&self.published_at), self.key());
        format!("t.{published} IS NULL AND (hashtext({key}) & {}) = ANY ($1)", BUCKETS - 1)
    }

    /// The key as text; none is the empty one, so that its rows fall into a bucket as well.
    fn key(&self) -> String {
        format!("coalesce(t.{}::text COLLATE \"C\", '')", quote(&self.key))
    }
}
