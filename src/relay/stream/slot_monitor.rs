//! The slot as the server shows it, looked at again and again: what it keeps of the log, and how safe that is.
//!
//! Beside a stream the keeper looks, on its own connection. While there is no stream because Kafka is away, the log that is
//! kept grows all the same, and that is when people ask for it: then the supervisor looks through [`alone`].

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

/// How often the slot is looked at.
pub(in crate::relay) const INTERVAL: Duration = Duration::from_secs(5);
/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks again and again, on connections of its own, until it is dropped.
pub(in crate::relay) async fn alone(
    target: Target,
    config: postgres::Config,
    application_name: String,
    slot: String,
    metrics: Metrics,
) -> Infallible {
    loop {
        // First a pause: a Kafka that answers at once needs no lookout.
        tokio::time::sleep(INTERVAL).await;
        match postgres::connect_ordinary(&target, &config, &application_name).await {
            Ok(Ordinary { client, ended, .. }) => {
                let mut looks = tokio::time::interval_at(Instant::now(), INTERVAL);
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let looking = async {
                    loop {
                        looks.tick().await;
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
                tracing::debug!(error = chain(&error), "the slot cannot be looked at");
            }
        }
    }
}

/// Looks once, and writes what it sees where others read it. Gives an error that is the connection's end.
pub(in crate::relay) async fn note(client: &Client, slot: &str, metrics: &Metrics) -> Option<postgres::Error> {
    match postgres::within(LIMIT, look(client, slot)).await {
        Ok(view) => {
            metrics.slot.set(Some(view));
            None
        }
        Err(error) => {
            metrics.slot_poll_errors.increment();
            tracing::debug!(error = chain(&error), "the slot cannot be looked at");
            error.ends(client).then_some(error)
        }
    }
}

/// What the server is to us, besides the slot.
#[derive(Debug)]
pub(in crate::relay) struct Standing {
    /// It is a standby, or not yet the primary.
    pub(in crate::relay) is_in_recovery: bool,
    /// When it was started: its process ids mean something only together with this.
    pub(in crate::relay) started: String,
    /// Whom it waits for at a commit.
    pub(in crate::relay) synchronous_names: String,
}

/// Asks what the server is to us.
pub(in crate::relay) async fn standing(client: &Client) -> Result<Standing, postgres::Error> {
    let sql =
        "SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, current_setting('synchronous_standby_names')";
    postgres::within(LIMIT, async {
        let row = client.query_one(sql, &[]).await?;
        Ok::<_, tokio_postgres::Error>(Standing {
            is_in_recovery: row.try_get(0)?,
            started: row.try_get(1)?,
            synchronous_names: row.try_get(2)?,
        })
    })
    .await
}

/// Looks at the slot.
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
