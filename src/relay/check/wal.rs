//! The source that reads the WAL: server, publication, tables, slot and stored position.
//!
//! It asks in the order of a start: the slot before the stored position, and that before the end of the WAL. A relay
//! that runs meanwhile advances all three, and does not look like a gap.

use crate::relay::catalog;
use crate::relay::catalog::Slot;
use crate::relay::error::Error as RelayError;
use crate::relay::metrics::WalStatus;
use crate::relay::postgres::Session;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;
use crate::relay::stream::catalog_watch::StartCheck;
use crate::relay::stream::examine;
use crate::relay::stream::holder;
use crate::relay::stream::holder::Holder;
use crate::relay::stream::position;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Stored;
use crate::relay::stream::slot_monitor;

use super::connection::Connection;
use super::connection::REPLICATION_CHECK;
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
use super::server::ServerFacts;
use super::tables;
use super::tables::Checked;
use super::tables::Tables;

const CATALOG: &str = "read the catalog";
const POSITION: &str = "read the stored position";

/// Checks everything in PostgreSQL.
pub(super) async fn check(settings: &Settings, routes: &[Route]) -> (Vec<Group>, Vec<TableTopics>) {
    let (login, opened) = Connection::open(settings).await;
    let connection = opened.as_ref().map_err(|needs| *needs);
    let mut checks = vec![login];
    let read = facts::check(connection, settings, &mut checks).await;
    let facts = read.as_ref().map_err(|needs| *needs);
    checks.extend(server::checks(facts, settings));
    checks.extend(server::wal_checks(facts, settings));
    let (replication, session) = replication(connection, facts).await;
    checks.push(Check::new(REPLICATION_CHECK, "the WAL is read through it", replication));
    let version = facts.map(|facts| facts.version);
    let Checked { checks: published, tables, found } = tables::check(connection, version, settings, routes).await;
    let mut topics = Vec::new();
    for (route, table) in routes.iter().zip(&found) {
        topics.push(topics_of(connection, route, table.as_ref().map_err(|needs| *needs)).await);
    }
    // A standby has no end of the WAL to compare with, and its slots and stored position are copies.
    let of_primary = if facts.is_ok_and(|facts| facts.is_in_recovery) { Err("primary") } else { connection };
    let groups = vec![
        Group { name: "postgres", checks },
        Group { name: "publication", checks: published },
        Group { name: "slot", checks: slot(of_primary, version, session, tables, settings, routes).await },
    ];
    (groups, topics)
}

async fn topics_of(connection: Needed<&Connection>, route: &Route, table: Needed<&Route>) -> TableTopics {
    if let Some(known) = TableTopics::known(route) {
        return known;
    }
    match (connection, table) {
        (Ok(connection), Ok(table)) => {
            let client = &connection.ordinary.client;
            let read = connection.ask("read the topics of the rows", async {
                let table = outbox_topics::settled(client, table).await?;
                outbox_topics::read(client, &table, None).await
            });
            TableTopics::read(route, "a row", read.await)
        }
        (Err(needs), _) | (_, Err(needs)) => TableTopics::without(route, needs),
    }
}

async fn replication(connection: Needed<&Connection>, facts: Needed<&ServerFacts>) -> (Outcome, Needed<Session>) {
    match connection {
        Ok(_) if facts.is_ok_and(|facts| !facts.has_free_sender()) => {
            (Outcome::skipped("wal_senders"), Err(REPLICATION_CHECK))
        }
        Ok(connection) => connection.replicate().await,
        Err(needs) => (Outcome::skipped(needs), Err(REPLICATION_CHECK)),
    }
}

async fn slot(
    connection: Needed<&Connection>,
    version: Needed<u32>,
    session: Needed<Session>,
    tables: Needed<Tables>,
    settings: &Settings,
    routes: &[Route],
) -> Vec<Check> {
    let name = &settings.source.slot;
    let (outcome, slot) = match (connection, version) {
        (Ok(connection), Ok(version)) => {
            let found = connection.ask(CATALOG, catalog::check_slot(&connection.ordinary.client, name, version)).await;
            Outcome::of("slot", found, |slot| format!("{name} at {}", slot.confirmed))
        }
        (Err(needs), _) | (_, Err(needs)) => (Outcome::skipped(needs), Err("slot")),
    };
    let mut checks = vec![Check::new("slot", "it keeps the WAL that is not delivered yet", outcome)];
    let of_slot = connection.and_then(|connection| slot.map(|_| connection));
    checks.push(Check::new("slot_holder", "one process at a time can use a slot", held(of_slot, settings).await));
    checks.push(Check::new("slot_wal", "a slot that retains too much WAL is lost", retained(of_slot, settings).await));
    if !settings.source.store_position {
        checks.push(Check::new("stored_position", "it shows gaps", Outcome::warned(&Error::NotStored)));
        return checks;
    }
    let (outcome, stored) = stored(connection, settings).await;
    checks.push(Check::new("stored_position", "the relay writes it before it confirms a position", outcome));
    let stored = stored.as_ref().map_err(|needs| *needs);
    let start = start(connection, session, slot, stored).await;
    checks.push(Check::new("start_position", "a slot that another client moved may hide events", start));
    let changes = changes(connection, tables, stored, settings, routes).await;
    checks.push(Check::new("catalog_changes", "events of a time without the publication are not in it", changes));
    checks
}

async fn held(connection: Needed<&Connection>, settings: &Settings) -> Outcome {
    let connection = match connection {
        Ok(connection) => connection,
        Err(needs) => return Outcome::skipped(needs),
    };
    let slot = &settings.source.slot;
    match connection.ask(CATALOG, holder::of_slot(&connection.ordinary.client, slot)).await {
        Ok(None) => Outcome::Passed("nobody".to_owned()),
        Ok(Some(holder)) => held_by(holder, slot, &settings.relay.name),
        Err(error) => Outcome::failed(&error),
    }
}

/// A holder without a name may be the relay of this configuration: of another role's session the server shows no name.
fn held_by(holder: Holder, slot: &str, relay: &str) -> Outcome {
    let Holder { pid, application_name, .. } = holder;
    if application_name == relay {
        return Outcome::Passed(format!("a relay of this name, process {pid}"));
    }
    let is_unnamed = application_name.is_empty();
    let found = Finding::warning(&Error::Held { slot: slot.to_owned(), pid, application_name });
    let ask = || {
        format!(
            "find out whose process it is: run `SELECT usename, application_name, client_addr FROM pg_stat_activity \
             WHERE pid = {pid}` as a superuser; nothing is wrong if it is a relay of this configuration"
        )
    };
    Outcome::Found(vec![found.then(is_unnamed.then(ask))])
}

async fn retained(connection: Needed<&Connection>, settings: &Settings) -> Outcome {
    let connection = match connection {
        Ok(connection) => connection,
        Err(needs) => return Outcome::skipped(needs),
    };
    let slot = &settings.source.slot;
    let looked = async {
        let looked = slot_monitor::look(&connection.ordinary.client, slot).await;
        looked.map_err(RelayError::postgres("read the state of the slot"))
    };
    match connection.ask("read the state of the slot", looked).await {
        Ok(None) => Outcome::skipped("slot"),
        Ok(Some(view)) if view.wal_status == Some(WalStatus::Unreserved) => {
            Outcome::warned(&Error::Unreserved { slot: slot.clone() })
        }
        Ok(Some(view)) => Outcome::Passed(format!("{} MiB retained", view.retained_wal_bytes >> 20)),
        Err(error) => Outcome::failed(&error),
    }
}

async fn stored(connection: Needed<&Connection>, settings: &Settings) -> (Outcome, Needed<Stored>) {
    let connection = match connection {
        Ok(connection) => connection,
        Err(needs) => return (Outcome::skipped(needs), Err("stored_position")),
    };
    let client = &connection.ordinary.client;
    let loaded = connection.ask(POSITION, async {
        let stored = position::load(client, &settings.source.slot).await?;
        position::check_write(client).await?;
        Ok::<_, position::Error>(stored)
    });
    Outcome::of("stored_position", loaded.await, |stored| stored.position.to_string())
}

async fn start(
    connection: Needed<&Connection>,
    session: Needed<Session>,
    slot: Needed<Slot>,
    stored: Needed<&Stored>,
) -> Outcome {
    let (connection, mut session, slot, stored) = match (connection, session, slot, stored) {
        (Ok(connection), Ok(session), Ok(slot), Ok(stored)) => (connection, session, slot, stored),
        (Err(needs), ..) | (_, Err(needs), ..) | (_, _, Err(needs), _) | (.., Err(needs)) => {
            return Outcome::skipped(needs);
        }
    };
    let action = "identify the server";
    let server = connection.within(action, async {
        let system = session.identify_system().await.map_err(RelayError::postgres(action))?;
        let server = examine::server(&mut session, system, slot, Some(stored)).await;
        server.map_err(RelayError::postgres(action))
    });
    let decided = match server.await {
        Ok(server) => resume::decide(&server, Some(stored)).map_err(RelayError::from),
        Err(error) => Err(error),
    };
    Outcome::of("start_position", decided, |start| start.lsn().to_string()).0
}

async fn changes(
    connection: Needed<&Connection>,
    tables: Needed<Tables>,
    stored: Needed<&Stored>,
    settings: &Settings,
    routes: &[Route],
) -> Outcome {
    let (connection, stored) = match (connection, tables, stored) {
        (Ok(connection), Ok(_), Ok(stored)) => (connection, stored),
        (Err(needs), ..) | (_, Err(needs), _) | (.., Err(needs)) => return Outcome::skipped(needs),
    };
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let client = &connection.ordinary.client;
    let looked = connection.ask(CATALOG, async {
        StartCheck::look(client, slot, publication, routes, Some(stored.position)).await?.assess(None)
    });
    Outcome::of("catalog_changes", looked.await, |_| format!("none since {}", stored.position)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_holder_with_the_name_of_another_program_is_to_be_terminated() {
        for (name, warns, advice) in
            [("shop", false, ""), ("debezium", true, "pg_terminate_backend(7)"), ("", true, "whose process it is")]
        {
            let holder = Holder { pid: 7, application_name: name.to_owned(), client: None };
            let check = Check::new("slot_holder", "", held_by(holder, "walrelay", "shop"));
            let next = check.findings().iter().filter_map(|finding| finding.next.clone()).collect::<String>();
            assert_eq!(!check.findings().is_empty(), warns, "{check:?}");
            assert!(next.contains(advice) && next.contains("terminate") == (name == "debezium"), "{check:?}");
        }
    }
}
