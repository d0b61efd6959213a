//! Reads the unpublished rows in the order in which they will be published, without locks, for `walrelay peek`.
//!
//! Rows of different keys may be published in another order: buckets are claimed at random.

use std::time::Duration;

use futures_core::Stream as _;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::relay::decode::pgoutput::Cell;
use crate::relay::error::Error as RelayError;
use crate::relay::metrics::now_micros;
use crate::relay::peek::pending::Collection;
use crate::relay::peek::pending::PendingRecord;
use crate::relay::peek::pending::Place;
use crate::relay::peek::pending::Unpublishable;
use crate::relay::postgres::Ordinary;
use crate::relay::record::route;
use crate::relay::record::route::Reason;
use crate::relay::record::route::Route;
use crate::relay::record::route::Scratch;
use crate::relay::record::row;
use crate::relay::settings::Settings;

use super::error::Error;
use super::outbox::outboxes;
use super::sql::OWN_COLUMNS;
use super::table::Table;
use super::value::Raw;
use super::verify;

const ACTION: &str = "read the unpublished rows";

/// Collects the unpublished rows of every outbox, after the checks of `run`.
pub(in crate::relay) async fn collect(
    ordinary: &Ordinary,
    settings: &Settings,
    collection: &mut Collection,
    limit: Duration,
) -> Result<(), RelayError> {
    let client = &ordinary.client;
    let begin = ordinary.begin_reading(limit);
    for outbox in outboxes(settings)? {
        client.batch_execute(&begin).await.map_err(RelayError::postgres(ACTION))?;
        let found = verify::verify(client, &outbox).await?;
        let route = found.outbox.route.clone();
        rows(client, &Table::new(found), &route, collection).await?;
        if collection.is_full() {
            // The rest of the answer may be long, and the connection ends now.
            return Ok(());
        }
        client.batch_execute("ROLLBACK").await.map_err(RelayError::postgres(ACTION))?;
    }
    Ok(())
}

async fn rows(client: &Client, table: &Table, route: &Route, collection: &mut Collection) -> Result<(), RelayError> {
    let failed = RelayError::postgres::<tokio_postgres::Error>(ACTION);
    let limit = i64::try_from(collection.room()).unwrap_or(i64::MAX).saturating_add(1);
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&limit, Type::INT8)];
    let found = client.query_typed_raw(&table.names.unpublished(), values).await.map_err(&failed)?;
    let (mut found, mut plan, mut scratch) = (std::pin::pin!(found), None, Scratch::default());
    while let Some(found) = std::future::poll_fn(|context| found.as_mut().poll_next(context)).await {
        let found = found.map_err(&failed)?;
        let plan: &row::Plan = match &plan {
            Some(plan) => plan,
            None => plan.insert(table.plan(&found)?),
        };
        let row = plan.row(cells(&found));
        let unpublishable = |reason| {
            let event_id = route::event_id(&row);
            Unpublishable::new(&Error::Poison { table: table.name(), event_id, reason })
        };
        let made = record(route, &row, &mut scratch).map_err(unpublishable);
        collection.add(Place::Sequence(found.try_get(2).map_err(&failed)?), made);
        if collection.is_full() {
            break;
        }
    }
    Ok(())
}

fn cells(row: &Row) -> impl Iterator<Item = Cell<'_>> {
    (OWN_COLUMNS..row.len()).map(|column| row.try_get::<_, Raw<'_>>(column).map_or(Cell::Null, |raw| raw.0))
}

fn record(route: &Route, row: &row::Row<'_>, scratch: &mut Scratch) -> Result<PendingRecord, Reason> {
    let written = route::written_at(row, now_micros().cast_signed())?;
    Ok(PendingRecord::copy(&route.record(row, written.at, scratch)?))
}
