//! Confirms what has been delivered where no position is stored and no stream can tell it: a server that has failed takes no
//! status update any more.

use std::time::Duration;

use crate::lsn::Lsn;
use crate::relay::Settings;
use crate::relay::wal;
use crate::relay::wal::Target;

/// How long the server may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Moves the slot to this position, if it is not there yet.
pub(super) async fn advance(target: &Target, settings: &Settings, position: Lsn) {
    let name = format!("{} confirm", settings.relay.name);
    let advancing = async {
        let ordinary = wal::connect_ordinary(target, &settings.postgres, &name).await?;
        let sql = "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots
                   WHERE slot_name = $1 AND confirmed_flush_lsn < $2::text::pg_lsn";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&settings.source.slot, &position.to_string()];
        ordinary.client.execute(sql, &values).await.map_err(wal::Error::from)
    };
    if !matches!(tokio::time::timeout(LIMIT, advancing).await, Ok(Ok(_))) {
        tracing::warn!(%position, "what was delivered could not be confirmed: it is repeated after a restart");
    }
}
