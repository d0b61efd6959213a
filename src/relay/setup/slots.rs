//! Whether the server has a slot left, where setup needs one.

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;

use super::error::Error;
use super::steps::Steps;
use super::undecodable;

/// Checks it before anything is changed: a gap must not be accepted in part. An existing slot needs copies only where
/// the WAL after it cannot be decoded.
pub(super) async fn require_slot(steps: &Steps<'_>) -> Result<(), Error> {
    let (client, name) = (steps.client, &steps.settings.source.slot);
    let found = catalog::find_slot(client, name, steps.session.server_version()).await.map_err(RelayError::from)?;
    let purpose = match found {
        None => "create the slot",
        Some(slot) if steps.options.accept_gap && undecodable::needs_copies(steps, slot).await? => {
            "find the end of what cannot be decoded"
        }
        Some(_) => return Ok(()),
    };
    let sql = "SELECT count(*), current_setting('max_replication_slots')::bigint FROM pg_replication_slots";
    let counted = client.query_one(sql, &[]).await.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let (used, slots): (i64, i64) = counted.map_err(RelayError::postgres("count the replication slots"))?;
    if used < slots { Ok(()) } else { Err(Error::NoFreeSlot { purpose, slots }) }
}
