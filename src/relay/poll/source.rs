//! One connection and its statements: claim, fetch, mark.
//!
//! Everything of a batch happens in one transaction, and the transaction is the batch's only memory: when the connection
//! ends, however it ends, the buckets are free and the rows are unpublished again. So nothing is ever rolled back by hand.

use std::time::Duration;

use futures_core::Stream as _;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Statement;
use tokio_postgres::types::FromSql;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::relay::Error as RelayError;
use crate::relay::pgoutput::Cell;
use crate::relay::pgoutput::Column;
use crate::relay::pgoutput::Relation;
use crate::relay::row;
use crate::relay::row::Plan;
use crate::relay::wal;
use crate::relay::wal::Ended;
use crate::relay::wal::Ordinary;

use super::Error;
use super::Outbox;
use super::choice::Appetite;
use super::choice::Blocked;
use super::choice::may_go;
use super::sql::Names;
use super::sql::OWN_COLUMNS;

/// How long a lock on a whole table is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How often rows are looked for behind keys that are blocked.
const LOOKS_MAX: u32 = 4;

/// A connection, ready for every outbox.
pub(super) struct Source {
    client: Client,
    /// Resolves when the connection ends.
    pub(super) ended: Ended,
    /// In the order of the outboxes.
    pub(super) tables: Vec<Table>,
}

/// The statements of one outbox on one connection.
pub(super) struct Table {
    name: String,
    /// The table's id: the class of its advisory locks.
    class: i32,
    plan: Plan,
    claim: Statement,
    fetch: Statement,
    count: Statement,
    blocked: Statement,
    mark: Statement,
    backlog: Statement,
}

/// A row in hand: locked, unpublished, and with no earlier one of its key elsewhere.
#[derive(Debug)]
pub(super) struct InHand {
    row: Row,
    part: u32,
    place: String,
    pub(super) sequence: i64,
    key: String,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<InHand>,
    /// There were as many as were asked for: there may be more.
    pub(super) is_full: bool,
}

/// What has not been published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) events: u64,
    pub(super) oldest_micros: u64,
    pub(super) server_micros: u64,
}

impl Source {
    /// Takes over a connection whose tables are fit. A transaction that is left alone for longer than `idle_limit` is ended
    /// by the server: a relay that hangs must not hold its rows, nor hold back vacuum.
    pub(super) async fn prepare(
        ordinary: Ordinary,
        outboxes: &[Outbox],
        classes: &[u32],
        idle_limit: Duration,
    ) -> Result<Self, RelayError> {
        let Ordinary { client, ended, .. } = ordinary;
        // A mark that a crash of the server forgets is a repetition, and no more than the last moments have.
        let session = format!(
            "SET idle_in_transaction_session_timeout = {}; SET lock_timeout = {}; SET synchronous_commit = off",
            idle_limit.as_millis(),
            LOCK_LIMIT.as_millis()
        );
        client.batch_execute(&session).await.map_err(failed("set up the session"))?;
        let mut tables = Vec::new();
        for (outbox, class) in outboxes.iter().zip(classes) {
            tables.push(Table::prepare(&client, outbox, *class).await?);
        }
        Ok(Self { client, ended, tables })
    }
}

impl Table {
    async fn prepare(client: &Client, outbox: &Outbox, class: u32) -> Result<Self, RelayError> {
        let names = &outbox.names;
        let prepare = async |sql: String| client.prepare(&sql).await.map_err(failed("prepare the statements"));
        let fetch = prepare(names.fetch()).await?;
        let columns = fetch.columns().get(OWN_COLUMNS..).unwrap_or_default().iter();
        let columns = columns.map(|column| Column { name: column.name(), type_id: column.type_().oid() }).collect();
        let (schema, name) = outbox.route.table();
        let relation = Relation { id: class, schema, name, columns };
        Ok(Self {
            name: format!("{schema}.{name}"),
            class: class.cast_signed(),
            plan: Plan::new(&relation, outbox.route.names()).map_err(Error::from)?,
            claim: prepare(Names::claim()).await?,
            count: prepare(names.count()).await?,
            blocked: prepare(names.blocked()).await?,
            mark: prepare(names.mark()).await?,
            backlog: prepare(names.backlog()).await?,
            fetch,
        })
    }

    /// Reads a row by the roles of its columns.
    pub(super) fn row<'r>(&self, in_hand: &'r InHand) -> row::Row<'r> {
        let cells = OWN_COLUMNS..in_hand.row.len();
        self.plan.row(cells.map(|column| in_hand.row.try_get::<_, Raw<'r>>(column).map_or(Cell::Null, |raw| raw.0)))
    }

    /// Gives the table's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Source {
    /// Begins a transaction and claims buckets among these.
    pub(super) async fn begin(&self, table: &Table, candidates: &[i32]) -> Result<Vec<i32>, RelayError> {
        let values: [&(dyn ToSql + Sync); 2] = [&table.class, &candidates];
        let begin = self.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED");
        // Sent together; the lock comes before the snapshot of whatever is read next.
        let (begun, claimed) = tokio::join!(begin, self.client.query(&table.claim, &values));
        begun.map_err(failed("begin a transaction"))?;
        let rows = claimed.map_err(failed("claim buckets"))?;
        rows.iter().map(|row| row.try_get(0).map_err(failed("claim buckets"))).collect()
    }

    /// Ends the transaction.
    pub(super) async fn commit(&self) -> Result<(), RelayError> {
        self.client.batch_execute("COMMIT").await.map_err(failed("commit the batch"))
    }

    /// Takes the first unpublished rows of these buckets into the hand, as far as none overtakes an earlier one of its key.
    pub(super) async fn fetch(
        &self,
        table: &Table,
        buckets: &[i32],
        rows_max: i64,
        appetite: &mut Appetite,
    ) -> Result<Batch, RelayError> {
        let mut without: Vec<String> = Vec::new();
        for _ in 0..LOOKS_MAX {
            let mut batch = self.lock(table, buckets, rows_max, &without, appetite).await?;
            let Some(last) = batch.rows.last().map(|row| row.sequence) else { return Ok(batch) };
            let blocked = self.blocked(table, buckets, last, &without, &batch.rows).await?;
            batch.rows.retain(|row| may_go(&row.key, row.sequence, &blocked));
            if !batch.rows.is_empty() {
                return Ok(batch);
            }
            // All of them wait for a row that somebody else holds: look behind their keys.
            without.extend(blocked.into_keys());
        }
        Ok(Batch::default())
    }

    /// Locks and reads rows, in order, leaving out those that others have locked.
    async fn lock(
        &self,
        table: &Table,
        buckets: &[i32],
        rows_max: i64,
        without: &[String],
        appetite: &mut Appetite,
    ) -> Result<Batch, RelayError> {
        let values: [&(dyn ToSql + Sync); 3] = [&buckets, &rows_max, &without];
        let rows = self.client.query_raw(&table.fetch, values).await.map_err(failed("read the outbox"))?;
        let mut rows = std::pin::pin!(rows);
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(row) = std::future::poll_fn(|context| rows.as_mut().poll_next(context)).await {
            let row = row.map_err(failed("read the outbox"))?;
            bytes += row.raw_size_bytes() as u64;
            if bytes > appetite.bytes() && !batch.rows.is_empty() {
                // The rest is locked for nothing, and read in the next batch; it is not kept in memory.
                batch.is_full = true;
                break;
            }
            batch.rows.push(InHand::new(row).map_err(failed("read the outbox"))?);
        }
        batch.is_full |= i64::try_from(batch.rows.len()).unwrap_or(i64::MAX) >= rows_max;
        if !batch.rows.is_empty() {
            appetite.took(batch.rows.len(), bytes);
        }
        Ok(batch)
    }

    /// Finds the keys that have an unpublished row up to `last` which is not in hand.
    async fn blocked(
        &self,
        table: &Table,
        buckets: &[i32],
        last: i64,
        without: &[String],
        rows: &[InHand],
    ) -> Result<Blocked, RelayError> {
        let values: [&(dyn ToSql + Sync); 3] = [&buckets, &last, &without];
        let row = self.client.query_one(&table.count, &values).await.map_err(failed("count the outbox"))?;
        let count: i64 = row.try_get(0).map_err(failed("count the outbox"))?;
        if usize::try_from(count).is_ok_and(|count| count == rows.len()) {
            return Ok(Blocked::new());
        }
        let parts: Vec<u32> = rows.iter().map(|row| row.part).collect();
        let places: Vec<&str> = rows.iter().map(|row| row.place.as_str()).collect();
        let values: [&(dyn ToSql + Sync); 5] = [&buckets, &last, &without, &parts, &places];
        let rows = self.client.query(&table.blocked, &values).await.map_err(failed("look for locked rows"))?;
        let key = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(key).collect::<Result<Blocked, _>>().map_err(failed("look for locked rows"))
    }

    /// Marks the rows in hand as published.
    pub(super) async fn mark(&self, table: &Table, rows: &[InHand]) -> Result<(), RelayError> {
        let mut parts: Vec<u32> = rows.iter().map(|row| row.part).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut marked = 0;
        for part in parts {
            let places: Vec<&str> = rows.iter().filter(|row| row.part == part).map(|row| row.place.as_str()).collect();
            let values: [&(dyn ToSql + Sync); 2] = [&places, &part];
            marked += self.client.execute(&table.mark, &values).await.map_err(failed("mark rows as published"))?;
        }
        let published = rows.len() as u64;
        if marked == published {
            Ok(())
        } else {
            Err(Error::NotMarked { table: table.name.clone(), marked, published }.into())
        }
    }

    /// Looks at what is unpublished.
    pub(super) async fn backlog(&self, table: &Table) -> Result<Backlog, RelayError> {
        let row = self.client.query_one(&table.backlog, &[]).await.map_err(failed("look at the backlog"))?;
        let get = |column| row.try_get::<_, i64>(column).map_err(failed("look at the backlog"));
        let positive = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Backlog { events: positive(get(0)?), oldest_micros: positive(get(1)?), server_micros: positive(get(2)?) })
    }
}

impl InHand {
    fn new(row: Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { part: row.try_get(0)?, place: row.try_get(1)?, sequence: row.try_get(2)?, key: row.try_get(3)?, row })
    }
}

/// Sorts what a query failed for. A plan that no longer fits its table is made anew on the next connection.
fn failed(action: &'static str) -> impl Fn(tokio_postgres::Error) -> RelayError {
    move |error| {
        let source = wal::Error::from(error);
        if let wal::Error::Server(error) = &source
            && error.state == "0A000"
        {
            return Error::Altered.into();
        }
        RelayError::Wal { action, source }
    }
}

/// A value as the server sent it.
struct Raw<'a>(Cell<'a>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Cell::Binary(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Cell::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
