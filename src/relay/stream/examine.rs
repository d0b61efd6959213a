//! What is asked before the stream starts: on a short ordinary connection what the server is to us, whether the contract holds, and
//! what is stored; on the replication connection who the server is.
//!
//! Nothing is created. What follows goes to the same server: of several, another might not know the slot. A [`look`] asks the same
//! while Kafka is down: it writes nothing, starts no stream, so that it holds no slot, and leaves no connection behind.

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
use crate::relay::stream::catalog_watch::First;
use crate::relay::stream::catalog_watch::Watch;
use crate::relay::stream::position;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Server;
use crate::relay::stream::resume::Stored;
use crate::relay::stream::slot_monitor;
use crate::relay::stream::slot_monitor::Standing;
use crate::relay::stream::synchronous;
use walrelay_events::fault::chain;

/// How long the server may take for all the answers.
const LIMIT: Duration = Duration::from_secs(10);
/// How long what is noted may take, while a stream that has started waits.
const NOTE_LIMIT: Duration = Duration::from_secs(3);
/// A question that nobody waits for any more ends by itself: each attempt would leave one more behind a lock.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '10s'";

/// What was found.
pub(in crate::relay) struct Examined {
    /// The way to this one server.
    pub(in crate::relay) target: Target,
    /// The contract.
    pub(in crate::relay) facts: Facts,
    /// The stored position, where positions are stored.
    pub(in crate::relay) stored: Option<Stored>,
    /// How the catalog was found, and what is kept of before.
    pub(in crate::relay) first: First,
    /// When the server was started.
    pub(in crate::relay) server_started: String,
    /// The connection, for what is noted once the stream has started.
    pub(in crate::relay) ordinary: Ordinary,
}

/// Connects, as far as commands of the replication protocol are taken.
pub(in crate::relay) async fn open(
    target: &Target,
    settings: &Settings,
    routes: &[Route],
) -> Result<(Session, Server, Examined), Error> {
    // In this order another relay that moves row and slot meanwhile is not mistaken for a loss: the slot is never
    // ahead of the row, and the row never ahead of the log.
    let examined = examine(target, settings, routes).await?;
    let (session, server) = identify(&examined, settings).await?;
    Ok((session, server, examined))
}

/// Looks whether a start would find everything as it must be, and as this process found it last.
pub(in crate::relay) async fn look(
    target: &Target,
    settings: &Settings,
    routes: &[Route],
    before: Option<&Watch>,
) -> Result<(), Error> {
    let (_, server, examined) = open(target, settings, routes).await?;
    resume::decide(&server, examined.stored.as_ref())?;
    examined.first.weigh(before).map(drop)
}

async fn identify(
    Examined { target, facts, stored, .. }: &Examined,
    settings: &Settings,
) -> Result<(Session, Server), Error> {
    let failed = Error::wal("identify the server");
    let mut session = Session::connect(target, &settings.postgres, &settings.relay.name)
        .await
        .map_err(Error::wal("connect to PostgreSQL for replication"))?;
    let system = postgres::within(LIMIT, session.identify_system()).await.map_err(&failed)?;
    let server = server(&mut session, system, facts.slot, stored.as_ref());
    let server = postgres::within(LIMIT, server).await.map_err(failed)?;
    Ok((session, server))
}

/// Asks everything.
async fn examine(target: &Target, settings: &Settings, routes: &[Route]) -> Result<Examined, Error> {
    let name = format!("{} check", settings.relay.name);
    let ordinary = postgres::connect_ordinary(target, &settings.postgres, &name)
        .await
        .map_err(Error::wal("connect to PostgreSQL"))?;
    let asked = tokio::time::timeout(LIMIT, ask(&ordinary, settings, routes)).await;
    let asked = asked.unwrap_or(Err(late("read the catalog"))).map_err(|error| error.of_role(&target.user));
    let (Standing { started, .. }, facts, stored, first) = asked?;
    let target = target.only(&ordinary.found);
    Ok(Examined { target, facts, stored, first, server_started: started, ordinary })
}

fn late(action: &'static str) -> Error {
    Error::Wal { action, source: postgres::Error::NoAnswer { limit: LIMIT } }
}

/// Notes beside the stored position that it is ours, and what the catalog says if that is news; or that positions are not stored.
/// Whoever notes has the slot: before, the row is another relay's.
pub(in crate::relay) async fn note(client: &Client, news: Option<&Watch>, settings: &Settings) -> Result<(), Error> {
    let slot = &settings.source.slot;
    if !settings.source.store_position {
        if let Err(error) = position::forgo(client, slot).await {
            // Without the table, or without any right to it, there may be no row at all.
            tracing::info!(error = chain(&error), "the stored position, if there is one, cannot be marked as not kept");
        }
        return Ok(());
    }
    let noting = async {
        position::claim(client, slot).await;
        if let Some(watch) = news { watch.keep(client).await } else { Ok(()) }
    };
    Ok(tokio::time::timeout(NOTE_LIMIT, noting).await.unwrap_or(Err(position::Error::late(NOTE_LIMIT)))?)
}

async fn ask(
    Ordinary { client, found, .. }: &Ordinary,
    settings: &Settings,
    routes: &[Route],
) -> Result<(Standing, Facts, Option<Stored>, First), Error> {
    let (source, action) = (&settings.source, "ask what the server is");
    client.batch_execute(STATEMENT_LIMIT).await.map_err(Error::wal(action))?;
    let standing = slot_monitor::standing(client).await.map_err(Error::wal(action))?;
    if standing.is_in_recovery {
        return Err(Error::Wal { action, source: postgres::Error::ReadOnly { host: found.host.to_string() } });
    }
    if synchronous::counts(&standing.synchronous_names, &settings.relay.name) {
        return Err(Error::Synchronous { names: standing.synchronous_names });
    }
    let (slot, publication) = (&source.slot, &source.publication);
    let verified = catalog_watch::verify(client, slot, publication, routes, source.store_position).await;
    let facts = match verified {
        Err(error @ Error::Contract(_)) if source.store_position => return Err(elsewhere(client, slot, error).await),
        verified => verified?,
    };
    let stored = if source.store_position { Some(position::load(client, slot).await?) } else { None };
    let position = stored.as_ref().map(|stored| stored.position);
    let first = First::look(client, slot, publication, routes, position).await?;
    Ok((standing, facts, stored, first))
}

/// Puts together what the server says of itself. Where it left the timeline of the stored position is asked only if it did.
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
                // A server that has no history any more: then nothing is taken for known.
                Err(postgres::Error::Server(_)) => None,
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    let identity = Identity { system_id, timeline };
    Ok(Server { identity, wal_end, slot_confirmed: slot.confirmed, is_slot_synced: slot.is_synced, left_timeline_at })
}

/// Whatever is missing on a server that the position does not belong to, is missing for that reason.
async fn elsewhere(client: &Client, slot: &str, error: Error) -> Error {
    let (Ok(stored), Ok(found)) = (position::load(client, slot).await, position::system_id(client).await) else {
        return error;
    };
    match stored.is_of(&found) {
        Err(lost) => lost.into(),
        Ok(()) => error,
    }
}
