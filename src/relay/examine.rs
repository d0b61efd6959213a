//! What is asked before the stream starts, on a short ordinary connection: what the server is to us, whether the contract holds, and
//! what is stored.
//!
//! Nothing is created. What follows goes to the same server: of several, another might not know the slot.

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
use crate::relay::resume::Stored;
use crate::relay::route::Route;
use crate::relay::synchronous;
use crate::relay::wal;
use crate::relay::wal::Ordinary;
use crate::relay::wal::Target;

/// How long the server may take for all the answers.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
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

/// Asks everything.
pub(super) async fn examine(target: &Target, settings: &Settings, routes: &[Route]) -> Result<Examined, Error> {
    let name = format!("{} check", settings.relay.name);
    let ordinary =
        wal::connect_ordinary(target, &settings.postgres, &name).await.map_err(Error::wal("connect to PostgreSQL"))?;
    let asked = tokio::time::timeout(LIMIT, ask(&ordinary, &target.user, settings, routes)).await;
    let late = Error::Wal { action: "read the catalog", source: wal::Error::NoAnswer { limit: LIMIT } };
    let (Standing { started, .. }, facts, stored, watch) = asked.unwrap_or(Err(late))?;
    let target = target.only(&ordinary.found);
    Ok(Examined { target, facts, stored, watch, server_started: started, ordinary })
}

async fn ask(
    Ordinary { client, found, .. }: &Ordinary,
    user: &str,
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
    if source.store_position {
        let stored = position::load(client, &source.slot).await.map_err(|error| error.of_role(user))?;
        let watch = Watch::begin(client, &source.slot, &source.publication, routes, Some(stored.position)).await?;
        return Ok((standing, facts, Some(stored), watch));
    }
    if let Err(error) = position::forgo(client, &source.slot).await {
        // Without the table, or without any right to it, there may be no row at all.
        tracing::info!(error = chain(&error), "the stored position, if there is one, cannot be marked as not kept");
    }
    let watch = Watch::begin(client, &source.slot, &source.publication, routes, None).await?;
    Ok((standing, facts, None, watch))
}
