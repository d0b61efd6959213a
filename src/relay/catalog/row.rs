//! Single rows of the catalog, and their columns.

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::lsn::Lsn;
use crate::relay::postgres;

use super::error::Error;

pub(super) async fn one(
    client: &Client,
    sql: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Row, Error> {
    client.query_one(sql, values).await.map_err(query)
}

pub(in crate::relay) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, Error> {
    row.try_get(column).map_err(query)
}

pub(in crate::relay) fn lsn(text: &str) -> Result<Lsn, Error> {
    postgres::position(text).map_err(Error::Query)
}

pub(in crate::relay) fn query(error: tokio_postgres::Error) -> Error {
    Error::Query(postgres::Error::from(error))
}

pub(super) fn u32_of(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
