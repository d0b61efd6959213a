//! The outbox on sqlx. The application chooses sqlx's runtime and TLS.
//!
//! ```no_run
//! # use walrelay_events::{event::Envelope, outbox};
//! #[derive(serde::Serialize)]
//! #[serde(tag = "event_type")]
//! enum OrderEvent {
//!     OrderCreated { total_cents: i64 },
//! }
//!
//! async fn create(pool: &sqlx::PgPool, id: &str, total_cents: i64) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut tx = pool.begin().await?;
//!     let insert = sqlx::query("INSERT INTO orders (id, total_cents) VALUES ($1, $2)").bind(id).bind(total_cents);
//!     insert.execute(&mut *tx).await?;
//!     outbox::sqlx::append(&mut tx, &Envelope::new("Order", id, OrderEvent::OrderCreated { total_cents })).await?;
//!     tx.commit().await?;
//!     Ok(())
//! }
//! ```

use std::sync::Arc;

use serde::Serialize;
use sqlx::AssertSqlSafe;
use sqlx::Postgres;
use sqlx::Transaction;
use uuid::Uuid;

use crate::event::Envelope;

use super::error::Error;
use super::rows::Rows;
use super::table::Outbox;

/// Appends an event to `public.outbox_events`, as [`Outbox::append_sqlx`] does.
pub async fn append<E: Serialize>(tx: &mut Transaction<'_, Postgres>, envelope: &Envelope<E>) -> Result<Uuid, Error> {
    Outbox::walrelay().append_sqlx(tx, envelope).await
}

/// Appends events to `public.outbox_events`, as [`Outbox::append_many_sqlx`] does.
pub async fn append_many<E: Serialize>(
    tx: &mut Transaction<'_, Postgres>,
    envelopes: &[Envelope<E>],
) -> Result<(), Error> {
    Outbox::walrelay().append_many_sqlx(tx, envelopes).await
}

impl Outbox {
    /// Appends an event in the caller's sqlx transaction, and returns its id. It takes one round trip, or two the first
    /// time on a connection.
    pub async fn append_sqlx<E: Serialize>(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        envelope: &Envelope<E>,
    ) -> Result<Uuid, Error> {
        self.append_many_sqlx(tx, std::slice::from_ref(envelope)).await?;
        Ok(envelope.event_id)
    }

    /// Appends events in the caller's sqlx transaction, in order, with one statement per 1,000 events or 16 MiB of
    /// payload.
    pub async fn append_many_sqlx<E: Serialize>(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        envelopes: &[Envelope<E>],
    ) -> Result<(), Error> {
        for rows in Rows::divide(envelopes)? {
            // It contains quoted names and no values.
            let written = sqlx::query(AssertSqlSafe(Arc::clone(self.sql())))
                .persistent(self.uses_prepared_statements())
                .bind(rows.ids)
                .bind(rows.aggregate_types)
                .bind(rows.aggregate_ids)
                .bind(rows.event_types)
                .bind(rows.payloads)
                .bind(rows.headers)
                .bind(rows.times)
                .execute(&mut **tx);
            written.await.map_err(|error| failed(self.table(), error))?;
        }
        Ok(())
    }
}

fn failed(table: &str, error: sqlx::Error) -> Error {
    let refusal = error.as_database_error();
    match refusal.map(|db| (db.code().unwrap_or_default().into_owned(), db.message().to_owned())) {
        Some((sqlstate, message)) => Error::server(table, &sqlstate, &message, Box::new(error)),
        None => Error::Connection { table: table.to_owned(), source: Box::new(error) },
    }
}
