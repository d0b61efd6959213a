//! Creates what `run` needs: publication, slot, stored position, in this order.
//!
//! The order matters: a slot created before its publication fails permanently at the first change. `script` prints the
//! statements; `apply` runs them one by one, can be repeated, and checks and adopts existing objects.

mod coverage;
mod poll;
mod undecodable;

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::lsn::Lsn;
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
use crate::relay::stream::resume::Stored;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

/// The SQL of the outbox table of the walrelay preset.
pub const OUTBOX_SQL: &str = include_str!("../../../sql/outbox.sql");
/// The SQL of the table of stored positions.
pub const POSITION_SQL: &str = include_str!("../../../sql/position.sql");

/// How often the transactions are reported that the creation of the slot waits for.
const BLOCKERS_INTERVAL: Duration = Duration::from_secs(10);

/// What to do besides publication, slot and position.
#[derive(Clone, Debug, Default)]
pub struct SetupOptions {
    /// Create the outbox tables.
    pub with_outbox: bool,
    /// Grant this role the privileges that `run` needs.
    pub role: Option<String>,
    /// Start at the slot's position, although earlier events may be missing.
    pub accept_gap: bool,
}

/// The setup failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same error as in `run`.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// The attempt, as in "create slot walrelay".
        what: String,
        /// The server's error.
        #[source]
        source: postgres::Error,
    },
    /// The slot does not exist, but a position is stored for it.
    #[error("slot {slot:?} was dropped: events after its stored position {stored} may be missing in Kafka")]
    Gap {
        slot: String,
        /// The stored position.
        stored: Lsn,
    },
    /// The slot is older than the publication.
    #[error(
        "slot {slot:?} exists without its publication {publication:?}: it cannot decode WAL written before that exists"
    )]
    SlotOlder { slot: String, publication: String },
    /// The role does not exist.
    #[error("role {0:?} does not exist")]
    NoRole(String),
    /// A failover slot needs PostgreSQL 17.
    #[error("source.failover = \"on\" needs PostgreSQL 17, the server is version {version}")]
    NoFailover {
        /// The major version found.
        version: u32,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Relay(error) => error.code(),
            Self::Statement { source, .. } => source.code(),
            Self::Gap { .. } => Code::new(Exit::PositionLost, 20),
            Self::SlotOlder { .. } => Code::new(Exit::Contract, 30),
            Self::NoFailover { .. } => Code::new(Exit::Configuration, 50),
            Self::NoRole(_) => Code::new(Exit::Rights, 60),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Relay(error) => error.help(),
            Self::Statement { source, .. } if source.remedy().is_some() => source.help(),
            Self::Statement { source, .. } if source.is_missing_table() => Some(
                "create the outbox table first, or run `walrelay setup --apply --with-outbox`; if it has another name, \
                 correct outbox.table"
                    .to_owned(),
            ),
            Self::NoRole(role) => Some(format!(
                "run `CREATE ROLE {} LOGIN REPLICATION PASSWORD '...'`, then run setup again",
                quote(role)
            )),
            Self::Statement { .. } => Some(
                "run setup as a role that owns the outbox table, has CREATE on the database and REPLICATION (--set \
                 postgres.url=...), or run the printed SQL as such a role"
                    .to_owned(),
            ),
            Self::Gap { .. } => Some(
                "compare the outbox table with Kafka, then run `walrelay setup --apply --accept-gap`"
                    .to_owned(),
            ),
            Self::SlotOlder { .. } => Some(
                "events committed since it was dropped are not published: compare the outbox table with Kafka, then \
                 run `walrelay setup --apply --accept-gap`, which creates it and skips nothing that can be decoded"
                    .to_owned(),
            ),
            Self::NoFailover { .. } => Some("set source.failover = \"auto\"".to_owned()),
        }
    }
}

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
    let mut session = Session::connect(target, &settings.postgres, &name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL for replication"))?;
    let ordinary = postgres::connect_ordinary(target, &settings.postgres, &name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL"))?;
    let client = &ordinary.client;
    if let Some(role) = &options.role {
        require_role(client, role).await?;
    }
    // By their current names.
    let tables = catalog::settle(client, &routes).await.map_err(RelayError::from)?;
    if options.with_outbox {
        for route in &tables {
            let (schema, table) = route.table();
            run(client, &format!("create table {schema}.{table}"), &outbox_table(route)).await?;
            report(&format!("outbox table {schema}.{table} exists"));
        }
    }
    publication(client, settings, options, &tables, session.server_version(), report).await?;
    if settings.source.store_position {
        run(client, "create the table of stored positions", POSITION_SQL).await?;
    }
    let slot = slot(client, &mut session, settings, options, report).await?;
    if settings.source.store_position {
        position(client, &mut session, settings, options, slot, report).await?;
    }
    if let Some(role) = &options.role {
        run(client, &format!("grant rights to {role}"), &grants(role, settings.source.store_position)).await?;
        report(&format!("privileges granted to role {role}"));
    }
    let SourceOptions { slot, publication, store_position, .. } = &settings.source;
    catalog_watch::verify(client, slot, publication, &routes, *store_position).await?;
    if *store_position {
        coverage::keep(client, settings, options, &routes, report).await?;
    }
    if options.accept_gap {
        undecodable::pass(client, settings, report).await?;
    }
    Ok(())
}

async fn publication(
    client: &Client,
    settings: &Settings,
    options: &SetupOptions,
    routes: &[Route],
    version: u32,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
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
async fn slot(
    client: &Client,
    session: &mut Session,
    settings: &Settings,
    options: &SetupOptions,
    report: &mut dyn FnMut(&str),
) -> Result<Slot, Error> {
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
async fn position(
    client: &Client,
    session: &mut Session,
    settings: &Settings,
    options: &SetupOptions,
    slot: Slot,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
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

async fn stored(client: &Client, slot: &str) -> Result<Option<Stored>, Error> {
    match position::load(client, slot).await {
        Ok(stored) => Ok(Some(stored)),
        Err(position::Error::Missing { .. }) => Ok(None),
        Err(error) => Err(RelayError::from(error).into()),
    }
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

async fn run(client: &Client, what: &str, sql: &str) -> Result<(), Error> {
    client
        .batch_execute(sql)
        .await
        .map_err(|error| Error::Statement { what: what.to_owned(), source: postgres::Error::from(error) })
}

/// Checks the role before anything is created.
async fn require_role(client: &Client, role: &str) -> Result<(), Error> {
    let sql = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
    let found = client.query_typed_opt(sql, &[(&role, Type::TEXT)]).await;
    let found =
        found.map_err(|error| Error::Statement { what: format!("look for role {role}"), source: error.into() })?;
    found.map(drop).ok_or_else(|| Error::NoRole(role.to_owned()))
}

/// The statement that creates an outbox table.
fn outbox_table(route: &Route) -> String {
    OUTBOX_SQL.replace("public.outbox_events", &quote_table(route.table()))
}

/// The statement that creates the slot as `apply` does. With `auto` the statement checks the server's version itself.
fn create_slot(slot: &str, failover: Failover) -> String {
    let make = |more: &str| format!("pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput'{more})");
    let (plain, with_failover) = (make(""), make(", failover => true"));
    let statement = match failover {
        Failover::Off => format!("SELECT {plain};"),
        Failover::On => format!("SELECT {with_failover};"),
        Failover::Auto => format!(
            "DO $$ BEGIN\n    IF current_setting('server_version_num')::int >= 170000 THEN PERFORM \
             {with_failover};\n    ELSE PERFORM {plain};\n    END IF;\nEND $$;"
        ),
    };
    format!("-- Waits for running transactions.\n{statement}\n")
}

fn create_publication(name: &str, routes: &[Route]) -> String {
    let tables = routes.iter().map(|route| quote_table(route.table()));
    format!(
        "CREATE PUBLICATION {} FOR TABLE {}\n    WITH (publish = 'insert', publish_via_partition_root = true)",
        quote(name),
        tables.collect::<Vec<_>>().join(", ")
    )
}

fn grants(role: &str, store_position: bool) -> String {
    let role = quote(role);
    let mut sql = format!(
        "-- REPLICATION can read the whole cluster: use this role only for walrelay.\nALTER ROLE {role} WITH LOGIN \
         REPLICATION;\n"
    );
    if store_position {
        sql.push_str(&format!(
            "GRANT USAGE ON SCHEMA walrelay TO {role};\nGRANT SELECT, INSERT, UPDATE ON walrelay.position TO {role};\n"
        ));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_statement_creates_the_same_slot_as_apply() {
        assert!(!create_slot("'s'", Failover::Off).contains("failover"));
        assert!(
            create_slot("'s'", Failover::On)
                .contains("SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput', failover => true);")
        );
        let auto = create_slot("'s'", Failover::Auto);
        assert!(auto.contains(">= 170000") && auto.contains("failover => true"), "{auto}");
    }
}
