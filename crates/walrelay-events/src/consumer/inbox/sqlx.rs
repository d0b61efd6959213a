//! The inbox on sqlx.
//!
//! sqlx prepares a statement with parameters in a round trip of its own, and keeps it under a name that a pooler in
//! transaction mode may not know. So the ids are literals in the statement: one round trip, nothing to prepare.
//!
//! ```no_run
//! # use walrelay_events::consumer::{Failure, Outcome};
//! # use walrelay_events::event::EventId;
//! use walrelay_events::consumer::inbox::{self, Once};
//!
//! async fn count(pool: &sqlx::PgPool, event_id: &EventId) -> Result<Outcome, Failure> {
//!     let mut tx = pool.begin().await?;
//!     if inbox::sqlx::once(&mut tx, "counter", event_id).await? == Once::New {
//!         sqlx::query("UPDATE counters SET value = value + 1").execute(&mut *tx).await?;
//!         tx.commit().await?;
//!     }
//!     Ok(Outcome::Ack)
//! }
//! ```

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::PgConnection;
use sqlx::Postgres;
use sqlx::Row as _;
use sqlx::Transaction;

use crate::event::EventId;

use super::statement;
use super::statement::literal;
use super::table::Inbox;
use super::table::Once;

/// Inserts an event into `walrelay.inbox`, as [`Inbox::once_sqlx`] does.
pub async fn once(
    tx: &mut Transaction<'_, Postgres>,
    consumer: &str,
    event_id: impl Into<EventId>,
) -> Result<Once, sqlx::Error> {
    Inbox::walrelay().once_sqlx(tx, consumer, event_id).await
}

/// Inserts several events into `walrelay.inbox`, as [`Inbox::once_each_sqlx`] does.
pub async fn once_each(
    tx: &mut Transaction<'_, Postgres>,
    consumer: &str,
    event_ids: &[EventId],
) -> Result<Vec<EventId>, sqlx::Error> {
    Inbox::walrelay().once_each_sqlx(tx, consumer, event_ids).await
}

/// Deletes old events from `walrelay.inbox`, as [`Inbox::prune_sqlx`] does.
pub async fn prune(connection: &mut PgConnection, consumer: &str, retention: Duration) -> Result<u64, sqlx::Error> {
    Inbox::walrelay().prune_sqlx(connection, consumer, retention).await
}

impl Inbox {
    /// Inserts an event in the handler's own sqlx transaction, as [`Inbox::once`] does, in one round trip.
    pub async fn once_sqlx(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        consumer: &str,
        event_id: impl Into<EventId>,
    ) -> Result<Once, sqlx::Error> {
        let (consumer, id) = (literal(consumer), literal(&event_id.into().to_string()));
        let sql = statement::insert(self.table(), [(consumer.as_str(), id.as_str())]);
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await?;
        Ok(Once::of(done.rows_affected()))
    }

    /// Inserts several events in one sqlx transaction, as [`Inbox::once_each`] does.
    pub async fn once_each_sqlx(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        consumer: &str,
        event_ids: &[EventId],
    ) -> Result<Vec<EventId>, sqlx::Error> {
        let consumer = literal(consumer);
        let mut ids: Vec<String> = event_ids.iter().map(EventId::to_string).collect();
        ids.sort();
        ids.dedup();
        let ids: Vec<String> = ids.iter().map(|id| literal(id)).collect();
        let mut new = Vec::with_capacity(ids.len());
        for ids in ids.chunks(statement::INSERTED_ROWS) {
            let insert = statement::insert(self.table(), ids.iter().map(|id| (consumer.as_str(), id.as_str())));
            for row in sqlx::raw_sql(AssertSqlSafe(statement::returning(&insert))).fetch_all(&mut **tx).await? {
                new.extend(row.try_get::<String, _>(0)?.parse::<EventId>().ok());
            }
        }
        Ok(new)
    }

    /// Deletes events that were handled longer ago than `retention`, as [`Inbox::prune`] does. A pool gives the
    /// connection: `&mut *pool.acquire().await?`.
    pub async fn prune_sqlx(
        &self,
        connection: &mut PgConnection,
        consumer: &str,
        retention: Duration,
    ) -> Result<u64, sqlx::Error> {
        let mut pruned = 0;
        loop {
            // Not under a name that a pooler may not know.
            let delete = sqlx::query(AssertSqlSafe(self.prune_sql())).persistent(false);
            let done = delete.bind(consumer).bind(retention.as_secs_f64()).execute(&mut *connection).await?;
            pruned += done.rows_affected();
            if done.rows_affected() < statement::PRUNED_ROWS {
                return Ok(pruned);
            }
        }
    }
}
