//! The slot: whether the server has one left, and whether it survives a failover.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::catalog;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::settings::Failover;
use crate::relay::stream::holder;

use super::error::Error;
use super::statements::FAILOVER_SLOTS;
use super::steps::Steps;
use super::undecodable;

/// The timeout of the command that makes a slot a failover slot: a relay may take the slot right before it.
const FAILOVER_LIMIT: Duration = Duration::from_secs(5);

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
    require_free(client, purpose).await
}

/// Checks that one more slot can be created.
pub(super) async fn require_free(client: &Client, purpose: &'static str) -> Result<(), Error> {
    let sql = "SELECT count(*), current_setting('max_replication_slots')::bigint FROM pg_replication_slots";
    let counted = client.query_one(sql, &[]).await.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let (used, slots): (i64, i64) = counted.map_err(RelayError::postgres("count the replication slots"))?;
    if used < slots { Ok(()) } else { Err(Error::NoFreeSlot { purpose, slots }) }
}

/// Says whether the slot must survive a failover on a server of this version.
pub(super) const fn wants_failover(option: Failover, version: u32) -> Result<bool, Error> {
    match option {
        Failover::Off => Ok(false),
        Failover::Auto => Ok(version >= FAILOVER_SLOTS),
        Failover::On if version >= FAILOVER_SLOTS => Ok(true),
        Failover::On => Err(Error::NoFailover { version: version / 10_000 }),
    }
}

/// Says whether an existing slot survives a failover, on a server that has such slots.
pub(super) async fn survives_failover(client: &Client, slot: &str) -> Result<bool, Error> {
    let sql = "SELECT failover FROM pg_replication_slots WHERE slot_name = $1";
    let failed = RelayError::postgres("read the state of the slot");
    let row = client.query_typed_one(sql, &[(&slot, Type::TEXT)]).await.map_err(&failed)?;
    Ok(row.try_get(0).map_err(failed)?)
}

/// Lets an existing slot survive a failover, if that is wanted. A process that holds the slot does not end the setup:
/// everything else is as it should be.
pub(super) async fn enable_failover(steps: &mut Steps<'_>) -> Result<(), Error> {
    let (name, version) = (&steps.settings.source.slot, steps.session.server_version());
    let wanted = wants_failover(steps.settings.source.failover, version)?;
    if !wanted || survives_failover(steps.client, name).await? {
        return Ok(());
    }
    // The command waits for the holder.
    if let Some(holder) = holder::of_slot(steps.client, name).await? {
        (steps.report)(&format!(
            "warning: slot {name} does not survive a failover, and process {} holds it: stop the relay, then run \
             `walrelay setup --apply` again",
            holder.pid
        ));
        return Ok(());
    }
    let enabled = postgres::within(FAILOVER_LIMIT, steps.session.enable_failover(name)).await;
    enabled.map_err(|source| Error::Statement { what: format!("let slot {name} survive a failover"), source })?;
    (steps.report)(&format!("slot {name} survives a failover now"));
    Ok(())
}
