//! The catalog check: publication, tables and slot must be right before the relay reads the WAL.
//!
//! The stream does not show a mistake (a table that is missing in the publication sends nothing), so the catalog is
//! read here, on an ordinary connection. Nothing is created and nothing is changed.

pub mod coverage;
mod error;
mod publication;
mod row;
mod slot;
mod table;

use tokio_postgres::Client;

use crate::relay::record::route::Route;

pub use crate::relay::postgres::quote;
pub use crate::relay::postgres::quote_table;
pub use error::Error;
pub(in crate::relay) use error::both_names;
pub(super) use publication::check_options as check_publication;
pub(super) use publication::check_table as check_published;
pub(super) use row::get;
pub(super) use row::lsn;
pub(super) use row::query;
pub use slot::Slot;
pub(super) use slot::check as check_slot;
pub(super) use table::add_column_once;
pub(super) use table::add_placed;
pub(super) use table::check_rows;
pub use table::columns;
pub(super) use table::examine_columns;
pub use table::settle;

use row::one;
use row::u32_of;

/// The result of a successful check.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub slot: Slot,
    /// A payload is `bytea`, whose text form is twice as long: request the binary form.
    pub wants_binary: bool,
}

/// Checks everything, in the order in which it is set up.
pub async fn verify(client: &Client, slot: &str, publication: &str, routes: &[Route]) -> Result<Facts, Error> {
    let version = version(client).await?;
    let mut wants_binary = false;
    let routes = &*settle(client, routes).await?;
    for route in routes {
        wants_binary |= columns(client, route).await?;
        check_rows(client, route, routes).await?;
    }
    publication::check(client, publication, version, routes).await?;
    Ok(Facts { slot: slot::check(client, slot, version).await?, wants_binary })
}

/// Reads the server's version, as `server_version_num`.
pub async fn version(client: &Client) -> Result<u32, Error> {
    let row = one(client, "SELECT current_setting('server_version_num')::bigint", &[]).await?;
    Ok(u32_of(get(&row, 0)?))
}

/// Reads a slot; none if it does not exist.
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

/// Says whether a publication contains a table.
pub async fn publishes(client: &Client, publication: &str, (schema, table): (&str, &str)) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";
    Ok(get::<i64>(&one(client, sql, &[&publication, &schema, &table]).await?, 0)? > 0)
}
