//! What setup does about events that may have passed unseen: it refuses, or accepts the gap.

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::record::route::Route;
use crate::relay::stream::catalog_watch;

use super::Error;
use super::Steps;
use super::stored;

/// Keeps how the catalog stands beside the position, now that the contract holds; or says what may have passed unseen.
pub(super) async fn keep(steps: &mut Steps<'_>, routes: &[Route]) -> Result<(), Error> {
    let Steps { settings, wish, client, tell, .. } = steps;
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let version = catalog::version(client).await.map_err(RelayError::from)?;
    let look = catalog_watch::look(client, publication, routes, version).await.map_err(RelayError::from)?;
    let (stored, kept) =
        (stored(client, slot).await?, catalog_watch::load(client, slot).await.map_err(RelayError::from)?);
    let (Some(found), Some(stored)) = (&look.coverage, stored) else { return Ok(()) };
    match look.since(kept.as_ref(), stored.position) {
        Ok(_) => {}
        Err(gap) if wish.accept_gap => tell(&format!("accepting a gap: {gap}")),
        Err(gap) => return Err(RelayError::from(gap).into()),
    }
    catalog_watch::save(client, slot, found).await.map_err(RelayError::from)?;
    Ok(())
}
