//! One connection and its statements: claim, fetch, mark.
//!
//! A batch is one transaction, which is its only memory: when the connection ends in any way, the buckets are free and
//! the rows unpublished. So there is no explicit rollback, except after a row that the server cannot send.

use futures_core::Stream as _;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::relay::decode::pgoutput::Cell;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Ended;
use crate::relay::postgres::Ordinary;
use crate::relay::record::row;
use crate::relay::record::row::Plan;

use super::error::Error;
use super::numbers::Drawn;
use super::selection;
use super::selection::BatchSize;
use super::selection::Blocked;
use super::selection::may_publish;
use super::sql::OWN_COLUMNS;
use super::table::Table;
use super::value::Key;
use super::value::Raw;
use super::verify::Found;

/// The attempts to find rows of keys that are not blocked.
const MAX_ATTEMPTS: u32 = 4;

/// A connection for all outboxes.
pub(super) struct Source {
    client: Client,
    /// Resolves when the connection ends.
    pub(super) ended: Ended,
    /// In the order of the outboxes.
    pub(super) tables: Vec<Table>,
    begin: String,
}

/// A locked and unpublished row without an earlier one of its key elsewhere.
#[derive(Debug)]
pub(super) struct LockedRow {
    row: Row,
    tableoid: u32,
    ctid: String,
    pub(super) sequence: i64,
    key: Key,
    pub(super) bucket: i32,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<LockedRow>,
    plan: Option<Plan>,
    /// There may be more rows.
    pub(super) is_full: bool,
}

/// The unpublished rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) events: u64,
    pub(super) oldest_micros: u64,
    pub(super) server_micros: u64,
}

impl Source {
    /// Uses a connection whose tables are checked.
    pub(super) fn new(ordinary: Ordinary, begin: String, found: Vec<Found>) -> Self {
        let Ordinary { client, ended, .. } = ordinary;
        let tables = found.into_iter().map(Table::new).collect();
        Self { client, ended, tables, begin }
    }
}

impl Batch {
    /// An empty batch, although there are rows.
    pub(super) const fn with_more() -> Self {
        Self { rows: Vec::new(), plan: None, is_full: true }
    }

    /// Maps a row to roles.
    pub(super) fn row<'r>(&self, locked: &'r LockedRow) -> Option<row::Row<'r>> {
        let cells = OWN_COLUMNS..locked.row.len();
        let cells = cells.map(|column| locked.row.try_get::<_, Raw<'r>>(column).map_or(Cell::Null, |raw| raw.0));
        self.plan.as_ref().map(|plan| plan.row(cells))
    }
}

impl Source {
    /// Begins a transaction and claims some of these buckets.
    pub(super) async fn begin(&self, table: &Table, candidates: &[i32]) -> Result<Vec<i32>, RelayError> {
        let class = table.class.cast_signed();
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&class, Type::INT4), (&candidates, Type::INT4_ARRAY)];
        let begin = self.client.batch_execute(&self.begin);
        // Sent together; the lock is taken before the snapshot of the next query.
        let (begun, claimed) = tokio::join!(begin, self.client.query_typed(&table.claim, &values));
        begun.map_err(RelayError::postgres("begin a transaction"))?;
        let rows = claimed.map_err(RelayError::postgres("claim buckets"))?;
        rows.iter().map(|row| row.try_get(0).map_err(RelayError::postgres("claim buckets"))).collect()
    }

    /// Ends the transaction.
    pub(super) async fn commit(&self) -> Result<(), RelayError> {
        self.client.batch_execute("COMMIT").await.map_err(RelayError::postgres("commit the batch"))
    }

    /// Rolls the transaction back.
    pub(super) async fn roll_back(&self) -> Result<(), RelayError> {
        self.client.batch_execute("ROLLBACK").await.map_err(RelayError::postgres("roll back the batch"))
    }

    /// Locks and reads the first unpublished rows of these buckets, without those that would overtake an earlier one of
    /// their key.
    pub(super) async fn fetch(
        &self,
        table: &Table,
        buckets: &[i32],
        max_rows: i64,
        batch_size: &mut BatchSize,
    ) -> Result<Batch, RelayError> {
        let mut without: Vec<Key> = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            let mut batch = self.lock(table, buckets, max_rows, &without, batch_size).await?;
            let Some(last) = batch.rows.last().map(|row| row.sequence) else { return Ok(batch) };
            let (blocked, drawn) =
                tokio::join!(self.blocked(table, buckets, last, &without, &batch.rows), self.drawn(table));
            let blocked = blocked?;
            for (drawn, sequence) in drawn?.iter().zip(&table.sequences) {
                drawn.check(&table.name(), &table.names, sequence)?;
            }
            let keys = batch.rows.iter().map(|row| (row.key.0.as_slice(), row.sequence));
            if let Some(row) = selection::tie(keys, &blocked).and_then(|index| batch.rows.get(index)) {
                return Err(batch.tie(table, row).into());
            }
            batch.rows.retain(|row| may_publish(&row.key.0, row.sequence, &blocked));
            if !batch.rows.is_empty() {
                return Ok(batch);
            }
            // All of them are blocked by a row locked elsewhere: exclude their keys.
            without.extend(blocked.into_keys().map(Key));
        }
        Ok(Batch::default())
    }

    /// Locks and reads rows in order, and skips those that others have locked.
    async fn lock(
        &self,
        table: &Table,
        buckets: &[i32],
        max_rows: i64,
        without: &[Key],
        batch_size: &mut BatchSize,
    ) -> Result<Batch, RelayError> {
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&buckets, Type::INT4_ARRAY), (&max_rows, Type::INT8), (&without, Type::TEXT_ARRAY)];
        let rows =
            self.client.query_typed_raw(&table.fetch, values).await.map_err(RelayError::postgres("read the outbox"))?;
        let mut rows = std::pin::pin!(rows);
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(row) = std::future::poll_fn(|context| rows.as_mut().poll_next(context)).await {
            let row = match row.map_err(postgres::Error::from) {
                Ok(row) => row,
                Err(source) if source.is_about_content() => {
                    return Err(Error::Unsendable { before: batch.rows.len(), source: Box::new(source) }.into());
                }
                Err(source) => return Err(RelayError::Postgres { action: "read the outbox", source }),
            };
            bytes += row.raw_size_bytes() as u64;
            if bytes > batch_size.bytes() && !batch.rows.is_empty() {
                // The other rows are locked in vain, and read again in the next batch.
                batch.is_full = true;
                break;
            }
            if batch.plan.is_none() {
                batch.plan = Some(table.plan(&row)?);
            }
            batch.rows.push(LockedRow::new(row).map_err(RelayError::postgres("read the outbox"))?);
        }
        batch.is_full |= i64::try_from(batch.rows.len()).unwrap_or(i64::MAX) >= max_rows;
        if !batch.rows.is_empty() {
            batch_size.observe(batch.rows.len(), bytes);
        }
        Ok(batch)
    }

    /// Identifies the first row of these buckets, which the server cannot send.
    pub(super) async fn name_first(
        &self,
        table: &Table,
        buckets: &[i32],
        source: Box<postgres::Error>,
    ) -> Result<Option<Error>, RelayError> {
        let without: &[Key] = &[];
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&buckets, Type::INT4_ARRAY), (&1_i64, Type::INT8), (&without, Type::TEXT_ARRAY)];
        let row = self.client.query_typed_opt(&table.names.first(), &values).await;
        let Some(row) = row.map_err(RelayError::postgres("find the row"))? else { return Ok(None) };
        let id: Option<String> = row.try_get(0).map_err(RelayError::postgres("find the row"))?;
        let id = id.unwrap_or_else(|| "(no id)".to_owned());
        Ok(Some(Error::Unreadable {
            table: table.name(),
            event_id: id.chars().take(64).flat_map(char::escape_default).collect(),
            sequence: row.try_get(1).map_err(RelayError::postgres("find the row"))?,
            column: table.names.sequence.clone(),
            bucket: row.try_get(2).map_err(RelayError::postgres("find the row"))?,
            source,
        }))
    }

    /// Finds the keys that have an unpublished row up to `last` which is not locked here.
    async fn blocked(
        &self,
        table: &Table,
        buckets: &[i32],
        last: i64,
        without: &[Key],
        rows: &[LockedRow],
    ) -> Result<Blocked, RelayError> {
        let values: [(&(dyn ToSql + Sync), Type); 3] =
            [(&buckets, Type::INT4_ARRAY), (&last, Type::INT8), (&without, Type::TEXT_ARRAY)];
        let row = self
            .client
            .query_typed_one(&table.count, &values)
            .await
            .map_err(RelayError::postgres("count the rows of the outbox"))?;
        let count: i64 = row.try_get(0).map_err(RelayError::postgres("count the rows of the outbox"))?;
        if usize::try_from(count).is_ok_and(|count| count == rows.len()) {
            return Ok(Blocked::new());
        }
        let tableoids: Vec<u32> = rows.iter().map(|row| row.tableoid).collect();
        let ctids: Vec<&str> = rows.iter().map(|row| row.ctid.as_str()).collect();
        let values: [(&(dyn ToSql + Sync), Type); 5] = [
            (&buckets, Type::INT4_ARRAY),
            (&last, Type::INT8),
            (&without, Type::TEXT_ARRAY),
            (&tableoids, Type::OID_ARRAY),
            (&ctids, Type::TEXT_ARRAY),
        ];
        let rows =
            self.client.query_typed(&table.blocked, &values).await.map_err(RelayError::postgres("find locked rows"))?;
        let key = |row: &Row| Ok((row.try_get::<_, Key>(0)?.0, row.try_get(1)?));
        rows.iter()
            .map(key)
            .collect::<Result<Blocked, _>>()
            .map_err(RelayError::postgres::<tokio_postgres::Error>("find locked rows"))
    }

    /// Reads the last values of the sequences, and the highest unpublished one.
    pub(super) async fn drawn(&self, table: &Table) -> Result<Vec<Drawn>, RelayError> {
        let mut all = Vec::new();
        for sequence in &table.sequences {
            let row = self.client.query_typed_one(&table.drawn, &[(&sequence.id, Type::OID)]).await;
            let row = row.map_err(RelayError::postgres("read the sequence"))?;
            let get = |column| row.try_get::<_, Option<i64>>(column).map_err(RelayError::postgres("read the sequence"));
            all.push(Drawn { highest: get(0)?, last: get(1)? });
        }
        Ok(all)
    }

    /// Marks the rows as published.
    pub(super) async fn mark(&self, table: &Table, rows: &[LockedRow]) -> Result<(), RelayError> {
        let mut tableoids: Vec<u32> = rows.iter().map(|row| row.tableoid).collect();
        tableoids.sort_unstable();
        tableoids.dedup();
        let mut marked = 0;
        for tableoid in tableoids {
            let ctids: Vec<&str> =
                rows.iter().filter(|row| row.tableoid == tableoid).map(|row| row.ctid.as_str()).collect();
            let values: [(&(dyn ToSql + Sync), Type); 2] = [(&ctids, Type::TEXT_ARRAY), (&tableoid, Type::OID)];
            let executed = self.client.execute_typed(&table.mark, &values).await;
            marked += executed.map_err(RelayError::postgres("mark rows as published"))?;
        }
        let published = rows.len() as u64;
        if marked == published {
            Ok(())
        } else {
            Err(Error::NotMarked { table: table.name(), marked, published }.into())
        }
    }

    /// Counts unpublished rows and reads the sequences, in a transaction of its own.
    pub(super) async fn backlog(&self, table: &Table) -> Result<(Backlog, Vec<Drawn>), RelayError> {
        let (begun, row, drawn, ended) = tokio::join!(
            self.client.batch_execute(&self.begin),
            self.client.query_typed_one(&table.backlog, &[]),
            self.drawn(table),
            self.commit(),
        );
        begun.map_err(RelayError::postgres("begin a transaction"))?;
        let row = row.map_err(RelayError::postgres("count unpublished rows"))?;
        let drawn = drawn?;
        ended?;
        let get = |column| row.try_get::<_, i64>(column).map_err(RelayError::postgres("count unpublished rows"));
        if get(3)? != i64::from(table.class) {
            return Err(Error::Replaced { table: table.name() }.into());
        }
        let positive = |value: i64| u64::try_from(value).unwrap_or_default();
        let backlog =
            Backlog { events: positive(get(0)?), oldest_micros: positive(get(1)?), server_micros: positive(get(2)?) };
        Ok((backlog, drawn))
    }
}

impl Batch {
    /// Gives the error of two rows with the same sequence.
    fn tie(&self, table: &Table, row: &LockedRow) -> Error {
        let event_id = self.row(row).map_or_else(String::new, |row| crate::relay::record::route::event_id(&row));
        Error::Tie { table: table.name(), event_id, column: table.names.sequence.clone(), sequence: row.sequence }
    }
}

impl LockedRow {
    fn new(row: Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            tableoid: row.try_get(0)?,
            ctid: row.try_get(1)?,
            sequence: row.try_get(2)?,
            key: row.try_get(3)?,
            bucket: row.try_get(4)?,
            row,
        })
    }
}
