//! What setup does about events that may have passed unseen: it refuses, or accepts the gap.

use tokio_postgres::Client;

use crate::relay::Error as RelayError;
use crate::relay::Settings;
use crate::relay::catalog_watch;
use crate::relay::contract;
use crate::relay::route::Route;
use crate::relay::wal;

use super::Error;
use super::Wish;
use super::stored;

/// Keeps how the catalog stands beside the position, now that the contract holds; or says what may have passed unseen.
pub(super) async fn keep(
    client: &Client,
    settings: &Settings,
    wish: &Wish,
    routes: &[Route],
    tell: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let (slot, publication) = (&settings.source.slot, &settings.source.publication);
    let version = contract::version(client).await.map_err(RelayError::from)?;
    let look = catalog_watch::look(client, publication, routes, version).await.map_err(RelayError::from)?;
    let (stored, kept) =
        (stored(client, slot).await?, catalog_watch::load(client, slot).await.map_err(RelayError::from)?);
    let (Some(found), Some(stored)) = (look.coverage, stored) else { return Ok(()) };
    if let Some(kept) = &kept
        && let Some(what) = kept.unseen(&found)
    {
        let unseen = contract::Error::Unseen { what, from: stored.position, to: look.wal_end };
        if !wish.accept_gap {
            return Err(RelayError::from(unseen).into());
        }
        tell(&format!("accepting a gap: {unseen}"));
        if kept.is_other_publication(&found) && version < 180_000 {
            // Decoding fails where the publication did not exist; advancing calls no plugin.
            let advance = "WITH moved AS (
                               SELECT end_lsn FROM pg_replication_slot_advance($1::text::name, pg_current_wal_insert_lsn()))
                           UPDATE walrelay.position SET position = moved.end_lsn, stored_at = now() FROM moved
                           WHERE slot = $1::text::name";
            let failed =
                |error| Error::Statement { what: format!("advance slot {slot}"), source: wal::Error::from(error) };
            client.execute(advance, &[slot]).await.map_err(failed)?;
            tell("the slot is advanced past the time without the publication");
        }
    }
    catalog_watch::save(client, slot, &found).await.map_err(RelayError::from)?;
    Ok(())
}
