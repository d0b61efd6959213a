//! The polling source: server, tables, and the privileges on them.

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::poll::outbox::Outbox;
use crate::relay::poll::outbox::outboxes;
use crate::relay::poll::verify;
use crate::relay::settings::Settings;

use super::connection::Connection;
use super::error::Error;
use super::facts;
use super::outbox_topics;
use super::outbox_topics::TableTopics;
use super::report::Check;
use super::report::Finding;
use super::report::Group;
use super::report::Needed;
use super::report::Outcome;
use super::server;

const ACTION: &str = "read the catalog";

/// Checks everything in PostgreSQL.
pub(super) async fn check(settings: &Settings) -> (Vec<Group>, Vec<TableTopics>) {
    let (login, opened) = Connection::open(settings).await;
    let connection = opened.as_ref().map_err(|needs| *needs);
    let mut checks = vec![login];
    let read = facts::check(connection, settings, &mut checks).await;
    checks.extend(server::checks(read.as_ref().map_err(|needs| *needs), settings));
    let (mut tables, mut topics) = (Vec::new(), Vec::new());
    match outboxes(settings) {
        Ok(outboxes) => {
            for outbox in &outboxes {
                tables.extend(of_table(connection, outbox).await);
                topics.push(topics_of(connection, outbox).await);
            }
        }
        Err(error) => tables.push(Check::new("table", "its rows are the events", Outcome::failed(&error))),
    }
    (vec![Group { name: "postgres", checks }, Group { name: "polling", checks: tables }], topics)
}

async fn topics_of(connection: Needed<&Connection>, outbox: &Outbox) -> TableTopics {
    if let Some(known) = TableTopics::known(&outbox.route) {
        return known;
    }
    let connection = match connection {
        Ok(connection) => connection,
        Err(needs) => return TableTopics::without(&outbox.route, needs),
    };
    let client = &connection.ordinary.client;
    let read = connection.ask(ACTION, async {
        let resolved = verify::resolve(client, outbox).await?;
        outbox_topics::read(client, &resolved.route, Some(&resolved.names.published_at)).await
    });
    TableTopics::read(&outbox.route, "an unpublished row", read.await)
}

async fn of_table(connection: Needed<&Connection>, outbox: &Outbox) -> [Check; 2] {
    let (columns, polling) = match connection {
        Ok(connection) => {
            let columns = columns(connection, outbox).await;
            let polling = match columns {
                Outcome::Passed(_) => polling(connection, outbox).await,
                Outcome::Found(_) | Outcome::Skipped { .. } => Outcome::skipped("table"),
            };
            (columns, polling)
        }
        Err(needs) => (Outcome::skipped(needs), Outcome::skipped(needs)),
    };
    let name = outbox.route.name();
    [
        Check::new("table", "each record is made of its columns", columns).about(&name),
        Check::new("polling", "rows are read by number and marked as published", polling).about(&name),
    ]
}

async fn columns(connection: &Connection, outbox: &Outbox) -> Outcome {
    let client = &connection.ordinary.client;
    let found = connection.ask(ACTION, async {
        let resolved = verify::resolve(client, outbox).await?;
        let (schema, name) = resolved.route.table();
        Ok::<_, RelayError>(catalog::examine_columns(client, &outbox.route.named(schema, name)).await?.1)
    });
    match found.await {
        Ok(wrong) if wrong.is_empty() => Outcome::Passed("has all columns".to_owned()),
        Ok(wrong) => Outcome::Found(wrong.iter().map(|error| Finding::failure(error)).collect()),
        Err(error) => Outcome::failed(&error),
    }
}

async fn polling(connection: &Connection, outbox: &Outbox) -> Outcome {
    let client = &connection.ordinary.client;
    match connection.ask(ACTION, verify::verify(client, outbox)).await {
        Ok(found) => match found.index_statement {
            Some(statement) => Outcome::warned(&Error::NoIndex { table: outbox.route.name(), statement }),
            None => Outcome::Passed("columns, index and privileges are complete".to_owned()),
        },
        Err(error) => Outcome::failed(&error),
    }
}
