//! What setup does about events that may have been omitted: it fails, or accepts the gap.

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::record::route::Route;
use crate::relay::stream::catalog_watch;

use super::error::Error;
use super::steps::Steps;
use super::steps::stored;

/// Stores the coverage beside the position after a successful check; or reports which events may have been omitted.
pub(super) async fn keep(steps: &mut Steps<'_>, routes: &[Route]) -> Result<(), Error> {
    let Steps { settings, options, client, report, .. } = steps;
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let version = catalog::version(client).await.map_err(RelayError::from)?;
    let look = catalog_watch::look(client, publication, routes, version).await.map_err(RelayError::from)?;
    let (stored, kept) =
        (stored(client, slot).await?, catalog_watch::load(client, slot).await.map_err(RelayError::from)?);
    let (Some(found), Some(stored)) = (&look.coverage, stored) else { return Ok(()) };
    match look.since(kept.as_ref(), stored.position) {
        Ok(_) => {}
        Err(gap) if options.accept_gap => report(&format!("accepting a gap: {gap}")),
        Err(gap) => return Err(RelayError::from(gap).into()),
    }
    catalog_watch::save(client, slot, found).await.map_err(RelayError::from)?;
    Ok(())
}
