//! One transaction: rows into the hand, records to Kafka, marks, and only then the commit.

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
use crate::relay::record::route::Written;
use crate::relay::retry::patience::Patience;
use crate::relay::retry::recurrence::Place;
use crate::relay::settings::Settings;

use super::Desk;
use super::error::Error;
use super::outlet::Outlet;
use super::source::Batch;
use super::source::Source;
use super::source::Table;

/// How often a batch is begun anew because of a row that the server cannot send.
const LOOKS_MAX: u32 = 4;
/// How long one query may take.
const QUERY_LIMIT: Duration = Duration::from_secs(60);
/// How many rows are taken while each is published alone.
const CAUTIOUS_ROWS: i64 = 100;
/// How long a full producer is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// What outlives a transaction: the producer, and what is known of the peers.
pub(super) struct Hands {
    pub(super) patience: Patience,
    outlet: Option<Outlet<Publisher>>,
    /// Producers that were given up, and whose requests are not answered.
    retired: Vec<Retired>,
    wake: Arc<Notify>,
    metrics: Metrics,
    stop: CancellationToken,
    batch_timeout: Duration,
    drain: Duration,
    marked: u64,
    /// How many records were purged before they were acknowledged; their rows are published again.
    purged_records: u64,
}

/// How a transaction ended.
pub(super) enum Turn {
    /// It is committed, or was empty.
    Over {
        /// There may be more rows.
        is_full: bool,
    },
    /// It is given up.
    Left(Left),
}

/// Why a connection is left that need not have failed.
#[derive(Debug)]
pub(super) enum Left {
    /// A stop was asked for, and nothing is in hand.
    Stopped,
    /// Kafka has not delivered a batch in time.
    Stalled,
    /// A record failed, or the producer did.
    SinkFailed {
        failure: Failure,
        /// It was the only record on the way, and so the culprit.
        was_alone: bool,
    },
}

/// How far a batch came.
enum Published {
    /// So many rows have arrived, and the next one, whose bucket is given, cannot become a record.
    UpTo(usize, Option<(i32, Error)>),
    Left(Left),
}

impl Hands {
    pub(super) fn new(patience: Patience, settings: &Settings, metrics: Metrics, stop: CancellationToken) -> Self {
        Self {
            patience,
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

    /// Sees to it that there is a producer.
    pub(super) fn ready(&mut self) -> Result<(), RelayError> {
        if self.outlet.is_none() {
            let ledger = Ledger::new(Lsn::ZERO);
            let (wake, metrics) = (Arc::clone(&self.wake), self.metrics.clone());
            let publisher = Publisher::new(self.patience.kafka(), ledger.reports(), wake, metrics)?;
            self.outlet = Some(Outlet::new(ledger, publisher));
        }
        Ok(())
    }

    /// Tells why the producer must go, if it must: also one that has nothing to send may have lost its brokers.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.outlet.as_ref().and_then(|outlet| outlet.sink.failure())
    }

    /// Drops the producer, and purges what it has, unless everything has arrived.
    pub(super) fn let_go_of_what_is_on_the_way(&mut self) {
        let records = self.outlet.as_ref().map_or(0, |outlet| outlet.ledger.records());
        self.purged_records = self.purged_records.max(records);
        if self.failure().is_some() || self.outlet.as_mut().is_some_and(|outlet| !outlet.has_delivered_all()) {
            self.retired.extend(self.outlet.take().map(|outlet| outlet.sink.retire()));
            self.metrics.in_flight(0, 0, None);
        }
    }

    /// Every row that was seen is published: those of purged records as well.
    pub(super) const fn has_caught_up(&mut self) {
        self.purged_records = 0;
    }

    /// A stop is in order if a restart repeats nothing.
    pub(super) const fn stopped(&self) -> Result<(), RelayError> {
        match self.purged_records {
            0 => Ok(()),
            records => Err(RelayError::Unacknowledged { records }),
        }
    }

    /// Waits until the brokers have answered what given-up producers have sent.
    pub(super) async fn await_answers(&mut self) {
        self.patience.await_answers(&mut self.retired).await;
    }

    /// Notes how much is unpublished.
    pub(super) async fn look(&self, source: &Source, desks: &mut [Desk]) -> Result<(), RelayError> {
        let (mut events, mut oldest_micros, mut server_micros) = (0, 0, 0);
        for (table, desk) in source.tables.iter().zip(desks) {
            let (backlog, drawn) = self.asked(source.backlog(table)).await?;
            table.tell_of_the_end(&drawn, &mut desk.percent_told);
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

    /// Takes a batch of this outbox from the table to Kafka.
    pub(super) async fn turn(
        &mut self,
        source: &mut Source,
        place: usize,
        desk: &mut Desk,
    ) -> Result<Turn, RelayError> {
        let idle = Ok(Turn::Over { is_full: false });
        let Some(table) = source.tables.get(place) else { return idle };
        let at = (u64::from(table.class()), self.marked);
        let located = |error| located(error, table, at);
        let buckets = self.asked(source.begin(table, &desk.candidates())).await?;
        desk.sweep.claimed(&buckets);
        let mut batch = match buckets.as_slice() {
            [] => Batch::default(),
            some => self.fetch(source, table, some, desk).await.map_err(located)?,
        };
        if batch.rows.is_empty() {
            self.asked(source.commit()).await?;
            return Ok(Turn::Over { is_full: batch.is_full });
        }
        self.metrics.events_received.add(batch.rows.len() as u64);
        let (count, poison) = match Box::pin(self.publish(&mut source.ended, table, desk, &batch)).await? {
            Published::UpTo(count, poison) => (count, poison),
            Published::Left(left) => {
                if let Left::SinkFailed { failure, .. } = &left
                    && failure.verdict == Verdict::Record
                {
                    desk.cautious_until = batch.rows.last().map(|row| row.sequence);
                }
                return Ok(Turn::Left(left));
            }
        };
        batch.rows.truncate(count);
        if !batch.rows.is_empty() {
            self.metrics.last_delivery_micros.set(now_micros());
            self.asked(source.mark(table, &batch.rows)).await.map_err(located)?;
        }
        self.asked(source.commit()).await.map_err(located)?;
        self.marked += batch.rows.len() as u64;
        let is_full = batch.is_full || poison.is_some();
        if let Some((bucket, poison)) = poison {
            desk.set_aside(bucket, poison.into());
        }
        Ok(Turn::Over { is_full })
    }

    /// Takes rows into the hand. At a row that the server cannot send only those before it are taken; if it is the first, its
    /// bucket is set aside, and none is.
    async fn fetch(
        &self,
        source: &Source,
        table: &Table,
        buckets: &[i32],
        desk: &mut Desk,
    ) -> Result<Batch, RelayError> {
        let mut rows_max = if desk.cautious_until.is_some() { CAUTIOUS_ROWS } else { desk.appetite.rows() };
        for _ in 0..LOOKS_MAX {
            let fetched = self.asked(source.fetch(table, buckets, rows_max, &mut desk.appetite)).await;
            let (before, cause) = match fetched {
                Err(RelayError::Poll(Error::Unsendable { before, source })) => (before, source),
                other => return other,
            };
            // The transaction is broken, and its claim with it.
            self.asked(source.roll_back()).await?;
            let claimed = self.asked(source.begin(table, buckets)).await?;
            if claimed != buckets {
                break;
            }
            if before > 0 {
                rows_max = i64::try_from(before).unwrap_or(rows_max);
                continue;
            }
            if let Some(error @ Error::Unreadable { bucket, .. }) =
                self.asked(source.name_first(table, buckets, cause)).await?
            {
                desk.set_aside(bucket, error.into());
            }
            break;
        }
        // The rest of these buckets comes in the next sweep.
        Ok(Batch::with_more())
    }

    /// Hands the rows over, up to the first that cannot become a record, and waits until each of them has arrived.
    async fn publish(
        &mut self,
        ended: &mut Ended,
        table: &Table,
        desk: &mut Desk,
        batch: &Batch,
    ) -> Result<Published, RelayError> {
        let deadline = Instant::now() + self.batch_timeout;
        let mut poison = None;
        let mut count = 0;
        for in_hand in &batch.rows {
            let Some(row) = batch.row(in_hand) else { break };
            let poisoned = |reason| {
                let event_id = route::event_id(&row);
                (in_hand.bucket, Error::Poison { table: table.name(), event_id, reason })
            };
            let is_cautious = desk.is_cautious(in_hand.sequence);
            let now = now_micros().cast_signed();
            let made = route::written_at(&row, now).and_then(|Written { at, is_ahead }| {
                if is_ahead {
                    let event_id = route::event_id(&row);
                    tracing::warn!(
                        table = table.name(),
                        event_id,
                        "a row says it was written in the future: sent as of now"
                    );
                }
                let record = desk.outbox.route.record(&row, at, &mut desk.scratch)?;
                Ok((record, route::unix_micros(at)))
            });
            let (record, written_micros) = match made {
                Ok(made) => made,
                Err(reason) => {
                    poison = Some(poisoned(reason));
                    break;
                }
            };
            let refused = loop {
                let Some(outlet) = &mut self.outlet else { break Some(Refused::Broken) };
                match outlet.hand(&record, written_micros) {
                    Ok(()) => break None,
                    Err(Refused::Full) => {
                        tokio::time::sleep(FULL_PAUSE).await;
                        if let Some(left) = self.arrived(ended, deadline).await? {
                            return Ok(Published::Left(left));
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
                // A new producer has asked the brokers anew for this one record, and those before it have arrived.
                Some(Refused::NoPartition(number)) if is_cautious => {
                    return Ok(Published::UpTo(count, Some(poisoned(record.no_partition(number)))));
                }
                Some(Refused::NoPartition(_) | Refused::Broken | Refused::Full) | None => {}
            }
            count += 1;
            // A sink that is broken says why while it is waited for.
            if (is_cautious || refused.is_some())
                && let Some(left) = self.arrived(ended, deadline).await?
            {
                return Ok(Published::Left(left));
            }
        }
        Ok(match self.arrived(ended, deadline).await? {
            Some(left) => Published::Left(left),
            None => Published::UpTo(count, poison),
        })
    }

    /// Waits until everything on the way has arrived; gives why it will not.
    async fn arrived(&mut self, ended: &mut Ended, deadline: Instant) -> Result<Option<Left>, RelayError> {
        let mut deadline = deadline;
        let mut is_draining = false;
        loop {
            self.metrics.tick();
            let Some(outlet) = &mut self.outlet else { return Ok(Some(Left::Stalled)) };
            let has_delivered_all = outlet.has_delivered_all();
            let records = outlet.ledger.records();
            self.metrics.in_flight(
                records,
                outlet.ledger.bytes(),
                outlet.ledger.oldest_committed_micros().map(unsigned),
            );
            if let Some(failure) = outlet.sink.failure() {
                return Ok(Some(Left::SinkFailed { failure, was_alone: records == 1 }));
            }
            if has_delivered_all {
                return Ok(None);
            }
            let now = Instant::now();
            if now >= deadline && is_draining {
                return Err(RelayError::DrainTimeout { records, limit: self.drain.min(self.batch_timeout) });
            }
            if now >= deadline {
                return Ok(Some(Left::Stalled));
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

    /// Waits for an answer of PostgreSQL.
    async fn asked<T>(&self, query: impl Future<Output = Result<T, RelayError>>) -> Result<T, RelayError> {
        let answered = self.patience.tick_during(tokio::time::timeout(QUERY_LIMIT, query)).await;
        answered.unwrap_or(Err(RelayError::Silent { limit: QUERY_LIMIT }))
    }
}

/// Says at which place the server failed, if it did: how many rows had been marked before tells whether anything moves.
fn located(error: RelayError, table: &Table, place: Place) -> RelayError {
    if !matches!(&error, RelayError::Wal { source, .. } if source.stays_at_its_place()) {
        return error;
    }
    let RelayError::Wal { action, source } = error else { return error };
    Error::Raised { table: table.name(), place, action, is_again: false, source: Box::new(source) }.into()
}

/// The end of a connection, as an error.
pub(super) fn closed(error: Option<postgres::Error>) -> RelayError {
    RelayError::Wal { action: "keep the connection", source: error.unwrap_or(postgres::Error::Closed) }
}

fn unsigned(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or_default()
}
