//! What is asked before the stream starts: on a short ordinary connection what the server is to us, whether the contract holds, and
//! what is stored; on the replication connection who the server is.
//!
//! Nothing is created. What follows goes to the same server: of several, another might not know the slot. A [`look`] asks the same
//! while Kafka is down: it writes nothing, starts no stream, so that it holds no slot, and leaves no connection behind.

use std::time::Duration;

use crate::fault::chain;
use crate::relay::Error;
use crate::relay::Settings;
use crate::relay::catalog_watch::Watch;
use crate::relay::contract;
use crate::relay::contract::Facts;
use crate::relay::lookout;
use crate::relay::lookout::Standing;
use crate::relay::position;
use crate::relay::resume;
use crate::relay::resume::Identity;
use crate::relay::resume::Server;
use crate::relay::resume::Stored;
use crate::relay::route::Route;
use crate::relay::synchronous;
use crate::relay::wal;
use crate::relay::wal::Ordinary;
use crate::relay::wal::Session;
use crate::relay::wal::Target;

/// How long the server may take for all the answers.
const LIMIT: Duration = Duration::from_secs(10);
/// A question that nobody waits for any more ends by itself: each attempt would leave one more behind a lock.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '10s'";

/// What was found.
pub(super) struct Examined {
    /// The way to this one server.
    pub(super) target: Target,
    /// The contract.
    pub(super) facts: Facts,
    /// The stored position, where positions are stored.
    pub(super) stored: Option<Stored>,
    /// The watch over the catalog, as it was found.
    pub(super) watch: Watch,
    /// When the server was started.
    pub(super) server_started: String,
    /// The connection, for what is noted once the stream has started.
    pub(super) ordinary: Ordinary,
}

/// Connects, as far as commands of the replication protocol are taken.
pub(super) async fn open(
    target: &Target,
    settings: &Settings,
    routes: &[Route],
) -> Result<(Session, Server, Examined), Error> {
    // In this order another relay that moves row and slot meanwhile is not mistaken for a loss: the slot is never
    // ahead of the row, and the row never ahead of the log.
    let mut examined = examine(target, settings, routes).await?;
    let noted = tokio::time::timeout(LIMIT, note(&mut examined, settings)).await;
    noted.unwrap_or(Err(late("write beside the stored position"))).map_err(|error| error.of_role(&target.user))?;
    let (session, server) = identify(&examined, settings).await?;
    Ok((session, server, examined))
}

/// Looks whether a start would find everything as it must be.
pub(super) async fn look(target: &Target, settings: &Settings, routes: &[Route]) -> Result<(), Error> {
    let examined = examine(target, settings, routes).await?;
    let (_, server) = identify(&examined, settings).await?;
    resume::decide(&server, examined.stored.as_ref())?;
    Ok(())
}

async fn identify(Examined { target, facts, .. }: &Examined, settings: &Settings) -> Result<(Session, Server), Error> {
    let mut session = Session::connect(target, &settings.postgres, &settings.relay.name)
        .await
        .map_err(Error::wal("connect to PostgreSQL for replication"))?;
    let system = wal::within(LIMIT, session.identify_system()).await.map_err(Error::wal("identify the server"))?;
    let identity = Identity { system_id: system.system_id, timeline: system.timeline };
    Ok((session, Server { identity, wal_end: system.wal_end, slot_confirmed: facts.slot_confirmed }))
}

/// Asks everything.
async fn examine(target: &Target, settings: &Settings, routes: &[Route]) -> Result<Examined, Error> {
    let name = format!("{} check", settings.relay.name);
    let ordinary =
        wal::connect_ordinary(target, &settings.postgres, &name).await.map_err(Error::wal("connect to PostgreSQL"))?;
    let asked = tokio::time::timeout(LIMIT, ask(&ordinary, settings, routes)).await;
    let asked = asked.unwrap_or(Err(late("read the catalog"))).map_err(|error| error.of_role(&target.user));
    let (Standing { started, .. }, facts, stored, watch) = asked?;
    let target = target.only(&ordinary.found);
    Ok(Examined { target, facts, stored, watch, server_started: started, ordinary })
}

fn late(action: &'static str) -> Error {
    Error::Wal { action, source: wal::Error::NoAnswer { limit: LIMIT } }
}

/// Notes beside the stored position what was found, or that positions are not stored.
async fn note(Examined { watch, ordinary, .. }: &mut Examined, settings: &Settings) -> Result<(), Error> {
    let client = &ordinary.client;
    if !settings.source.store_position
        && let Err(error) = position::forgo(client, &settings.source.slot).await
    {
        // Without the table, or without any right to it, there may be no row at all.
        tracing::info!(error = chain(&error), "the stored position, if there is one, cannot be marked as not kept");
    }
    watch.keep(client).await
}

async fn ask(
    Ordinary { client, found, .. }: &Ordinary,
    settings: &Settings,
    routes: &[Route],
) -> Result<(Standing, Facts, Option<Stored>, Watch), Error> {
    let (source, action) = (&settings.source, "ask what the server is");
    client.batch_execute(STATEMENT_LIMIT).await.map_err(|error| Error::wal(action)(error.into()))?;
    let standing = lookout::standing(client).await.map_err(Error::wal(action))?;
    if standing.is_in_recovery {
        return Err(Error::Wal { action, source: wal::Error::ReadOnly { host: found.host.to_string() } });
    }
    if synchronous::counts(&standing.synchronous_names, &settings.relay.name) {
        return Err(Error::Synchronous { names: standing.synchronous_names });
    }
    let facts = contract::verify(client, &source.slot, &source.publication, routes).await?;
    let stored = if source.store_position { Some(position::load(client, &source.slot).await?) } else { None };
    let position = stored.as_ref().map(|stored| stored.position);
    let watch = Watch::begin(client, &source.slot, &source.publication, routes, position).await?;
    Ok((standing, facts, stored, watch))
}
