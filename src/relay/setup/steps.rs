//! What the steps of a setup share.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Session;
use crate::relay::settings::Settings;
use crate::relay::stream::position;
use crate::relay::stream::resume::Stored;

use super::error::Error;
use super::options::SetupOptions;

/// What each step needs. Both connections lead to the same server.
pub(super) struct Steps<'a> {
    pub(super) settings: &'a Settings,
    pub(super) options: &'a SetupOptions,
    pub(super) client: &'a Client,
    pub(super) session: &'a mut Session,
    pub(super) report: &'a mut dyn FnMut(&str),
}

pub(super) async fn run(client: &Client, what: &str, sql: &str) -> Result<(), Error> {
    client
        .batch_execute(sql)
        .await
        .map_err(|error| Error::Statement { what: what.to_owned(), source: postgres::Error::from(error) })
}

pub(super) async fn stored(client: &Client, slot: &str) -> Result<Option<Stored>, Error> {
    match position::load(client, slot).await {
        Ok(stored) => Ok(Some(stored)),
        Err(position::Error::Missing { .. }) => Ok(None),
        Err(error) => Err(RelayError::from(error).into()),
    }
}

/// Checks the role before anything is created.
pub(super) async fn require_role(client: &Client, role: &str) -> Result<(), Error> {
    let sql = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
    let found = client.query_typed_opt(sql, &[(&role, Type::TEXT)]).await;
    let found = found.map_err(|error| Error::Statement { what: format!("find role {role}"), source: error.into() })?;
    found.map(drop).ok_or_else(|| Error::NoRole(role.to_owned()))
}
