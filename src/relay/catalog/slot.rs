//! Checks the replication slot, and reads its confirmed position.

use tokio_postgres::Client;

use crate::lsn::Lsn;

use super::error::Error;
use super::row::get;
use super::row::lsn;
use super::row::query;

/// A slot that this relay can use.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its confirmed position.
    pub confirmed: Lsn,
    /// It was synchronized from the primary before this server was promoted.
    pub is_synced: bool,
}

pub(in crate::relay) async fn check(client: &Client, slot: &str, version: u32) -> Result<Slot, Error> {
    let synced = if version >= 170_000 { "synced AND failover" } else { "false" };
    let reason = if version >= 170_000 { "coalesce(invalidation_reason, 'no reason given')" } else { "'wal_removed'" };
    let sql = format!(
        "SELECT slot_type, coalesce(plugin::text, ''), coalesce(database::text, ''), current_database()::text, \
         temporary,
                coalesce(wal_status, ''), confirmed_flush_lsn::text, {reason}, two_phase, {synced}
         FROM pg_replication_slots WHERE slot_name = $1"
    );
    let Some(row) = client.query_opt(&sql, &[&slot]).await.map_err(query)? else {
        return Err(Error::SlotMissing { slot: slot.to_owned() });
    };
    let unusable = |what: String| Error::SlotUnusable { slot: slot.to_owned(), what };
    let text = |column| get::<String>(&row, column);
    if text(0)? != "logical" {
        return Err(unusable("is a physical slot, not a logical one".to_owned()));
    }
    if text(1)? != "pgoutput" {
        return Err(unusable(format!("decodes with plugin {:?}, not pgoutput", text(1)?)));
    }
    if text(2)? != text(3)? {
        return Err(unusable(format!("belongs to database {:?}, not to {:?}", text(2)?, text(3)?)));
    }
    if get::<bool>(&row, 4)? {
        return Err(unusable("is temporary".to_owned()));
    }
    if get::<bool>(&row, 8)? {
        return Err(unusable("was created with two_phase, which sends transactions before they commit".to_owned()));
    }
    if text(5)? == "lost" {
        return Err(Error::SlotLost { slot: slot.to_owned(), reason: text(7)? });
    }
    match get::<Option<String>>(&row, 6)? {
        Some(position) => Ok(Slot { confirmed: lsn(&position)?, is_synced: get(&row, 9)? }),
        None => Err(unusable("has no confirmed position".to_owned())),
    }
}
