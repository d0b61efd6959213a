//! Publishes one batch: lock rows, publish records, mark rows, and only then commit.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::lsn::Lsn;
use crate::relay::error::Error as RelayError;
use crate::relay::ledger::Ledger;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::pipeline::Refused;
use crate::relay::postgres;
use crate::relay::postgres::Ended;
use crate::relay::publish::Failure;
use crate::relay::publish::Publisher;
use crate::relay::publish::Retired;
use crate::relay::publish::Verdict;
use crate::relay::record::route;
use crate::relay::record::route::Reason;
use crate::relay::retry::recovery::Recovery;
use crate::relay::retry::recurrence::FailurePosition;
use crate::relay::settings::Settings;

use super::end::BatchRun;
use super::end::PollEnd;
use super::error::Error;
use super::outlet::Outlet;
use super::source::Batch;
use super::source::Source;
use super::table::Table;
use super::table_state::TableState;

/// The attempts of a batch with a row that the server cannot send.
const MAX_ATTEMPTS: u32 = 4;
/// The timeout of a query.
const QUERY_LIMIT: Duration = Duration::from_secs(60);
/// The number of rows of a batch while each is published alone.
const CAUTIOUS_ROWS: i64 = 100;
/// The pause when librdkafka's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The producer and the recovery state, which outlive a transaction.
pub(super) struct BatchPublisher {
    pub(super) recovery: Recovery,
    outlet: Option<Outlet<Publisher>>,
    /// Dropped producers whose requests are not answered yet.
    retired: Vec<Retired>,
    wake: Arc<Notify>,
    metrics: Metrics,
    stop: CancellationToken,
    batch_timeout: Duration,
    drain: Duration,
    marked: u64,
    /// The number of purged records that are not acknowledged; their rows are published again.
    purged_records: u64,
}

/// The result of publishing a batch.
enum Published {
    /// So many rows are acknowledged; the next one, with its bucket, cannot be published.
    UpTo(usize, Option<(i32, Error)>),
    Abandoned(PollEnd),
}

impl BatchPublisher {
    pub(super) fn new(recovery: Recovery, settings: &Settings, metrics: Metrics, stop: CancellationToken) -> Self {
        Self {
            recovery,
            outlet: None,
            retired: Vec::new(),
            wake: Arc::new(Notify::new()),
            metrics,
            stop,
            batch_timeout: settings.source.poll.batch_timeout,
            drain: settings.shutdown.drain,
            marked: 0,
            purged_records: 0,
        }
    }

    /// Counts the rows that were marked as published.
    pub(super) const fn marked(&self) -> u64 {
        self.marked
    }

    /// Gives the position of an error at a statement on a table: the same one means that there was no progress.
    fn position(&self, table: &Table) -> FailurePosition {
        (u64::from(table.class()), self.marked)
    }

    /// Creates a producer if there is none.
    pub(super) fn ready(&mut self) -> Result<(), RelayError> {
        if self.outlet.is_none() {
            let ledger = Ledger::new(Lsn::ZERO);
            let (wake, metrics) = (Arc::clone(&self.wake), self.metrics.clone());
            let publisher = Publisher::new(self.recovery.kafka(), ledger.reports(), wake, metrics)?;
            self.outlet = Some(Outlet::new(ledger, publisher));
        }
        Ok(())
    }

    /// Gives the failure of the producer, if there is one: an idle producer may have failed too.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.outlet.as_ref().and_then(|outlet| outlet.sink.failure())
    }

    /// Drops the producer and purges its queue, unless every record is acknowledged.
    pub(super) fn drop_unacked(&mut self) {
        let records = self.outlet.as_ref().map_or(0, |outlet| outlet.ledger.records());
        self.purged_records = self.purged_records.max(records);
        if self.failure().is_some() || self.outlet.as_mut().is_some_and(|outlet| !outlet.is_all_acked()) {
            self.retired.extend(self.outlet.take().map(|outlet| outlet.sink.retire()));
            self.metrics.in_flight(0, 0, None);
        }
    }

    /// Records that every row is published, including those of purged records.
    pub(super) const fn has_caught_up(&mut self) {
        self.purged_records = 0;
    }

    /// Ends the relay. The stop is orderly if a restart repeats nothing.
    pub(super) const fn stopped(&self) -> Result<(), RelayError> {
        match self.purged_records {
            0 => Ok(()),
            records => Err(RelayError::Unacknowledged { records }),
        }
    }

    /// Waits until the brokers have answered the requests of dropped producers.
    pub(super) async fn await_retired(&mut self) {
        self.recovery.await_retired(&mut self.retired).await;
    }

    /// Updates the metrics of unpublished rows.
    pub(super) async fn update_backlog(&self, source: &Source, states: &mut [TableState]) -> Result<(), RelayError> {
        let (mut events, mut oldest_micros, mut server_micros) = (0, 0, 0);
        for (table, state) in source.tables.iter().zip(states) {
            let counted = self.within_limit(source.backlog(table)).await;
            let (backlog, drawn) = counted.map_err(|error| located(error, table, self.position(table)))?;
            table.warn_of_exhaustion(&drawn, &mut state.warned_percent);
            events += backlog.events;
            oldest_micros = backlog.oldest_micros.max(oldest_micros);
            server_micros = backlog.server_micros;
        }
        let now = now_micros();
        self.metrics.unpublished.set(events);
        self.metrics.unpublished_counted_micros.set(now);
        self.metrics.heard(Lsn::ZERO, Lsn::ZERO, server_micros, now);
        self.metrics.receive_lag_micros.set(oldest_micros);
        Ok(())
    }

    /// Publishes a batch of this outbox.
    pub(super) async fn run_batch(
        &mut self,
        source: &mut Source,
        index: usize,
        state: &mut TableState,
    ) -> Result<BatchRun, RelayError> {
        let idle = Ok(BatchRun::Over { is_full: false });
        let Some(table) = source.tables.get(index) else { return idle };
        let at = self.position(table);
        let located = |error| located(error, table, at);
        let buckets = self.within_limit(source.begin(table, &state.candidates())).await?;
        state.sweep.claimed(&buckets);
        let mut batch = match buckets.as_slice() {
            [] => Batch::default(),
            some => self.fetch(source, table, some, state).await.map_err(located)?,
        };
        if batch.rows.is_empty() {
            self.within_limit(source.commit()).await?;
            return Ok(BatchRun::Over { is_full: batch.is_full });
        }
        self.metrics.events_received.add(batch.rows.len() as u64);
        let (count, poison) = match Box::pin(self.publish(&mut source.ended, table, state, &batch)).await? {
            Published::UpTo(count, poison) => (count, poison),
            Published::Abandoned(end) => {
                if let PollEnd::SinkFailed { failure, .. } = &end
                    && failure.verdict == Verdict::Record
                {
                    state.cautious_until = batch.rows.last().map(|row| row.sequence);
                }
                return Ok(BatchRun::Abandoned(end));
            }
        };
        batch.rows.truncate(count);
        if !batch.rows.is_empty() {
            self.metrics.last_delivery_micros.set(now_micros());
            self.within_limit(source.mark(table, &batch.rows)).await.map_err(located)?;
        }
        self.within_limit(source.commit()).await.map_err(located)?;
        self.marked += batch.rows.len() as u64;
        let is_full = batch.is_full || poison.is_some();
        if let Some((bucket, poison)) = poison {
            state.set_aside(bucket, poison.into());
        }
        Ok(BatchRun::Over { is_full })
    }

    /// Locks and reads rows. Before a row that the server cannot send only the earlier ones are read; if it is the
    /// first one, its bucket is excluded, and none is read.
    async fn fetch(
        &self,
        source: &Source,
        table: &Table,
        buckets: &[i32],
        state: &mut TableState,
    ) -> Result<Batch, RelayError> {
        let mut max_rows = if state.cautious_until.is_some() { CAUTIOUS_ROWS } else { state.batch_size.rows() };
        for _ in 0..MAX_ATTEMPTS {
            let fetched = self.within_limit(source.fetch(table, buckets, max_rows, &mut state.batch_size)).await;
            let (before, cause) = match fetched {
                Err(RelayError::Poll(Error::Unsendable { before, source })) => (before, source),
                other => return other,
            };
            // The transaction failed, and with it the claim.
            self.within_limit(source.roll_back()).await?;
            let claimed = self.within_limit(source.begin(table, buckets)).await?;
            if claimed != buckets {
                break;
            }
            if before > 0 {
                max_rows = i64::try_from(before).unwrap_or(max_rows);
                continue;
            }
            if let Some(error @ Error::Unreadable { bucket, .. }) =
                self.within_limit(source.name_first(table, buckets, cause)).await?
            {
                state.set_aside(bucket, error.into());
            }
            break;
        }
        // The other rows of these buckets come in the next sweep.
        Ok(Batch::with_more())
    }

    /// Publishes the rows, up to the first that cannot become a record, and waits for their acknowledgements.
    async fn publish(
        &mut self,
        ended: &mut Ended,
        table: &Table,
        state: &mut TableState,
        batch: &Batch,
    ) -> Result<Published, RelayError> {
        let deadline = Instant::now() + self.batch_timeout;
        let mut poison = None;
        let mut count = 0;
        for locked in &batch.rows {
            let Some(row) = batch.row(locked) else { break };
            let poisoned = |reason| {
                let event_id = route::event_id(&row);
                (locked.bucket, Error::Poison { table: table.name(), event_id, reason })
            };
            let is_cautious = state.is_cautious(locked.sequence);
            let (record, written_micros) = match state.record(table, &row) {
                Ok(made) => made,
                Err(reason) => {
                    poison = Some(poisoned(reason));
                    break;
                }
            };
            let refused = loop {
                let Some(outlet) = &mut self.outlet else { break Some(Refused::Broken) };
                match outlet.enqueue(&record, written_micros) {
                    Ok(()) => break None,
                    Err(Refused::Full) => {
                        tokio::time::sleep(FULL_PAUSE).await;
                        if let Some(end) = self.await_acks(ended, deadline).await? {
                            return Ok(Published::Abandoned(end));
                        }
                    }
                    Err(refused) => break Some(refused),
                }
            };
            match refused {
                Some(Refused::TooLarge { size, limit }) => {
                    poison = Some(poisoned(Reason::TooLarge { size, limit }));
                    break;
                }
                // A new producer has asked the brokers again for this one record, and earlier ones are acknowledged.
                Some(Refused::NoPartition(number)) if is_cautious => {
                    return Ok(Published::UpTo(count, Some(poisoned(record.no_partition(number)))));
                }
                Some(Refused::NoPartition(_) | Refused::Broken | Refused::Full) | None => {}
            }
            count += 1;
            // The wait gives the failure of a broken sink.
            if (is_cautious || refused.is_some())
                && let Some(end) = self.await_acks(ended, deadline).await?
            {
                return Ok(Published::Abandoned(end));
            }
        }
        Ok(match self.await_acks(ended, deadline).await? {
            Some(end) => Published::Abandoned(end),
            None => Published::UpTo(count, poison),
        })
    }

    /// Waits until every record is acknowledged. Gives the reason if that cannot happen.
    async fn await_acks(&mut self, ended: &mut Ended, deadline: Instant) -> Result<Option<PollEnd>, RelayError> {
        let mut deadline = deadline;
        let mut is_draining = false;
        loop {
            self.metrics.tick();
            let Some(outlet) = &mut self.outlet else { return Ok(Some(PollEnd::Stalled)) };
            let is_all_acked = outlet.is_all_acked();
            let records = outlet.ledger.records();
            self.metrics.in_flight(
                records,
                outlet.ledger.bytes(),
                outlet.ledger.oldest_committed_micros().map(unsigned),
            );
            if let Some(failure) = outlet.sink.failure() {
                return Ok(Some(PollEnd::SinkFailed { failure, was_alone: records == 1 }));
            }
            if is_all_acked {
                return Ok(None);
            }
            let now = Instant::now();
            if now >= deadline && is_draining {
                return Err(RelayError::DrainTimeout { records, limit: self.drain.min(self.batch_timeout) });
            }
            if now >= deadline {
                return Ok(Some(PollEnd::Stalled));
            }
            if outlet.ledger.await_all() {
                continue;
            }
            let pause = (deadline - now).min(Duration::from_secs(1));
            tokio::select! {
                biased;
                error = &mut *ended => return Err(closed(error)),
                () = self.wake.notified() => {}
                () = self.stop.cancelled(), if !is_draining => {
                    is_draining = true;
                    deadline = deadline.min(now + self.drain);
                    self.metrics.enter(State::Draining);
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Runs a query with the timeout.
    async fn within_limit<T>(&self, query: impl Future<Output = Result<T, RelayError>>) -> Result<T, RelayError> {
        let answered = self.recovery.tick_during(tokio::time::timeout(QUERY_LIMIT, query)).await;
        answered.unwrap_or(Err(RelayError::Silent { limit: QUERY_LIMIT }))
    }
}

/// Adds the position to an error of the server: the number of rows marked before shows whether there is progress.
fn located(error: RelayError, table: &Table, position: FailurePosition) -> RelayError {
    if !matches!(&error, RelayError::Postgres { source, .. } if source.recurs_at_position()) {
        return error;
    }
    let RelayError::Postgres { action, source } = error else { return error };
    Error::Raised { table: table.name(), position, action, is_recurring: false, source: Box::new(source) }.into()
}

/// Gives the error of a lost connection.
pub(super) fn closed(error: Option<postgres::Error>) -> RelayError {
    RelayError::Postgres { action: "keep the connection open", source: error.unwrap_or(postgres::Error::Closed) }
}

fn unsigned(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default()
}
