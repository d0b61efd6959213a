//! The inbox on tokio-postgres.

use std::error::Error;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::types::Format;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::to_sql_checked;

use crate::event::EventId;

use super::statement;
use super::table::Inbox;
use super::table::Once;

/// Inserts an event into `walrelay.inbox`, as [`Inbox::once`] does.
pub async fn once(
    tx: &Transaction<'_>,
    consumer: &str,
    event_id: impl Into<EventId>,
) -> Result<Once, tokio_postgres::Error> {
    Inbox::walrelay().once(tx, consumer, event_id).await
}

/// Inserts several events into `walrelay.inbox`, as [`Inbox::once_each`] does.
pub async fn once_each(
    tx: &Transaction<'_>,
    consumer: &str,
    event_ids: &[EventId],
) -> Result<Vec<EventId>, tokio_postgres::Error> {
    Inbox::walrelay().once_each(tx, consumer, event_ids).await
}

/// Deletes old events from `walrelay.inbox`, as [`Inbox::prune`] does.
pub async fn prune(client: &Client, consumer: &str, retention: Duration) -> Result<u64, tokio_postgres::Error> {
    Inbox::walrelay().prune(client, consumer, retention).await
}

impl Inbox {
    /// Inserts an event in the handler's own transaction, in one round trip.
    ///
    /// It waits for the end of another transaction that inserts the same event. Dead-letter an event before this
    /// transaction commits: otherwise the event is a duplicate when it is redriven.
    pub async fn once(
        &self,
        tx: &Transaction<'_>,
        consumer: &str,
        event_id: impl Into<EventId>,
    ) -> Result<Once, tokio_postgres::Error> {
        let id = Inferred(event_id.into().to_string());
        // The types are given, so that preparing the statement needs no round trip.
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&consumer, Type::TEXT), (&id, Type::UNKNOWN)];
        Ok(Once::of(tx.execute_typed(self.once_sql(), &values).await?))
    }

    /// Inserts several events in one transaction and returns those that are new, in the order of their text. The rows
    /// are inserted in this order, so that two consumers do not deadlock.
    pub async fn once_each(
        &self,
        tx: &Transaction<'_>,
        consumer: &str,
        event_ids: &[EventId],
    ) -> Result<Vec<EventId>, tokio_postgres::Error> {
        let mut ids: Vec<Inferred> = event_ids.iter().map(|id| Inferred(id.to_string())).collect();
        ids.sort();
        ids.dedup();
        let mut new = Vec::with_capacity(ids.len());
        for ids in ids.chunks(statement::INSERTED_ROWS) {
            let mut values: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&consumer, Type::TEXT)];
            values.extend(ids.iter().map(|id| (id as &(dyn ToSql + Sync), Type::UNKNOWN)));
            for row in tx.query_typed(&statement::insert_each(self.table(), ids.len()), &values).await? {
                new.extend(row.try_get::<_, &str>(0)?.parse::<EventId>().ok());
            }
        }
        Ok(new)
    }

    /// Deletes events that were handled longer ago than `retention`, in batches, and returns how many.
    ///
    /// Use a retention longer than that of the topic, and longer than the longest outage to survive.
    pub async fn prune(
        &self,
        client: &Client,
        consumer: &str,
        retention: Duration,
    ) -> Result<u64, tokio_postgres::Error> {
        let seconds = retention.as_secs_f64();
        let mut pruned = 0;
        loop {
            let values: [(&(dyn ToSql + Sync), Type); 2] = [(&consumer, Type::TEXT), (&seconds, Type::FLOAT8)];
            let deleted = client.execute_typed(self.prune_sql(), &values).await?;
            pruned += deleted;
            if deleted < statement::PRUNED_ROWS {
                return Ok(pruned);
            }
        }
    }
}

/// A text whose type PostgreSQL infers from its column: `text`, `uuid` or `bigint`.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Inferred(String);

impl ToSql for Inferred {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Send + Sync>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
