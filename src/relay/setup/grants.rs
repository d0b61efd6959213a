//! The privileges that the roles need where the relay reads the WAL.

use tokio_postgres::Client;

use crate::relay::record::route::Route;
use crate::relay::settings::Settings;

use super::error::Error;
use super::options::Plan;
use super::options::SetupOptions;
use super::roles;
use super::roles::Grant;
use super::roles::Object;
use super::roles::Purpose;
use super::roles::Role;

/// Asks what the roles have that get privileges.
pub(super) async fn wanted_roles(
    settings: &Settings,
    options: &SetupOptions,
    plan: &Plan,
    client: &Client,
    tables: &[Route],
) -> Result<Vec<Role>, Error> {
    let database = &plan.target.dbname;
    let mut wanted = Vec::new();
    if let Some(role) = &plan.role {
        wanted.push(Role::look(client, role, Purpose::Relay, relay_grants(settings, database)).await?);
    }
    if let Some(role) = &options.app_role {
        let mut sequences = Vec::new();
        for route in tables {
            sequences.extend(roles::default_sequences(client, route.table()).await?);
        }
        let grants = application_grants(database, tables, sequences);
        wanted.push(Role::look(client, role, Purpose::Application, grants).await?);
    }
    Ok(wanted)
}

/// What `run` needs beside REPLICATION.
pub(super) fn relay_grants(settings: &Settings, database: &str) -> Vec<Grant> {
    let mut grants = vec![Grant::new(&["CONNECT"], Object::Database(database.to_owned()))];
    if settings.source.store_position {
        grants.push(Grant::new(&["USAGE"], Object::Schema("walrelay".to_owned())));
        let table = Object::Table("walrelay".to_owned(), "position".to_owned());
        grants.push(Grant::new(&["SELECT", "INSERT", "UPDATE"], table));
    }
    grants
}

/// What an application needs that only writes events.
pub(super) fn application_grants(database: &str, tables: &[Route], sequences: Vec<(String, String)>) -> Vec<Grant> {
    let mut grants = vec![Grant::new(&["CONNECT"], Object::Database(database.to_owned()))];
    for (schema, table) in tables.iter().map(Route::table) {
        let usage = Grant::new(&["USAGE"], Object::Schema(schema.to_owned()));
        if !grants.contains(&usage) {
            grants.push(usage);
        }
        grants.push(Grant::new(&["INSERT"], Object::Table(schema.to_owned(), table.to_owned())));
    }
    let sequences = sequences.into_iter().map(|(schema, name)| Object::Sequence(schema, name));
    grants.extend(sequences.map(|sequence| Grant::new(&["USAGE"], sequence)));
    grants
}
