//! Confirms acknowledged events without a stream: after an error the walsender accepts no status update, and without a
//! stored position the slot is the only memory. As everywhere, the catalog is checked first.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::lsn::Lsn;
use crate::relay::error::Error;
use crate::relay::postgres;
use crate::relay::postgres::Target;
use crate::relay::settings::Settings;
use crate::relay::stream::catalog_watch::CatalogWatch;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::chain;

/// The timeout.
const LIMIT: Duration = Duration::from_secs(10);
/// The timeout after the relay is stopped.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Advances the slot to this position on the server that was started at this time: another server may have other events
/// before the position.
pub(in crate::relay) async fn advance(
    target: &Target,
    settings: &Settings,
    (position, server_started): (Lsn, &str),
    watch: Option<&CatalogWatch>,
    stop: &CancellationToken,
) {
    let name = format!("{} confirm", settings.relay.name);
    let advancing = async {
        let connected = postgres::connect_ordinary(target, &settings.postgres, &name).await;
        let ordinary = connected.map_err(Error::postgres("connect to PostgreSQL"))?;
        if let Some(watch) = watch {
            watch.look(&ordinary.client).await?;
        }
        // A query without a waiting client must not hold the slot.
        let limited = ordinary.client.batch_execute("SET statement_timeout = '10s'").await;
        limited.map_err(Error::postgres("advance the slot"))?;
        let sql = "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots
                   WHERE slot_name = $1 AND confirmed_flush_lsn < $2::text::pg_lsn
                         AND pg_postmaster_start_time()::text = $3";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&settings.source.slot, &position.to_string(), &server_started];
        let advanced = ordinary.client.execute(sql, &values).await;
        advanced.map_err(Error::postgres("advance the slot"))
    };
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let advanced = tokio::select! {
        biased;
        advanced = tokio::time::timeout(LIMIT, advancing) => advanced.ok(),
        () = stopped => None,
    };
    match advanced.map(|advanced| advanced.map_err(Error::not_stored)) {
        Some(Ok(_)) => {}
        Some(Err(error)) => tracing::warn!(
            %position, code = %error.code(), error = chain(&error), next = error.help(),
            "cannot confirm acknowledged events: they are repeated after a restart"
        ),
        None => {
            tracing::warn!(%position, "confirmation timed out: acknowledged events are repeated after a restart");
        }
    }
}
