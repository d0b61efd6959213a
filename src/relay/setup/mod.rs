//! Creates what `run` needs: publication, slot, stored position, in this order.
//!
//! The order matters: a slot created before its publication fails permanently at the first change. `script` prints the
//! statements; `apply` runs them one by one, can be repeated, and checks and adopts existing objects.

mod coverage;
mod error;
mod options;
mod poll;
mod slots;
mod statements;
mod steps;
mod undecodable;

use std::time::Duration;

use tokio_postgres::Client;

use crate::relay::catalog;
use crate::relay::catalog::Slot;
use crate::relay::catalog::quote;
use crate::relay::catalog::quote_table;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Session;
use crate::relay::postgres::Target;
use crate::relay::postgres::literal;
use crate::relay::record::route::Route;
use crate::relay::settings::Failover;
use crate::relay::settings::Mode;
use crate::relay::settings::Settings;
use crate::relay::settings::SourceOptions;
use crate::relay::stream::catalog_watch;
use crate::relay::stream::examine;
use crate::relay::stream::position;
use crate::relay::stream::resume;

pub use error::Error;
pub use options::SetupOptions;
pub use statements::OUTBOX_SQL;
pub use statements::POSITION_SQL;

use statements::create_publication;
use statements::create_slot;
use statements::grants;
use statements::outbox_table;
use steps::Steps;
use steps::require_role;
use steps::run;
use steps::stored;

/// How often the transactions are reported that the creation of the slot waits for.
const BLOCKERS_INTERVAL: Duration = Duration::from_secs(10);

/// Prints what `apply` would run, as one SQL script.
pub fn script(settings: &Settings, options: &SetupOptions) -> Result<String, RelayError> {
    if settings.source.mode == Mode::Poll {
        return poll::script(settings, options);
    }
    let routes = settings.routes()?;
    let source = &settings.source;
    let slot = literal(&source.slot);
    let mut parts = vec![
        "-- Run these statements one by one (as psql does): a transaction that has written cannot create a slot.\n"
            .to_owned(),
    ];
    if options.with_outbox {
        parts.extend(routes.iter().map(outbox_table));
    }
    parts.push(format!(
        "-- Before the slot: a slot created first fails at its first change.\n{};\n",
        create_publication(&source.publication, &routes)
    ));
    parts.push(create_slot(&slot, source.failover));
    if source.store_position {
        parts.push(POSITION_SQL.to_owned());
        parts.push(format!(
            "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position, released_at)\n\
             SELECT s.slot_name, c.system_identifier::text, p.timeline_id, s.confirmed_flush_lsn, \
             s.confirmed_flush_lsn, now()\n\
             FROM pg_catalog.pg_replication_slots s, pg_catalog.pg_control_system() c, \
             pg_catalog.pg_control_checkpoint() p\n\
             WHERE s.slot_name = {slot};\n"
        ));
    }
    if let Some(role) = &options.role {
        parts.push(grants(role, source.store_position));
    }
    Ok(parts.join("\n"))
}

/// Sets everything up, and reports each step.
pub async fn apply(settings: &Settings, options: &SetupOptions, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if settings.source.mode == Mode::Poll {
        return Box::pin(poll::apply(settings, options, report)).await;
    }
    let target = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres("read the configuration"))?;
    let applied = Box::pin(apply_to(&target, settings, options, report)).await;
    applied.map_err(|error| match error {
        Error::Relay(error) => error.of_role(&target.user).into(),
        error @ (Error::Statement { .. }
        | Error::Gap { .. }
        | Error::SlotOlder { .. }
        | Error::NoRole(_)
        | Error::NoFreeSlot { .. }
        | Error::NoFailover { .. }) => error,
    })
}

async fn apply_to(
    target: &Target,
    settings: &Settings,
    options: &SetupOptions,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let routes = settings.routes()?;
    let name = format!("{} setup", settings.relay.name);
    let ordinary = postgres::connect_ordinary(target, &settings.postgres, &name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL"))?;
    // To the same one of several hosts.
    let session = Session::connect(&target.only(&ordinary.found), &settings.postgres, &name).await;
    let mut session = session.map_err(RelayError::postgres("connect to PostgreSQL for replication"))?;
    let client = &ordinary.client;
    let mut steps = Steps { settings, options, client, session: &mut session, report };
    if let Some(role) = &options.role {
        require_role(client, role).await?;
    }
    slots::require_slot(&steps).await?;
    // By their current names.
    let tables = catalog::settle(client, &routes).await.map_err(RelayError::from)?;
    if options.with_outbox {
        for route in &tables {
            let (schema, table) = route.table();
            run(client, &format!("create table {schema}.{table}"), &outbox_table(route)).await?;
            (steps.report)(&format!("outbox table {schema}.{table} exists"));
        }
    }
    publication(&mut steps, &tables).await?;
    if settings.source.store_position {
        run(client, "create the table of stored positions", POSITION_SQL).await?;
    }
    let slot = slot(&mut steps).await?;
    if settings.source.store_position {
        position(&mut steps, slot).await?;
    }
    if let Some(role) = &options.role {
        run(client, &format!("grant rights to {role}"), &grants(role, settings.source.store_position)).await?;
        (steps.report)(&format!("privileges granted to role {role}"));
    }
    let SourceOptions { slot, publication, store_position, .. } = &settings.source;
    catalog_watch::verify(client, slot, publication, &routes, *store_position).await?;
    if *store_position {
        coverage::keep(&mut steps, &routes).await?;
    }
    if options.accept_gap {
        undecodable::pass(&mut steps).await?;
    }
    Ok(())
}

async fn publication(steps: &mut Steps<'_>, routes: &[Route]) -> Result<(), Error> {
    let Steps { settings, options, client, session, report } = steps;
    let version = session.server_version();
    let name = &settings.source.publication;
    if catalog::has_publication(client, name).await.map_err(RelayError::from)? {
        report(&format!("publication {name} exists"));
        for (schema, table) in routes.iter().map(Route::table) {
            if !catalog::publishes(client, name, (schema, table)).await.map_err(RelayError::from)? {
                let what = format!("add table {schema}.{table} to publication {name}");
                let full = quote_table((schema, table));
                run(client, &what, &format!("ALTER PUBLICATION {} ADD TABLE {full}", quote(name))).await?;
                report(&format!(
                    "table {schema}.{table} added to the publication: events committed before are not published"
                ));
            }
        }
        return Ok(());
    }
    let slot = &settings.source.slot;
    // WAL since it was dropped cannot be decoded, or its events are not published.
    let is_slot_older = catalog::find_slot(client, slot, version).await.map_err(RelayError::from)?.is_some();
    if is_slot_older && !options.accept_gap {
        return Err(Error::SlotOlder { slot: slot.clone(), publication: name.clone() });
    }
    run(client, &format!("create publication {name}"), &create_publication(name, routes)).await?;
    report(&format!("publication {name} created"));
    Ok(())
}

/// Creates the slot, or adopts an existing one. Gives its position.
async fn slot(steps: &mut Steps<'_>) -> Result<Slot, Error> {
    let Steps { settings, options, client, session, report } = steps;
    let name = &settings.source.slot;
    let version = session.server_version();
    let found = catalog::find_slot(client, name, version).await.map_err(RelayError::from)?;
    if let Some(slot) = found {
        report(&format!("slot {name} exists, at {}", slot.confirmed));
        return Ok(slot);
    }
    if settings.source.store_position
        && !options.accept_gap
        && let Some(stored) = stored(client, name).await?
    {
        return Err(Error::Gap { slot: name.clone(), stored: stored.position });
    }
    let failover = match settings.source.failover {
        Failover::Off => false,
        Failover::Auto => version >= 170_000,
        Failover::On if version >= 170_000 => true,
        Failover::On => return Err(Error::NoFailover { version: version / 10_000 }),
    };
    let mut creation = std::pin::pin!(session.create_slot(name, failover));
    let created = loop {
        tokio::select! {
            created = &mut creation => break created,
            () = tokio::time::sleep(BLOCKERS_INTERVAL) => report(&blockers(client).await),
        }
    };
    let created = created.map_err(|source| Error::Statement { what: format!("create slot {name}"), source })?;
    report(&format!("slot {name} created at {}", created.consistent_point));
    Ok(Slot { confirmed: created.consistent_point, is_synced: false })
}

/// Stores the slot's position, or checks the stored one.
async fn position(steps: &mut Steps<'_>, slot: Slot) -> Result<(), Error> {
    let Steps { settings, options, client, session, report } = steps;
    let name = &settings.source.slot;
    // The row before the end of the WAL: a running relay advances both.
    let stored = stored(client, name).await?;
    let system = session.identify_system().await.map_err(RelayError::postgres("identify the server"))?;
    let server = examine::server(session, system, slot, stored.as_ref());
    let server = server.await.map_err(RelayError::postgres("identify the server"))?;
    if let Some(stored) = stored {
        // As `run` decides: a valid position stays, and only a gap can be accepted.
        match resume::decide(&server, Some(&stored)) {
            Ok(_) => {
                report(&format!("stored position {} exists", stored.position));
                return Ok(());
            }
            Err(lost) if options.accept_gap => report(&format!("accepting a gap: {lost}")),
            Err(lost) => return Err(RelayError::from(lost).into()),
        }
    }
    let replace = position::replace(client, name, &server.identity, slot.confirmed);
    replace.await.map_err(RelayError::from)?;
    report(&format!("position {} stored", slot.confirmed));
    Ok(())
}

/// Lists the sessions that a new slot waits for.
async fn blockers(client: &Client) -> String {
    let sql = "SELECT coalesce(string_agg(pid::text || ' (' || application_name || ', ' || state || ')', ', '
                                          ORDER BY xact_start), 'none visible')
               FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    let found = client.query_one(sql, &[]).await.and_then(|row| row.try_get::<_, String>(0));
    match found {
        Ok(pids) => format!("the slot waits for running transactions: {pids}"),
        Err(_) => "the slot waits for running transactions".to_owned(),
    }
}
