//! The checks before the stream starts: on a short ordinary connection the server's state, the catalog and the stored
//! position; on the replication connection the server's identity.
//!
//! Nothing is created. The replication connection goes to the same server of several hosts. [`look`] makes the same
//! checks while Kafka is down: it writes nothing and starts no stream.

use std::time::Duration;

use tokio_postgres::Client;

use crate::relay::catalog::Facts;
use crate::relay::catalog::Slot;
use crate::relay::error::Error;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Session;
use crate::relay::postgres::SystemIdentity;
use crate::relay::postgres::Target;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;
use crate::relay::stream::catalog_watch;
use crate::relay::stream::catalog_watch::CatalogWatch;
use crate::relay::stream::catalog_watch::StartCheck;
use crate::relay::stream::position;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Server;
use crate::relay::stream::resume::Stored;
use crate::relay::stream::slot_monitor;
use crate::relay::stream::slot_monitor::ServerState;
use crate::relay::stream::synchronous;
use walrelay_events::fault::chain;

/// The timeout of all queries together.
const LIMIT: Duration = Duration::from_secs(10);
/// The timeout of the writes after the start of the stream, which wait meanwhile.
const NOTE_LIMIT: Duration = Duration::from_secs(3);
/// A query without a waiting client ends: otherwise each attempt would leave one more waiting for a lock.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '10s'";

/// The result of the checks.
pub(in crate::relay) struct Examined {
    /// The target with only this server.
    pub(in crate::relay) target: Target,
    /// The facts from the catalog.
    pub(in crate::relay) facts: Facts,
    /// The stored position, if positions are stored.
    pub(in crate::relay) stored: Option<Stored>,
    /// The catalog now, and its stored state.
    pub(in crate::relay) first: StartCheck,
    /// When the server was started.
    pub(in crate::relay) server_started: String,
    /// The connection, for the writes after the start of the stream.
    pub(in crate::relay) ordinary: Ordinary,
}

/// Connects and checks, up to a replication connection that accepts commands.
pub(in crate::relay) async fn open(
    target: &Target,
    settings: &Settings,
    routes: &[Route],
) -> Result<(Session, Server, Examined), Error> {
    // In this order another relay that advances row and slot meanwhile does not look like a loss: the slot is never
    // ahead of the row, and the row never ahead of the WAL.
    let examined = examine(target, settings, routes).await?;
    let (session, server) = identify(&examined, settings).await?;
    Ok((session, server, examined))
}

/// Checks whether a start would succeed, and whether anything was changed since this process checked last.
pub(in crate::relay) async fn look(
    target: &Target,
    settings: &Settings,
    routes: &[Route],
    before: Option<&CatalogWatch>,
    remembered: Option<&Stored>,
) -> Result<(), Error> {
    let (_, server, examined) = open(target, settings, routes).await?;
    if let (None, Some(remembered)) = (&examined.stored, remembered) {
        // Another server has another catalog: it is not a change of this one.
        remembered.is_of(&server.identity.system_id)?;
    }
    resume::decide(&server, examined.stored.as_ref())?;
    examined.first.assess(before).map(drop)
}

async fn identify(
    Examined { target, facts, stored, .. }: &Examined,
    settings: &Settings,
) -> Result<(Session, Server), Error> {
    let failed = Error::postgres("identify the server");
    let mut session = Session::connect(target, &settings.postgres, &settings.relay.name)
        .await
        .map_err(Error::postgres("connect to PostgreSQL for replication"))?;
    let system = postgres::within(LIMIT, session.identify_system()).await.map_err(&failed)?;
    let server = server(&mut session, system, facts.slot, stored.as_ref());
    let server = postgres::within(LIMIT, server).await.map_err(failed)?;
    Ok((session, server))
}

/// Makes the checks on the ordinary connection.
async fn examine(target: &Target, settings: &Settings, routes: &[Route]) -> Result<Examined, Error> {
    let name = format!("{} check", settings.relay.name);
    let ordinary = postgres::connect_ordinary(target, &settings.postgres, &name)
        .await
        .map_err(Error::postgres("connect to PostgreSQL"))?;
    let asked = tokio::time::timeout(LIMIT, ask(&ordinary, settings, routes)).await;
    let asked = asked.unwrap_or(Err(late("read the catalog"))).map_err(|error| error.of_role(&target.user));
    let (ServerState { started, .. }, facts, stored, first) = asked?;
    let target = target.only(&ordinary.found);
    Ok(Examined { target, facts, stored, first, server_started: started, ordinary })
}

fn late(action: &'static str) -> Error {
    Error::Postgres { action, source: postgres::Error::NoAnswer { limit: LIMIT } }
}

/// Writes beside the stored position that this relay is running, and the coverage if it is new; or that positions are
/// not stored. Only for the relay that holds the slot: before, the row belongs to another one.
pub(in crate::relay) async fn note(
    client: &Client,
    news: Option<&CatalogWatch>,
    settings: &Settings,
) -> Result<(), Error> {
    let slot = &settings.source.slot;
    if !settings.source.store_position {
        if let Err(error) = position::invalidate(client, slot).await {
            // Without the table, or without a privilege on it, there may be no row.
            tracing::info!(error = chain(&error), "cannot invalidate the stored position");
        }
        return Ok(());
    }
    let writing = async {
        position::claim(client, slot).await;
        if let Some(watch) = news { watch.keep(client).await } else { Ok(()) }
    };
    Ok(tokio::time::timeout(NOTE_LIMIT, writing).await.unwrap_or(Err(position::Error::late(NOTE_LIMIT)))?)
}

async fn ask(
    Ordinary { client, found, .. }: &Ordinary,
    settings: &Settings,
    routes: &[Route],
) -> Result<(ServerState, Facts, Option<Stored>, StartCheck), Error> {
    let (source, action) = (&settings.source, "read the state of the server");
    client.batch_execute(STATEMENT_LIMIT).await.map_err(Error::postgres(action))?;
    let server_state = slot_monitor::server_state(client).await.map_err(Error::postgres(action))?;
    if server_state.is_in_recovery {
        return Err(Error::Postgres { action, source: postgres::Error::ReadOnly { host: found.host.to_string() } });
    }
    if synchronous::includes(&server_state.synchronous_names, &settings.relay.name) {
        return Err(Error::Synchronous { names: server_state.synchronous_names });
    }
    let (slot, publication) = (&source.slot, &source.publication);
    let verified = catalog_watch::verify(client, slot, publication, routes, source.store_position).await;
    let facts = match verified {
        Err(error @ Error::Catalog(_)) if source.store_position => return Err(elsewhere(client, slot, error).await),
        verified => verified?,
    };
    let stored = if source.store_position { Some(position::load(client, slot).await?) } else { None };
    let position = stored.as_ref().map(|stored| stored.position);
    let first = StartCheck::look(client, slot, publication, routes, position).await?;
    Ok((server_state, facts, stored, first))
}

/// Collects the server's identity and positions. The end of the stored position's timeline is requested only if the
/// server is on a later one.
pub(in crate::relay) async fn server(
    session: &mut Session,
    system: SystemIdentity,
    slot: Slot,
    stored: Option<&Stored>,
) -> Result<Server, postgres::Error> {
    let SystemIdentity { system_id, timeline, wal_end } = system;
    let left_timeline_at = match stored {
        Some(Stored { identity: of, .. }) if of.system_id == system_id && of.timeline < timeline => {
            match session.timeline_history(timeline).await {
                Ok(history) => resume::timeline_end(&history, of.timeline),
                // The server has no history file any more: the end is unknown.
                Err(postgres::Error::Server(_)) => None,
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    let identity = Identity { system_id, timeline };
    Ok(Server { identity, wal_end, slot_confirmed: slot.confirmed, is_slot_synced: slot.is_synced, left_timeline_at })
}

/// If the stored position belongs to another server, that is the reason of the failed check.
async fn elsewhere(client: &Client, slot: &str, error: Error) -> Error {
    let (Ok(stored), Ok(found)) = (position::load(client, slot).await, position::system_id(client).await) else {
        return error;
    };
    match stored.is_of(&found) {
        Err(lost) => lost.into(),
        Ok(()) => error,
    }
}
