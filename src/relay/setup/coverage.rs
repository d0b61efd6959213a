//! What setup does about events that may have been omitted: it fails, or accepts the gap.

use tokio_postgres::Client;

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;
use crate::relay::stream::catalog_watch;

use super::Error;
use super::SetupOptions;
use super::stored;

/// Stores the coverage beside the position after a successful check; or reports which events may have been omitted.
pub(super) async fn keep(
    client: &Client,
    settings: &Settings,
    options: &SetupOptions,
    routes: &[Route],
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let version = catalog::version(client).await.map_err(RelayError::from)?;
    let look = catalog_watch::look(client, publication, routes, version).await.map_err(RelayError::from)?;
    let (stored, kept) =
        (stored(client, slot).await?, catalog_watch::load(client, slot).await.map_err(RelayError::from)?);
    let (Some(found), Some(stored)) = (look.coverage, stored) else { return Ok(()) };
    if let Some(kept) = &kept
        && let Some(what) = kept.unseen(&found)
    {
        let unseen = catalog::Error::Unseen { what, from: stored.position, to: look.wal_end };
        if !options.accept_gap {
            return Err(RelayError::from(unseen).into());
        }
        report(&format!("accepting a gap: {unseen}"));
    }
    catalog_watch::save(client, slot, &found).await.map_err(RelayError::from)?;
    Ok(())
}
