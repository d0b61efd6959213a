//! The outbox on tokio-postgres.

use serde::Serialize;
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::event::Envelope;

use super::error::Error;
use super::rows::Rows;
use super::table::Outbox;

/// Appends an event to `public.outbox_events`, as [`Outbox::append`] does.
pub async fn append<E: Serialize>(tx: &Transaction<'_>, envelope: &Envelope<E>) -> Result<Uuid, Error> {
    Outbox::walrelay().append(tx, envelope).await
}

/// Appends events to `public.outbox_events`, as [`Outbox::append_many`] does.
pub async fn append_many<E: Serialize>(tx: &Transaction<'_>, envelopes: &[Envelope<E>]) -> Result<(), Error> {
    Outbox::walrelay().append_many(tx, envelopes).await
}

impl Outbox {
    /// Appends an event in the caller's transaction, in one round trip, and returns its id.
    pub async fn append<E: Serialize>(&self, tx: &Transaction<'_>, envelope: &Envelope<E>) -> Result<Uuid, Error> {
        self.append_many(tx, std::slice::from_ref(envelope)).await?;
        Ok(envelope.event_id)
    }

    /// Appends events in the caller's transaction, in order, with one statement per 1,000 events or 16 MiB of payload.
    pub async fn append_many<E: Serialize>(
        &self,
        tx: &Transaction<'_>,
        envelopes: &[Envelope<E>],
    ) -> Result<(), Error> {
        for rows in Rows::divide(envelopes)? {
            // The types are given, so that preparing the statement needs no round trip.
            let values: [(&(dyn ToSql + Sync), Type); 7] = [
                (&rows.ids, Type::TEXT_ARRAY),
                (&rows.aggregate_types, Type::TEXT_ARRAY),
                (&rows.aggregate_ids, Type::TEXT_ARRAY),
                (&rows.event_types, Type::TEXT_ARRAY),
                (&rows.payloads, Type::TEXT_ARRAY),
                (&rows.headers, Type::TEXT_ARRAY),
                (&rows.times, Type::TEXT_ARRAY),
            ];
            let written = tx.execute_typed(self.sql(), &values).await;
            written.map_err(|error| failed(self.table(), error))?;
        }
        Ok(())
    }
}

fn failed(table: &str, error: tokio_postgres::Error) -> Error {
    let refusal = error.as_db_error().map(|db| (db.code().code().to_owned(), db.message().to_owned()));
    match refusal {
        Some((sqlstate, message)) => Error::server(table, &sqlstate, &message, Box::new(error)),
        None => Error::Connection { table: table.to_owned(), source: Box::new(error) },
    }
}
