//! The writer on tokio-postgres.

use serde::Serialize;
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::event::Envelope;

use super::Error;
use super::Outbox;
use super::rows::Rows;

/// Appends an event to `public.outbox_events`, as [`Outbox::append`] does.
pub async fn append<E: Serialize>(tx: &Transaction<'_>, envelope: &Envelope<E>) -> Result<Uuid, Error> {
    Outbox::default().append(tx, envelope).await
}

/// Appends events to `public.outbox_events`, as [`Outbox::append_many`] does.
pub async fn append_many<E: Serialize>(tx: &Transaction<'_>, envelopes: &[Envelope<E>]) -> Result<(), Error> {
    Outbox::default().append_many(tx, envelopes).await
}

impl Outbox {
    /// Appends an event in the caller's transaction, in one round trip, and gives its id. It is there when the transaction
    /// commits.
    pub async fn append<E: Serialize>(&self, tx: &Transaction<'_>, envelope: &Envelope<E>) -> Result<Uuid, Error> {
        self.append_many(tx, std::slice::from_ref(envelope)).await?;
        Ok(envelope.event_id)
    }

    /// Appends events in the caller's transaction, in their order: a statement for each thousand.
    pub async fn append_many<E: Serialize>(
        &self,
        tx: &Transaction<'_>,
        envelopes: &[Envelope<E>],
    ) -> Result<(), Error> {
        for rows in Rows::cut(envelopes)? {
            // The types are said beforehand, so that the statement needs no round trip of its own.
            let values: [(&(dyn ToSql + Sync), Type); 7] = [
                (&rows.ids, Type::TEXT_ARRAY),
                (&rows.aggregate_types, Type::TEXT_ARRAY),
                (&rows.aggregate_ids, Type::TEXT_ARRAY),
                (&rows.event_types, Type::TEXT_ARRAY),
                (&rows.payloads, Type::TEXT_ARRAY),
                (&rows.headers, Type::TEXT_ARRAY),
                (&rows.moments, Type::TEXT_ARRAY),
            ];
            let written = tx.execute_typed(self.sql(), &values).await;
            written.map_err(|error| failed(self.table(), error))?;
        }
        Ok(())
    }
}

fn failed(table: &str, error: tokio_postgres::Error) -> Error {
    let said = error.as_db_error().map(|db| (db.code().code().to_owned(), db.message().to_owned()));
    match said {
        Some((sqlstate, message)) => Error::server(table, &sqlstate, &message, Box::new(error)),
        None => Error::Connection { table: table.to_owned(), source: Box::new(error) },
    }
}
