//! Creates what `run` needs: publication, slot, stored position, in this order.
//!
//! The order matters: a slot created before its publication fails permanently at the first change. `compare` looks at
//! the servers and gives the statements for what they lack; `apply` runs them one by one, can be repeated, and checks
//! and adopts existing objects.
//!
//! ```text
//!   options -> wal | poll: look at the server -> difference (SQL, who runs it, what to know)
//!                                |                 ^
//!                                +-- columns, roles, grants, statements
//! ```

mod columns;
mod coverage;
mod difference;
mod error;
mod grants;
mod options;
mod poll;
mod roles;
mod server;
mod slots;
mod statements;
mod steps;
mod topics;
mod undecodable;
mod wal;

use std::time::Duration;

use tokio_postgres::Client;

use crate::relay::catalog;
use crate::relay::catalog::Slot;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Session;
use crate::relay::record::route::Route;
use crate::relay::settings::Mode;
use crate::relay::settings::Settings;
use crate::relay::settings::SourceOptions;
use crate::relay::stream::catalog_watch;
use crate::relay::stream::examine;
use crate::relay::stream::position;
use crate::relay::stream::resume;

pub use difference::Change;
pub use difference::Difference;
pub use error::Error;
pub use options::SetupOptions;
pub use options::TopicOptions;
pub use statements::OUTBOX_SQL;
pub use statements::POSITION_SQL;

use options::Plan;
use roles::Purpose;
use statements::create_publication;
use statements::outbox_table;
use statements::publish_table;
use steps::Steps;
use steps::require_fit;
use steps::require_roles;
use steps::run;
use steps::stored;

/// How often the transactions are reported that the creation of the slot waits for.
const BLOCKERS_INTERVAL: Duration = Duration::from_secs(10);

/// Compares the server with what `run` needs, and changes nothing.
pub async fn compare(settings: &Settings, options: &SetupOptions) -> Result<Difference, Error> {
    let plan = options.plan(settings)?;
    let name = format!("{} setup", settings.relay.name);
    let connected = match settings.source.mode {
        Mode::Wal => postgres::connect_ordinary(&plan.target, &plan.config, &name).await,
        Mode::Poll => postgres::connect_shared(&plan.target, &plan.config, &name).await,
    };
    let ordinary = connected.map_err(RelayError::postgres("connect to PostgreSQL"))?;
    let mut difference = match settings.source.mode {
        Mode::Wal => Box::pin(wal::compare(settings, options, &ordinary, &plan)).await?,
        Mode::Poll => Box::pin(poll::compare(settings, options, &ordinary, &plan)).await?,
    };
    topics::compare(settings, options, &mut difference).await?;
    Ok(difference)
}

/// Gives everything that `run` needs, without a server.
pub fn everything(settings: &Settings, options: &SetupOptions) -> Result<Difference, Error> {
    let plan = options.plan(settings)?;
    let mut difference = match settings.source.mode {
        Mode::Wal => wal::everything(settings, options, &plan)?,
        Mode::Poll => poll::everything(settings, options, &plan)?,
    };
    topics::add_all(&topics::names(settings)?, settings, options, &mut difference)?;
    Ok(difference)
}

/// Sets everything up, and reports each step.
pub async fn apply(settings: &Settings, options: &SetupOptions, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let plan = options.plan(settings)?;
    options.topics.check()?;
    let applied = match settings.source.mode {
        Mode::Wal => Box::pin(apply_to(&plan, settings, options, report)).await,
        Mode::Poll => Box::pin(poll::apply(settings, options, &plan, report)).await,
    };
    applied.map_err(|error| match error {
        Error::Relay(error) => error.of_role(&plan.target.user).into(),
        error @ (Error::Statement { .. }
        | Error::Gap { .. }
        | Error::SlotOlder { .. }
        | Error::NoRole { .. }
        | Error::NotGranted { .. }
        | Error::OtherDatabase { .. }
        | Error::WalLevel(_)
        | Error::TooFewReplicas { .. }
        | Error::Topic { .. }
        | Error::NoFreeSlot { .. }
        | Error::NoFailover { .. }) => error,
    })?;
    if options.topics.with_topics {
        topics::create(settings, options, report).await?;
    }
    Ok(())
}

async fn apply_to(
    plan: &Plan,
    settings: &Settings,
    options: &SetupOptions,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let routes = settings.routes()?;
    let name = format!("{} setup", settings.relay.name);
    let ordinary = postgres::connect_ordinary(&plan.target, &plan.config, &name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL"))?;
    // To the same one of several hosts.
    let session = Session::connect(&plan.target.only(&ordinary.found), &plan.config, &name).await;
    let mut session = session.map_err(RelayError::postgres("connect to PostgreSQL for replication"))?;
    let client = &ordinary.client;
    let mut steps = Steps { settings, options, client, session: &mut session, report };
    let roles = [(plan.role.as_ref(), Purpose::Relay), (options.app_role.as_ref(), Purpose::Application)];
    require_roles(client, &roles).await?;
    slots::require_slot(&steps).await?;
    // By their current names.
    let tables = catalog::settle(client, &routes).await.map_err(RelayError::from)?;
    let publication_now = (settings.source.publication.as_str(), steps.session.server_version());
    let new = require_fit(client, &tables, Some(publication_now), steps.report).await?;
    if options.with_outbox {
        for route in &tables {
            let (schema, table) = route.table();
            run(client, &format!("create table {schema}.{table}"), &outbox_table(route)).await?;
            for change in new.iter().filter(|new| new.table() == (schema, table)).flat_map(columns::beside_the_preset) {
                run(client, &change.what, change.sql_text()).await?;
            }
            (steps.report)(&format!("outbox table {schema}.{table} exists"));
        }
    }
    publication(&mut steps, &tables).await?;
    if settings.source.store_position {
        run(client, "create the table of stored positions", POSITION_SQL).await?;
    }
    // Before the slot, which retains WAL from the moment it exists: its relay must be able to start by then.
    grant(&mut steps, plan, &tables).await?;
    let slot = slot(&mut steps).await?;
    if settings.source.store_position {
        position(&mut steps, slot).await?;
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

/// Gives the roles what they lack.
async fn grant(steps: &mut Steps<'_>, plan: &Plan, tables: &[Route]) -> Result<(), Error> {
    let Steps { settings, options, client, report, .. } = steps;
    for role in grants::wanted_roles(settings, options, plan, client, tables).await? {
        let mut difference = Difference::default();
        role.compare(None, &mut difference);
        for change in difference.changes {
            run(client, &change.what, change.sql_text()).await?;
        }
        if let Some(attributes) = role.altered() {
            report(&format!("role {} altered: {attributes}", role.name));
        }
    }
    for role in grants::wanted_roles(settings, options, plan, client, tables).await? {
        role.require_granted()?;
        report(&format!("privileges granted to role {}", role.name));
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
                run(client, &what, &publish_table(name, (schema, table))).await?;
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
        slots::enable_failover(steps).await?;
        return Ok(slot);
    }
    if settings.source.store_position
        && !options.accept_gap
        && let Some(stored) = stored(client, name).await?
    {
        return Err(Error::Gap { slot: name.clone(), stored: stored.position });
    }
    let failover = slots::wants_failover(settings.source.failover, version)?;
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
