//! What is waited for between two connections: brokers, answers, progress, the slot.

use std::convert::Infallible;
use std::time::Duration;
use std::time::Instant;

use crate::relay::error::Error;
use crate::relay::metrics::State;
use crate::relay::publish::Stalled;
use crate::relay::stream::examine;
use crate::relay::stream::holder::Holder;
use crate::relay::stream::holder::Watch;
use crate::relay::stream::slot_monitor;

use super::Supervisor;
use super::next::Next;

/// How long what was on the way may still arrive after the connection was lost.
const ARRIVAL_GRACE: Duration = Duration::from_secs(1);
/// How often a stall that lasts is looked at.
const STALL_INTERVAL: Duration = Duration::from_secs(1);
/// How often the holder of the slot is named while it stays the same.
const HOLDER_INTERVAL: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Pauses, then waits for Kafka. What the slot keeps meanwhile goes on being looked at, and whether a start would find
    /// everything in PostgreSQL as it must be.
    pub(super) async fn await_kafka(&mut self, pause: Duration) -> Result<(), Error> {
        let (lookout, looking) = (Box::pin(self.lookout()), Box::pin(self.looking()));
        let patience = &mut self.patience;
        let answering = async {
            patience.pause(pause).await;
            patience.await_kafka(looking).await
        };
        tokio::select! {
            biased;
            awaited = answering => awaited,
            never = lookout => match never {},
        }
    }

    pub(super) fn lookout(&self) -> impl Future<Output = Infallible> + use<> {
        let (target, config) = (self.target.clone(), self.settings.postgres.clone());
        let name = format!("{} lookout", self.settings.relay.name);
        slot_monitor::alone(target, config, name, self.settings.source.slot.clone(), self.metrics.clone())
    }

    /// Looks whether a start would find everything in PostgreSQL as it must be, again and again: nothing else does while
    /// there is no connection. Gives what is wrong for good.
    pub(super) fn looking(&self) -> impl Future<Output = Error> + use<> {
        let (beside, watch) = (self.patience.beside(), self.watch.clone());
        let (target, settings, routes) = (self.target.clone(), self.settings.clone(), self.routes.clone());
        beside.until_wrong(async move || examine::look(&target, &settings, &routes, watch.as_ref()).await)
    }

    /// Waits, without a connection, until a record is acknowledged. The producer keeps what it has: whether a record that was
    /// sent is written is known only once its broker answers. It lets go when another relay has the slot, or when
    /// nobody can tell.
    pub(super) async fn await_progress(&mut self) -> Result<Next, Error> {
        let watch = self.watch();
        let mut taken = std::pin::pin!(watch.until_taken(self.walsender.as_ref().map(|(_, process)| *process)));
        let acked = self.held.as_ref().map_or(0, |held| held.pipeline.reports().left_records());
        loop {
            self.metrics.tick();
            let Some(held) = &self.held else { return Ok(Next::Again) };
            held.pipeline.ledger().await_any();
            if held.publisher.failure().is_some() {
                return self.after_failure();
            }
            if held.pipeline.reports().left_records() > acked || held.pipeline.ledger().records() == 0 {
                tracing::info!("kafka delivery resumed");
                self.stalls.over();
                self.in_doubt = false;
                self.metrics.kafka.connected();
                self.metrics.enter(State::SourceReconnecting);
                return Ok(Next::Again);
            }
            self.stalls.report(Stalled { waiting: held.publisher.waiting() }, &self.metrics);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Next::Again),
                () = self.wake.notified() => {}
                () = tokio::time::sleep(STALL_INTERVAL) => {}
                () = &mut taken => {
                    self.let_go();
                    return Ok(Next::Again);
                }
            }
        }
    }

    /// Waits until the slot is free. A connection of another name is no relay that does our work meanwhile.
    pub(super) async fn stand_by(&mut self) -> Result<Next, Error> {
        self.metrics.enter(State::Standby);
        let (watch, name, metrics) = (self.watch(), self.settings.relay.name.clone(), self.metrics.clone());
        let mut said: Option<(Holder, Instant)> = None;
        let free = watch.until_free(|holder| {
            let is_relay = holder.application_name == name;
            metrics.enter(if is_relay { State::Standby } else { State::SourceReconnecting });
            if said.as_ref().is_some_and(|(known, at)| known == holder && at.elapsed() < HOLDER_INTERVAL) {
                return;
            }
            let Holder { pid, application_name } = holder;
            if is_relay {
                tracing::info!(pid, application_name, "standing by: another relay holds the slot");
            } else {
                tracing::warn!(code = "WR-6904", pid, application_name, "another connection holds the slot");
            }
            said = Some((holder.clone(), Instant::now()));
        });
        let stop = self.stop.clone();
        let freed = tokio::select! {
            () = stop.cancelled() => return Ok(Next::Again),
            freed = self.patience.tick_during(free) => freed,
        };
        match freed {
            Ok(()) => Ok(Next::Again),
            Err(error) => self.after_error(error),
        }
    }

    fn watch(&self) -> Watch {
        Watch {
            target: self.target.clone(),
            config: self.settings.postgres.clone(),
            application_name: format!("{} standby", self.settings.relay.name),
            slot: self.settings.source.slot.clone(),
        }
    }

    /// Says when the first event may be published. What the relay before us has sent must be written by then, as far as that can
    /// be waited for: it cannot be asked any more. If it lives it sees meanwhile that we hold the slot, and lets go.
    pub(super) fn take_over(&self) -> Instant {
        let now = Instant::now();
        if !self.follows_another {
            return now;
        }
        let delay = self.settings.source.takeover_delay;
        tracing::info!(
            seconds = delay.as_secs_f64(),
            "waiting before the first event: the relay before may have requests at the brokers"
        );
        now + delay
    }

    /// Waits for what is on the way without a connection, and purges what does not arrive soon: a standby takes over.
    pub(super) async fn let_arrive(&mut self) {
        let until = tokio::time::Instant::now() + ARRIVAL_GRACE;
        while let Some(held) = &self.held {
            if held.pipeline.ledger().await_all() {
                return;
            }
            if tokio::time::timeout_at(until, self.wake.notified()).await.is_err() {
                let records = held.pipeline.ledger().records();
                tracing::info!(
                    records,
                    "Kafka does not take what is on the way: it is handed over again after reconnecting"
                );
                return self.let_go();
            }
        }
    }
}
