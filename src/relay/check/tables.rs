//! The outbox tables, and how they are published.

use crate::relay::catalog;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;

use super::connection::Connection;
use super::report::Check;
use super::report::Finding;
use super::report::Needed;
use super::report::Outcome;

const ACTION: &str = "read the catalog";
const TABLE: &str = "each record is made of its columns";
const ROWS: &str = "rows that are not in the WAL are not published";
const PUBLICATION: &str = "it decides which rows the relay receives";
const PUBLISHED: &str = "rows and columns that it omits are not published";

/// Proves that all tables fit and are published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables(());

/// What the checks of the tables found.
pub(super) struct Checked {
    pub(super) checks: Vec<Check>,
    pub(super) tables: Needed<Tables>,
    /// Each table by its current name, if it exists.
    pub(super) found: Vec<Needed<Route>>,
}

/// Checks each table and its publication.
pub(super) async fn check(
    connection: Needed<&Connection>,
    version: Needed<u32>,
    settings: &Settings,
    routes: &[Route],
) -> Checked {
    let mut checks = Vec::new();
    let mut settled = Vec::new();
    for route in routes {
        let (outcome, found) = match connection {
            Ok(connection) => table(connection, route).await,
            Err(needs) => (Outcome::skipped(needs), Err("table")),
        };
        checks.push(Check::new("table", TABLE, outcome).about(route.name()));
        settled.push((route, found));
    }
    let found: Vec<Route> = settled.iter().filter_map(|(_, found)| found.clone().ok()).collect();
    for (route, table) in &settled {
        let outcome = match (connection, table.as_ref().map_err(|needs| *needs)) {
            (Ok(connection), Ok(table)) => rows(connection, table, &found).await,
            (Err(needs), _) | (_, Err(needs)) => Outcome::skipped(needs),
        };
        checks.push(Check::new("table_rows", ROWS, outcome).about(route.name()));
    }
    let name = &settings.source.publication;
    let (outcome, publication) = match connection {
        Ok(connection) => publication(connection, name).await,
        Err(needs) => (Outcome::skipped(needs), Err("publication")),
    };
    checks.push(Check::new("publication", PUBLICATION, outcome).about(name));
    for (route, table) in &settled {
        let outcome = match (connection, version, table.as_ref().map_err(|needs| *needs), publication) {
            (Ok(connection), Ok(version), Ok(table), Ok(())) => published(connection, name, version, table).await,
            (Err(needs), ..) | (_, Err(needs), ..) | (_, _, Err(needs), _) | (.., Err(needs)) => {
                Outcome::skipped(needs)
            }
        };
        checks.push(Check::new("published_table", PUBLISHED, outcome).about(route.name()));
    }
    let failed = checks.iter().find(|check| !matches!(check.outcome, Outcome::Passed(_)));
    let tables = failed.map_or(Ok(Tables(())), |check| Err(check.name));
    Checked { checks, tables, found: settled.into_iter().map(|(_, found)| found).collect() }
}

/// Checks the columns, all of them. Gives the route with the table's current name.
pub(super) async fn table(connection: &Connection, route: &Route) -> (Outcome, Needed<Route>) {
    let client = &connection.ordinary.client;
    let found = connection.ask(ACTION, async {
        let settled = catalog::settle(client, std::slice::from_ref(route)).await?;
        let settled = settled.into_iter().next().unwrap_or_else(|| route.clone());
        let (_, wrong) = catalog::examine_columns(client, &settled).await?;
        Ok::<_, catalog::Error>((settled, wrong))
    });
    match found.await {
        Ok((settled, wrong)) if wrong.is_empty() => (Outcome::Passed("has all columns".to_owned()), Ok(settled)),
        Ok((settled, wrong)) => {
            let findings = wrong.iter().map(|error| Finding::failure(error)).collect();
            (Outcome::Found(findings), Ok(settled))
        }
        Err(error) => (Outcome::failed(&error), Err("table")),
    }
}

async fn rows(connection: &Connection, table: &Route, all: &[Route]) -> Outcome {
    let checked = connection.ask(ACTION, catalog::check_rows(&connection.ordinary.client, table, all)).await;
    Outcome::of("table_rows", checked, |()| "are in the WAL".to_owned()).0
}

/// A publication with wrong options still has tables to check.
async fn publication(connection: &Connection, name: &str) -> (Outcome, Needed<()>) {
    let client = &connection.ordinary.client;
    let (outcome, _) =
        Outcome::of("publication", connection.ask(ACTION, catalog::check_publication(client, name)).await, |()| {
            "publishes inserts".to_owned()
        });
    let exists = connection.ask(ACTION, catalog::has_publication(client, name)).await;
    (outcome, if exists.is_ok_and(|exists| exists) { Ok(()) } else { Err("publication") })
}

async fn published(connection: &Connection, publication: &str, version: u32, table: &Route) -> Outcome {
    let client = &connection.ordinary.client;
    let checked = connection.ask(ACTION, catalog::check_published(client, publication, version, table)).await;
    Outcome::of("published_table", checked, |()| "with all columns".to_owned()).0
}
