//! Monitors the slot: how much WAL the server retains because of it, and its `wal_status`.
//!
//! While a stream is open the keeper does it on its own connection. While Kafka is down there is no stream, but the
//! retained WAL grows: then the supervisor runs [`run`].

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::relay::metrics::Metrics;
use crate::relay::metrics::SlotView;
use crate::relay::metrics::WalStatus;
use crate::relay::metrics::now_micros;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Target;
use walrelay_events::fault::chain;

/// The interval of the queries.
pub(in crate::relay) const INTERVAL: Duration = Duration::from_secs(5);
/// The timeout of a query.
const LIMIT: Duration = Duration::from_secs(5);

/// Monitors the slot on connections of its own until it is dropped.
pub(in crate::relay) async fn run(
    target: Target,
    config: postgres::Config,
    application_name: String,
    slot: String,
    metrics: Metrics,
) -> Infallible {
    loop {
        // First a pause: usually Kafka answers at once.
        tokio::time::sleep(INTERVAL).await;
        match postgres::connect_ordinary(&target, &config, &application_name).await {
            Ok(Ordinary { client, ended, .. }) => {
                let mut ticks = tokio::time::interval_at(Instant::now(), INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let looking = async {
                    loop {
                        ticks.tick().await;
                        if let Some(error) = note(&client, &slot, &metrics).await {
                            return error;
                        }
                    }
                };
                tokio::select! {
                    _ = ended => {}
                    _ = looking => {}
                }
            }
            Err(error) => {
                metrics.slot_poll_errors.increment();
                tracing::debug!(error = chain(&error), "cannot read the state of the slot");
            }
        }
    }
}

/// Queries once and updates the metrics. Gives an error that ends the connection.
pub(in crate::relay) async fn note(client: &Client, slot: &str, metrics: &Metrics) -> Option<postgres::Error> {
    match postgres::within(LIMIT, look(client, slot)).await {
        Ok(view) => {
            metrics.slot.set(Some(view));
            None
        }
        Err(error) => {
            metrics.slot_poll_errors.increment();
            tracing::debug!(error = chain(&error), "cannot read the state of the slot");
            error.ends(client).then_some(error)
        }
    }
}

/// The server's state besides the slot.
#[derive(Debug)]
pub(in crate::relay) struct ServerState {
    /// It is in recovery: a standby, or not yet the primary.
    pub(in crate::relay) is_in_recovery: bool,
    /// When it was started: a PID is valid only together with this.
    pub(in crate::relay) started: String,
    /// `synchronous_standby_names`.
    pub(in crate::relay) synchronous_names: String,
}

/// Queries the server's state.
pub(in crate::relay) async fn server_state(client: &Client) -> Result<ServerState, postgres::Error> {
    let sql =
        "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, current_setting('synchronous_standby_names')";
    postgres::within(LIMIT, async {
        let row = client.query_one(sql, &[]).await?;
        Ok::<_, tokio_postgres::Error>(ServerState {
            is_in_recovery: row.try_get(0)?,
            started: row.try_get(1)?,
            synchronous_names: row.try_get(2)?,
        })
    })
    .await
}

/// Queries the slot.
async fn look(client: &Client, slot: &str) -> Result<SlotView, tokio_postgres::Error> {
    let sql = "SELECT active, active_pid, restart_lsn::text, confirmed_flush_lsn::text,
                      pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                           ELSE pg_current_wal_lsn() END, restart_lsn)::bigint,
                      safe_wal_size, coalesce(wal_status, ''), age(catalog_xmin)::bigint,
                      (SELECT spill_bytes FROM pg_stat_replication_slots AS seen WHERE seen.slot_name = slots.slot_name)
               FROM pg_replication_slots AS slots WHERE slot_name = $1";
    let row = client.query_one(sql, &[&slot]).await?;
    let position = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let amount = |column| {
        let value: Option<i64> = row.try_get(column)?;
        Ok::<_, tokio_postgres::Error>(value.and_then(|value| u64::try_from(value).ok()))
    };
    Ok(SlotView {
        polled_micros: now_micros(),
        active: row.try_get(0)?,
        active_pid: row.try_get(1)?,
        restart: position(row.try_get(2)?),
        confirmed: position(row.try_get(3)?),
        retained_wal_bytes: amount(4)?.unwrap_or_default(),
        safe_wal_bytes: row.try_get(5)?,
        wal_status: WalStatus::from_word(row.try_get(6)?),
        catalog_xmin_age: amount(7)?,
        spilled_bytes: amount(8)?,
    })
}
