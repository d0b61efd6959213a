//! The statements of the polling source, for one outbox table.
//!
//! Rows are selected because they are unpublished, not by a last number: numbers are not assigned in commit order, so a
//! row may become visible after one with a higher number. The order of a key's rows is the column `sequence`. A row is
//! marked by its `ctid`, which does not change while it is locked: exactly the row that was read is marked.
//!
//! With a pooler each transaction may use another session. So settings are for one transaction, and no statement is
//! prepared.

use std::time::Duration;

use crate::relay::catalog::quote;
use crate::relay::catalog::quote_table;
use crate::relay::record::route::Route;

use super::sweep::BUCKETS;
use super::sweep::MAX_CLAIM;

/// The number of columns of `fetch` before the mapped ones: `tableoid`, `ctid`, sequence, key and bucket.
pub(super) const OWN_COLUMNS: usize = 5;
/// The maximum count of unpublished rows.
pub(super) const MAX_COUNT: u32 = 10_000;
/// The timeout of a lock on a table.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Begins a transaction with its own settings. Unqualified names are PostgreSQL's. Rows hidden by a policy are an
/// error. A crash of the server may lose the last marks, which repeats those events. The server terminates a
/// transaction that is idle for longer than `idle_limit`: a hanging relay must not hold its locks, or hold back VACUUM.
pub(super) fn begin(idle_limit: Duration, stores_any_bytes: bool) -> String {
    // In a SQL_ASCII database text is requested without conversion.
    let encoding = if stores_any_bytes { "; SET LOCAL client_encoding = 'SQL_ASCII'" } else { "" };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off; \
         SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}{encoding}",
        LOCK_LIMIT.as_millis(),
        idle_limit.as_millis(),
    )
}

/// Claims buckets `$2` of table `$1`, in this order, until the transaction ends.
pub(super) fn claim() -> String {
    format!("SELECT bucket FROM unnest($2) AS bucket WHERE pg_try_advisory_xact_lock($1, bucket) LIMIT {MAX_CLAIM}")
}

/// A table and the names of its columns.
#[derive(Clone, Debug)]
pub(in crate::relay) struct TableColumns {
    /// The table, quoted, with its schema.
    pub(in crate::relay) table: String,
    /// The column `sequence`.
    pub(in crate::relay) sequence: String,
    /// The column `published_at`.
    pub(in crate::relay) published_at: String,
    /// The column of the key.
    pub(in crate::relay) key: String,
    /// The column of the event's id.
    pub(in crate::relay) id: String,
    /// The column `created_at`.
    pub(in crate::relay) created_at: String,
    /// The columns that the route reads.
    pub(in crate::relay) read: Vec<String>,
}

impl TableColumns {
    pub(super) fn new(route: &Route, sequence: &str, published_at: &str, created_at: &str) -> Self {
        let mut read: Vec<String> = Vec::new();
        for name in route.names().roles.iter().flatten() {
            for column in &name.columns {
                if !read.contains(column) {
                    read.push(column.clone());
                }
            }
        }
        Self {
            table: quote_table(route.table()),
            sequence: sequence.to_owned(),
            published_at: published_at.to_owned(),
            key: route.key_column().to_owned(),
            id: route.id_column().to_owned(),
            created_at: created_at.to_owned(),
            read,
        }
    }

    /// Locks and reads at most `$2` unpublished rows of the buckets `$1`, without those of the keys `$3`.
    pub(super) fn fetch(&self) -> String {
        let read: String = self.read.iter().map(|column| format!(", t.{}", quote(column))).collect();
        format!(
            "SELECT t.tableoid, t.ctid::text, t.{sequence}::int8, {key}, {bucket}{read} FROM {table} AS t WHERE {due}
             AND {key} <> ALL ($3) ORDER BY t.{sequence} LIMIT $2 FOR UPDATE OF t SKIP LOCKED",
            sequence = quote(&self.sequence),
            key = self.key(),
            bucket = self.bucket(),
            table = self.table,
            due = self.due(),
        )
    }

    /// Reads the first `$1` unpublished rows without locking them. The columns are those of `fetch`.
    pub(super) fn unpublished(&self) -> String {
        let read: String = self.read.iter().map(|column| format!(", t.{}", quote(column))).collect();
        format!(
            "SELECT t.tableoid, t.ctid::text, t.{sequence}::int8, {key}, {bucket}{read} FROM {table} AS t
             WHERE t.{published} IS NULL ORDER BY t.{sequence} LIMIT $1",
            sequence = quote(&self.sequence),
            key = self.key(),
            bucket = self.bucket(),
            table = self.table,
            published = quote(&self.published_at),
        )
    }

    /// Gives id, sequence and bucket of the first row that `fetch` would read, as ASCII.
    pub(super) fn first(&self) -> String {
        format!(
            "SELECT encode(convert_to(t.{id}::text, getdatabaseencoding()), 'escape'), t.{sequence}::int8, {bucket}
             FROM {table} AS t WHERE {due} AND {key} <> ALL ($3) ORDER BY t.{sequence} LIMIT $2 FOR UPDATE OF t SKIP \
             LOCKED",
            id = quote(&self.id),
            sequence = quote(&self.sequence),
            bucket = self.bucket(),
            table = self.table,
            due = self.due(),
            key = self.key(),
        )
    }

    /// Counts unpublished rows up to sequence `$2`, in the buckets `$1`, without the keys `$3`.
    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) FROM {}", self.up_to())
    }

    /// Gives, by key, the first unpublished row up to sequence `$2` that is not among the `tableoid`s `$4` and `ctid`s
    /// `$5`.
    pub(super) fn blocked(&self) -> String {
        format!(
            "SELECT {key}, min(t.{sequence})::int8 FROM {up_to} AND NOT EXISTS (SELECT FROM
             unnest($4, $5) AS mine (tableoid, ctid) WHERE mine.tableoid = t.tableoid AND mine.ctid::tid = t.ctid)
             GROUP BY 1",
            key = self.key(),
            sequence = quote(&self.sequence),
            up_to = self.up_to(),
        )
    }

    /// Marks the rows with the `ctid`s `$1` in the table or partition `$2`.
    pub(super) fn mark(&self) -> String {
        format!(
            "UPDATE {} AS t SET {} = now() WHERE t.ctid = ANY ($1::tid[]) AND t.tableoid = $2",
            self.table,
            quote(&self.published_at)
        )
    }

    /// Counts unpublished rows up to a limit; gives the age of the first one and the server's clock, in microseconds,
    /// and the OID of the table.
    pub(super) fn backlog(&self) -> String {
        format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM {table} AS t WHERE t.{published} IS NULL LIMIT {MAX_COUNT}) AS \
             counted),
                    coalesce((SELECT CASE WHEN isfinite(first.at)
                              THEN (extract(epoch FROM clock_timestamp() - first.at) * 1000000)::int8 END
                              FROM (SELECT t.{created} AS at FROM {table} AS t WHERE t.{published} IS NULL
                                    ORDER BY t.{sequence} LIMIT 1) AS first), 0),
                    (extract(epoch FROM clock_timestamp()) * 1000000)::int8, '{name}'::regclass::oid::int8",
            table = self.table,
            name = self.table.replace('\'', "''"),
            published = quote(&self.published_at),
            created = quote(&self.created_at),
            sequence = quote(&self.sequence),
        )
    }

    /// Gives the highest unpublished number, then the last value of sequence `$1`. In this order: the rows are from the
    /// snapshot, and the sequence may only have advanced since.
    pub(super) fn drawn(&self) -> String {
        format!(
            "SELECT (SELECT max(t.{sequence})::int8 FROM {table} AS t WHERE t.{published} IS NULL), \
             pg_sequence_last_value($1::oid)",
            sequence = quote(&self.sequence),
            table = self.table,
            published = quote(&self.published_at),
        )
    }

    fn up_to(&self) -> String {
        let (sequence, key) = (quote(&self.sequence), self.key());
        format!("{} AS t WHERE {} AND t.{sequence} <= $2 AND {key} <> ALL ($3)", self.table, self.due())
    }

    fn due(&self) -> String {
        format!("t.{} IS NULL AND {} = ANY ($1)", quote(&self.published_at), self.bucket())
    }

    fn bucket(&self) -> String {
        format!("(hashtext({}) & {})", self.key(), BUCKETS - 1)
    }

    /// The key as text; NULL becomes the empty key, so that its rows have a bucket too.
    fn key(&self) -> String {
        format!("coalesce(t.{}::text COLLATE \"C\", '')", quote(&self.key))
    }
}
