//! What the catalog must say before the relay follows the log: publication, tables, slot.
//!
//! The stream does not tell when the contract is broken (a table left out of the publication is silence), so it is read
//! here, on an ordinary connection. Nothing is created and nothing is changed.

pub mod coverage;
mod error;
mod publication;
mod slot;
mod table;

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::lsn::Lsn;
use crate::relay::postgres;
use crate::relay::record::route::Route;

pub use crate::relay::postgres::quote;
pub use error::Error;
pub(in crate::relay) use error::both_names;
pub use slot::Slot;
pub use table::columns;
pub use table::settle;

/// What the relay needs to know of a source whose contract holds.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The slot.
    pub slot: Slot,
    /// A payload is `bytea`, whose text form is twice as long: ask for the binary form.
    pub wants_binary: bool,
}

/// Checks everything, in the order in which it is set up.
pub async fn verify(client: &Client, slot: &str, publication: &str, routes: &[Route]) -> Result<Facts, Error> {
    let version = version(client).await?;
    let mut wants_binary = false;
    let routes = &*settle(client, routes).await?;
    for route in routes {
        wants_binary |= columns(client, route).await?;
        table::check_rows(client, route, routes).await?;
    }
    publication::check(client, publication, version, routes).await?;
    Ok(Facts { slot: slot::check(client, slot, version).await?, wants_binary })
}

/// Reads the server's version, as `server_version_num`.
pub async fn version(client: &Client) -> Result<u32, Error> {
    let row = one(client, "SELECT current_setting('server_version_num')::bigint", &[]).await?;
    Ok(u32_of(get(&row, 0)?))
}

/// Looks at a slot: none if there is no such slot.
pub async fn find_slot(client: &Client, slot: &str, version: u32) -> Result<Option<Slot>, Error> {
    match slot::check(client, slot, version).await {
        Ok(slot) => Ok(Some(slot)),
        Err(Error::SlotMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says whether a publication exists.
pub async fn has_publication(client: &Client, publication: &str) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM pg_publication WHERE pubname = $1";
    Ok(get::<i64>(&one(client, sql, &[&publication]).await?, 0)? > 0)
}

/// Says whether a publication has a table.
pub async fn publishes(client: &Client, publication: &str, (schema, table): (&str, &str)) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";
    Ok(get::<i64>(&one(client, sql, &[&publication, &schema, &table]).await?, 0)? > 0)
}

/// Quotes a table's name, with its schema.
#[must_use]
pub fn quote_table((schema, table): (&str, &str)) -> String {
    format!("{}.{}", quote(schema), quote(table))
}

async fn one(client: &Client, sql: &str, values: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Result<Row, Error> {
    client.query_one(sql, values).await.map_err(query)
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Error> {
    row.try_get(column).map_err(query)
}

pub(super) fn lsn(text: &str) -> Result<Lsn, Error> {
    postgres::position(text).map_err(Error::Query)
}

pub(super) fn query(error: tokio_postgres::Error) -> Error {
    Error::Query(postgres::Error::from(error))
}

fn u32_of(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
