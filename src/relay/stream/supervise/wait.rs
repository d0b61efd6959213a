//! The waits between two connections: for brokers, acknowledgements, the slot.

use std::convert::Infallible;
use std::time::Duration;
use std::time::Instant;

use crate::relay::error::Error;
use crate::relay::metrics::State;
use crate::relay::publish::Stalled;
use crate::relay::stream::examine;
use crate::relay::stream::holder::Holder;
use crate::relay::stream::holder::HolderWatch;

use super::Supervisor;
use super::step::StreamStep;

/// How long to wait for acknowledgements after the connection is lost.
const IN_FLIGHT_GRACE: Duration = Duration::from_secs(1);
/// How often a stall is checked.
const STALL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the same holder of the slot is logged.
const HOLDER_INTERVAL: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Pauses, then waits for Kafka. Meanwhile the slot is monitored, and PostgreSQL is checked.
    pub(super) async fn await_kafka(&mut self, pause: Duration) -> Result<(), Error> {
        let (slot_monitor, checks) = (Box::pin(self.monitor_slot()), Box::pin(self.checks()));
        let recovery = &mut self.recovery;
        let answering = async {
            recovery.pause(pause).await;
            recovery.await_kafka(checks).await
        };
        tokio::select! {
            biased;
            awaited = answering => awaited,
            never = slot_monitor => match never {},
        }
    }

    pub(super) fn monitor_slot(&self) -> impl Future<Output = Infallible> + use<> {
        let (target, config) = (self.target.clone(), self.settings.postgres.clone());
        let name = format!("{} slot monitor", self.settings.relay.name);
        self.slot_monitor.clone().run(target, config, name)
    }

    /// Checks again and again whether a start would succeed: without a connection nothing else does. Gives a fatal
    /// error.
    pub(super) fn checks(&self) -> impl Future<Output = Error> + use<> {
        let (source, watch, remembered) = (self.recovery.source(), self.watch.clone(), self.remembered.clone());
        let (target, settings, routes) = (self.target.clone(), self.settings.clone(), self.routes.clone());
        source.until_fatal(async move || {
            examine::look(&target, &settings, &routes, watch.as_ref(), remembered.as_ref()).await
        })
    }

    /// Waits, without a connection, until a record is acknowledged. The producer stays: only the broker's answer shows
    /// whether a record was written. It is dropped when another relay holds the slot, or when the holder is unknown.
    pub(super) async fn await_progress(&mut self) -> Result<StreamStep, Error> {
        let watch = self.watch();
        let mut taken = std::pin::pin!(watch.until_held_by_other(self.walsender.as_ref().map(|(_, process)| *process)));
        let acked = self.held.as_ref().map_or(0, |held| held.pipeline.reports().acked_records());
        loop {
            self.metrics.tick();
            let Some(held) = &self.held else { return Ok(StreamStep::Again) };
            held.pipeline.ledger().await_any();
            if held.publisher.failure().is_some() {
                return self.after_failure();
            }
            if held.pipeline.reports().acked_records() > acked || held.pipeline.ledger().records() == 0 {
                tracing::info!("kafka delivery resumed");
                self.stalls.over();
                self.metrics.kafka.connected();
                self.metrics.enter(State::SourceReconnecting);
                return Ok(StreamStep::Again);
            }
            self.stalls.report(Stalled { waiting: held.publisher.waiting() }, &self.metrics);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(StreamStep::Again),
                () = self.wake.notified() => {}
                () = tokio::time::sleep(STALL_INTERVAL) => {}
                () = &mut taken => {
                    self.drop_producer();
                    return Ok(StreamStep::Again);
                }
            }
        }
    }

    /// Waits until the slot is free. A holder with another name is not a relay of this slot.
    pub(super) async fn stand_by(&mut self) -> Result<StreamStep, Error> {
        self.metrics.enter(State::Standby);
        let (watch, name, metrics) = (self.watch(), self.settings.relay.name.clone(), self.metrics.clone());
        let mut said: Option<(Holder, Instant)> = None;
        let free = watch.until_free(|holder| {
            let is_relay = holder.application_name == name;
            metrics.enter(if is_relay { State::Standby } else { State::SourceReconnecting });
            if is_relay {
                // The holder reports the slot; what this relay saw of it grows old.
                metrics.slot.set(None);
            }
            if said.as_ref().is_some_and(|(known, at)| known == holder && at.elapsed() < HOLDER_INTERVAL) {
                return;
            }
            let Holder { pid, application_name, .. } = holder;
            if is_relay {
                tracing::info!(pid, application_name, "standby: another relay holds the slot");
            } else {
                tracing::warn!(code = "WR-6904", pid, application_name, "another connection holds the slot");
            }
            said = Some((holder.clone(), Instant::now()));
        });
        let stop = self.stop.clone();
        let freed = tokio::select! {
            () = stop.cancelled() => return Ok(StreamStep::Again),
            freed = self.recovery.tick_during(free) => freed,
        };
        match freed {
            Ok(()) => Ok(StreamStep::Again),
            Err(error) => self.after_error(error),
        }
    }

    fn watch(&self) -> HolderWatch {
        HolderWatch {
            target: self.target.clone(),
            config: self.settings.postgres.clone(),
            application_name: format!("{} standby", self.settings.relay.name),
            slot: self.settings.source.slot.clone(),
        }
    }

    /// Gives the time at which the first event may be published: requests of the previous relay should be answered by
    /// then. If it still runs, it notices meanwhile that this relay holds the slot, and drops its producer.
    pub(super) fn publish_from(&self) -> Instant {
        let now = Instant::now();
        if !self.follows_another {
            return now;
        }
        let delay = self.settings.source.takeover_delay;
        tracing::info!(seconds = delay.as_secs_f64(), "takeover: waiting for requests of the previous relay");
        now + delay
    }

    /// Waits for acknowledgements without a connection, and purges what is not acknowledged soon: a standby may take
    /// over.
    pub(super) async fn await_in_flight(&mut self) {
        let until = tokio::time::Instant::now() + IN_FLIGHT_GRACE;
        while let Some(held) = &self.held {
            if held.pipeline.ledger().await_all() {
                return;
            }
            if tokio::time::timeout_at(until, self.wake.notified()).await.is_err() {
                let records = held.pipeline.ledger().records();
                tracing::info!(records, "records not acknowledged: they are published again after reconnecting");
                return self.drop_producer();
            }
        }
    }
}
