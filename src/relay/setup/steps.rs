//! What the steps of a setup share.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Session;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;
use crate::relay::stream::position;
use crate::relay::stream::resume::Stored;

use super::error::Error;
use super::options::SetupOptions;
use super::roles::Purpose;
use super::server::owner_of_table;

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

/// Checks the roles before anything is created.
pub(super) async fn require_roles(client: &Client, roles: &[(Option<&String>, Purpose)]) -> Result<(), Error> {
    for (role, purpose) in roles {
        let Some(role) = role else { continue };
        let sql = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
        let found = client.query_typed_opt(sql, &[(role, Type::TEXT)]).await;
        let failed =
            |error: tokio_postgres::Error| Error::Statement { what: format!("find role {role}"), source: error.into() };
        if found.map_err(failed)?.is_none() {
            return Err(Error::NoRole { role: (*role).clone(), attributes: purpose.attributes() });
        }
    }
    Ok(())
}

/// Checks existing tables and the publication before anything is changed: what is wrong with them is left to a person.
/// Gives the tables that do not exist yet.
pub(super) async fn require_fit(
    client: &Client,
    tables: &[Route],
    publication: Option<(&str, u32)>,
    report: &mut dyn FnMut(&str),
) -> Result<Vec<Route>, Error> {
    let fit = fit(client, tables, publication).await;
    if matches!(fit, Err(Error::Relay(RelayError::Catalog(_)))) {
        report("nothing was changed");
    }
    fit
}

async fn fit(client: &Client, tables: &[Route], publication: Option<(&str, u32)>) -> Result<Vec<Route>, Error> {
    let mut new = Vec::new();
    for route in tables {
        if owner_of_table(client, route).await?.is_none() {
            new.push(route.clone());
            continue;
        }
        catalog::columns(client, route).await.map_err(RelayError::from)?;
    }
    let Some((name, version)) = publication else { return Ok(new) };
    for route in tables {
        catalog::check_rows(client, route, tables).await.map_err(RelayError::from)?;
    }
    if !catalog::has_publication(client, name).await.map_err(RelayError::from)? {
        return Ok(new);
    }
    catalog::check_publication(client, name).await.map_err(RelayError::from)?;
    for route in tables {
        if catalog::publishes(client, name, route.table()).await.map_err(RelayError::from)? {
            catalog::check_published(client, name, version, route).await.map_err(RelayError::from)?;
        }
    }
    Ok(new)
}
