//! Monitors the slot: how much WAL the server retains because of it, its `wal_status`, and how long its limit lasts.
//!
//! While a stream is open the keeper does it on its own connection. While Kafka is down there is no stream, but the
//! retained WAL grows: then the supervisor runs [`SlotMonitor::run`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::relay::metrics::Invalidation;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::SlotView;
use crate::relay::metrics::WalStatus;
use crate::relay::metrics::now_micros;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Target;
use crate::relay::stream::wal_budget;
use crate::relay::stream::wal_budget::Notice;
use crate::relay::stream::wal_budget::Outlook;
use crate::relay::stream::wal_budget::Sample;
use crate::relay::stream::wal_budget::WalBudget;
use crate::relay::stream::wal_budget::Warning;
use walrelay_events::fault::Code;
use walrelay_events::fault::Exit;
use walrelay_events::fault::chain;

/// The interval of the queries.
pub(in crate::relay) const INTERVAL: Duration = Duration::from_secs(5);
/// Little of `max_slot_wal_keep_size` is left.
const RUNNING_OUT: Code = Code::new(Exit::PositionLost, 4);
/// The timeout of a query.
const LIMIT: Duration = Duration::from_secs(5);

/// Monitors one slot. Clones share what they have seen.
#[derive(Clone, Debug)]
pub struct SlotMonitor {
    slot: String,
    metrics: Metrics,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    budget: WalBudget,
    warning: Warning,
}

impl SlotMonitor {
    /// A warning is logged when less than `warn_before` is left.
    pub(in crate::relay) fn new(slot: String, warn_before: Duration, metrics: Metrics) -> Self {
        let seen = Seen { budget: WalBudget::new(wal_budget::MIN_SPAN), warning: Warning::new(warn_before) };
        Self { slot, metrics, seen: Arc::new(Mutex::new(seen)) }
    }

    /// Monitors the slot on connections of its own until it is dropped.
    pub(in crate::relay) async fn run(
        self,
        target: Target,
        config: postgres::Config,
        application_name: String,
    ) -> Infallible {
        loop {
            // First a pause: usually Kafka answers at once.
            tokio::time::sleep(INTERVAL).await;
            match postgres::connect_ordinary(&target, &config, &application_name).await {
                Ok(Ordinary { client, ended, .. }) => tokio::select! {
                    _ = ended => {}
                    _ = self.until_error(&client) => {}
                },
                Err(error) => self.failed(&error),
            }
        }
    }

    async fn until_error(&self, client: &Client) -> postgres::Error {
        let mut ticks = tokio::time::interval_at(Instant::now(), INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(error) = self.note(client).await {
                return error;
            }
        }
    }

    /// Queries once and updates the metrics. Gives an error that ends the connection.
    pub(in crate::relay) async fn note(&self, client: &Client) -> Option<postgres::Error> {
        match postgres::within(LIMIT, look(client, &self.slot)).await {
            Ok(Some(view)) => {
                let view = self.judge(view);
                self.metrics.slot.set(Some(view));
                None
            }
            // The catalog check reports it.
            Ok(None) => {
                self.metrics.slot_poll_errors.increment();
                tracing::debug!(slot = self.slot, "the slot does not exist");
                None
            }
            Err(error) => {
                self.failed(&error);
                error.ends(client).then_some(error)
            }
        }
    }

    fn failed(&self, error: &postgres::Error) {
        self.metrics.slot_poll_errors.increment();
        tracing::debug!(error = chain(error), "cannot read the state of the slot");
    }

    /// Adds the estimate, and logs when little time is left.
    fn judge(&self, mut view: SlotView) -> SlotView {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(outlook) = foresee(&mut seen.budget, &mut view) else { return view };
        match seen.warning.judge(&outlook) {
            Some(Notice::Low) => tracing::warn!(
                code = %RUNNING_OUT,
                slot = self.slot,
                seconds_left = outlook.time_left.map(|left| left.as_secs()),
                safe_wal_bytes = view.safe_wal_bytes,
                retained_wal_bytes = view.retained_wal_bytes,
                growth_bytes_per_second = outlook.growth_bytes_per_second.map(f64::round),
                next = more_wal(&view),
                "replication slot may be invalidated soon"
            ),
            Some(Notice::Recovered) => tracing::info!(
                slot = self.slot,
                seconds_left = outlook.time_left.map(|left| left.as_secs()),
                safe_wal_bytes = view.safe_wal_bytes,
                "replication slot is no longer close to invalidation"
            ),
            None => {}
        }
        view
    }
}

/// Adds the estimate to a view of the slot. A lost slot has none.
pub(in crate::relay) fn foresee(budget: &mut WalBudget, view: &mut SlotView) -> Option<Outlook> {
    if view.restart.is_none() || view.wal_status == Some(WalStatus::Lost) {
        budget.forget();
        return None;
    }
    let sample = Sample {
        at: std::time::Instant::now(),
        retained_bytes: view.retained_wal_bytes,
        is_used: view.active,
        safe_bytes: view.safe_wal_bytes,
    };
    let outlook = budget.observe(sample);
    view.growth_bytes_per_second = outlook.growth_bytes_per_second;
    view.seconds_to_invalidation = outlook.time_left.map(|left| left.as_secs_f64());
    Some(outlook)
}

/// The statements that double the limit.
pub(in crate::relay) fn more_wal(view: &SlotView) -> String {
    let safe = view.safe_wal_bytes.and_then(|safe| u64::try_from(safe).ok()).unwrap_or_default();
    let limit = view.retained_wal_bytes.saturating_add(safe).div_ceil(1 << 20).saturating_mul(2);
    format!(
        "find out why the relay does not deliver (its last error); if the disk has room, run `ALTER SYSTEM SET \
         max_slot_wal_keep_size = '{limit}MB'` and `SELECT pg_reload_conf()` as a superuser"
    )
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

/// Queries the slot. The reason of an invalidation is a column since PostgreSQL 17.
pub(in crate::relay) async fn look(client: &Client, slot: &str) -> Result<Option<SlotView>, tokio_postgres::Error> {
    let sql = "SELECT active, active_pid, restart_lsn::text, confirmed_flush_lsn::text,
                      pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                           ELSE pg_current_wal_lsn() END, restart_lsn)::bigint,
                      safe_wal_size, coalesce(wal_status, ''), age(catalog_xmin)::bigint,
                      (SELECT spill_bytes FROM pg_stat_replication_slots AS seen
                       WHERE seen.slot_name = slots.slot_name),
                      to_jsonb(slots) ->> 'invalidation_reason'
               FROM pg_replication_slots AS slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(sql, &[&slot]).await? else { return Ok(None) };
    let position = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let amount = |column| {
        let value: Option<i64> = row.try_get(column)?;
        Ok::<_, tokio_postgres::Error>(value.and_then(|value| u64::try_from(value).ok()))
    };
    Ok(Some(SlotView {
        polled_micros: now_micros(),
        active: row.try_get(0)?,
        active_pid: row.try_get(1)?,
        restart: position(row.try_get(2)?),
        confirmed: position(row.try_get(3)?),
        retained_wal_bytes: amount(4)?.unwrap_or_default(),
        safe_wal_bytes: row.try_get(5)?,
        wal_status: WalStatus::from_word(row.try_get(6)?),
        invalidation: row.try_get::<_, Option<&str>>(9)?.map(Invalidation::from_word),
        growth_bytes_per_second: None,
        seconds_to_invalidation: None,
        catalog_xmin_age: amount(7)?,
        spilled_bytes: amount(8)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(wal_status: WalStatus, restart: Option<&str>) -> SlotView {
        SlotView {
            restart: restart.and_then(|restart| restart.parse().ok()),
            retained_wal_bytes: 3 << 20,
            safe_wal_bytes: Some((1 << 20) - 1),
            wal_status: Some(wal_status),
            ..SlotView::default()
        }
    }

    #[test]
    fn the_next_step_doubles_the_limit() {
        let next = more_wal(&view(WalStatus::Extended, Some("0/1")));
        assert!(next.contains("`ALTER SYSTEM SET max_slot_wal_keep_size = '8MB'`"), "{next}");
    }

    #[test]
    fn a_lost_slot_has_no_estimate() {
        let mut budget = WalBudget::new(Duration::ZERO);
        for (status, restart) in [(WalStatus::Lost, Some("0/1")), (WalStatus::Extended, None)] {
            assert_eq!(foresee(&mut budget, &mut view(status, restart)), None, "{status:?}");
        }
    }
}
