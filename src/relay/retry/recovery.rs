//! Recovery from errors: backoff, one log line a minute about the same error, and which errors end the relay.
//!
//! Both sources use it. While one peer is down the other one is checked too, so that a fatal error of it is reported at
//! once. What was in flight when an error came is the caller's concern.

use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::relay::error::Error;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::State;
use crate::relay::metrics::now_micros;
use crate::relay::publish;
use crate::relay::publish::Failure;
use crate::relay::publish::Retired;
use crate::relay::publish::Verdict;
use crate::relay::retry::backoff::Backoff;
use crate::relay::retry::backoff::MAX_BACKOFF_DOWN;
use crate::relay::retry::backoff::MAX_BACKOFF_REFUSED;
use crate::relay::retry::recurrence::FailurePosition;
use crate::relay::retry::recurrence::Recurrence;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// Credentials may be changing: they count as wrong after so many attempts.
const RIGHTS_ATTEMPTS: u32 = 3;
/// The timeout of a probe of the brokers.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait for Kafka before the source is checked: usually Kafka answers first, and the start checks the
/// source.
const CHECK_DELAY: Duration = Duration::from_secs(1);
/// How often the source is checked while Kafka is down.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often the same error is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// After a connection that lasted so long the backoff starts again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How long brokers may take to answer a retired producer. librdkafka gives up a request after `socket.timeout.ms`, by
/// default a minute; this limit is for a request that it never gives up.
const RETIRED_LIMIT: Duration = Duration::from_secs(180);
/// How often that is checked.
const RETIRED_INTERVAL: Duration = Duration::from_millis(20);
/// After this time the wait is logged.
const RETIRED_WARNING: Duration = Duration::from_secs(1);

/// What follows a failed record or producer.
pub(in crate::relay) enum AfterFailure {
    /// Retry at once, one record at a time.
    OneByOne,
    /// Wait for Kafka, after a pause.
    AwaitKafka(Duration),
    /// Retry after a pause: authorization may be changing.
    Pause(Duration),
}

/// The errors so far, and the backoff.
pub(in crate::relay) struct Recovery {
    kafka: publish::Settings,
    metrics: Metrics,
    stop: CancellationToken,
    backoff: Backoff,
    rights_refused: u32,
    /// The peer is up and rejected the connection.
    was_refused: bool,
    /// A connection was established before: the options are right, and an invalid file is being replaced.
    has_worked: bool,
    logged: Option<(String, Instant)>,
    recurrence: Recurrence,
    /// The position of the last error after which the tables were checked again.
    rechecked: Option<FailurePosition>,
}

impl Recovery {
    pub(in crate::relay) fn new(kafka: publish::Settings, metrics: Metrics, stop: CancellationToken) -> Self {
        let backoff = Backoff::new(now_micros() ^ u64::from(std::process::id()) << 32);
        let recurrence = Recurrence::default();
        let (rights_refused, was_refused, has_worked, logged) = (0, false, false, None);
        Self {
            kafka,
            metrics,
            stop,
            backoff,
            rights_refused,
            was_refused,
            has_worked,
            logged,
            recurrence,
            rechecked: None,
        }
    }

    /// Gives the settings of a producer.
    pub(in crate::relay) const fn kafka(&self) -> &publish::Settings {
        &self.kafka
    }

    /// Classifies a record or producer that failed. A permanent error fails a whole batch: the record is known only
    /// when it was sent alone.
    pub(in crate::relay) fn after_failure(&mut self, failure: Failure, was_alone: bool) -> Result<AfterFailure, Error> {
        match failure.verdict {
            Verdict::Record if !was_alone => {
                self.batch_refused(&failure);
                Ok(AfterFailure::OneByOne)
            }
            Verdict::Record | Verdict::Topic => Err(failure.into()),
            Verdict::Rights | Verdict::Transient => {
                self.metrics.enter(State::SinkBlocked);
                let is_about_brokers = failure.verdict == Verdict::Transient;
                self.adapt_timestamps(&failure);
                self.report(&failure.into());
                let pause = self.next_backoff();
                Ok(if is_about_brokers { AfterFailure::AwaitKafka(pause) } else { AfterFailure::Pause(pause) })
            }
        }
    }

    /// Handles a rejected batch: logs it, and makes later ones smaller if it was too large for its topic.
    fn batch_refused(&mut self, failure: &Failure) {
        tracing::warn!(
            code = %failure.code(), error = %failure,
            "batch rejected: publishing one record at a time to find the record"
        );
        if failure.is_about_size {
            self.kafka.shrink_batches();
        }
    }

    /// Handles a record that was rejected for its timestamp: later ones of its topic get the current time.
    fn adapt_timestamps(&mut self, failure: &Failure) {
        if let Some(topic) = failure.topic().filter(|_| failure.is_about_time)
            && self.kafka.narrow_timestamps(topic)
        {
            tracing::warn!(
                topic,
                "record timestamp rejected (message.timestamp.before.max.ms or after.max.ms): sending with the current \
                 time, and the commit time only in the header produced_at"
            );
        }
    }

    /// Retries less often: the peer is up and rejected the connection.
    pub(in crate::relay) const fn refused(&mut self) {
        self.was_refused = true;
    }

    /// Gives the next backoff.
    pub(in crate::relay) fn next_backoff(&mut self) -> Duration {
        self.backoff.next_backoff(if self.was_refused { MAX_BACKOFF_REFUSED } else { MAX_BACKOFF_DOWN })
    }

    /// Waits for so long, or until the relay is stopped.
    pub(in crate::relay) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.tick_during(tokio::time::sleep(pause)) => {}
        }
    }

    /// Ticks while it waits.
    pub(in crate::relay) async fn tick_during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            self.metrics.tick();
            tokio::select! {
                waited = &mut wait => return waited,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// Waits until the brokers have answered the requests of retired producers, or until the relay is stopped. A record
    /// written before that might be followed by an older one.
    pub(in crate::relay) async fn await_retired(&self, retired: &mut Vec<Retired>) {
        let began = Instant::now();
        let mut is_logged = false;
        loop {
            retired.retain(|retired| !retired.is_answered());
            if retired.is_empty() || self.stop.is_cancelled() {
                return;
            }
            if began.elapsed() > RETIRED_LIMIT {
                tracing::warn!(
                    code = "WR-6934",
                    "requests of the previous producer not answered: older records may follow newer ones"
                );
                return retired.clear();
            }
            if !is_logged && began.elapsed() > RETIRED_WARNING {
                tracing::warn!(code = "WR-6937", "waiting for requests of the previous producer");
                self.metrics.enter(State::SinkBlocked);
                is_logged = true;
            }
            self.pause(RETIRED_INTERVAL).await;
        }
    }

    /// Waits until Kafka answers, until the relay is stopped, or until the checks of the source end with a fatal error.
    pub(in crate::relay) async fn await_kafka(&mut self, checks: impl Future<Output = Error>) -> Result<(), Error> {
        tokio::select! {
            biased;
            answered = self.probe_kafka() => answered,
            fatal = checks => Err(fatal),
        }
    }

    /// Checks the source again and again while Kafka is down. Gives a fatal error, and logs a transient one.
    pub(in crate::relay) async fn until_fatal(mut self, check: impl AsyncFn() -> Result<(), Error>) -> Error {
        self.pause(CHECK_DELAY).await;
        loop {
            let checked = self.tick_during(Box::pin(check())).await;
            let pause = match checked.map_err(|error| self.classify(error)) {
                Ok(()) => {
                    self.connected();
                    CHECK_INTERVAL
                }
                Err(Ok(())) => self.next_backoff(),
                Err(Err(fatal)) => return fatal,
            };
            self.pause(pause).await;
        }
    }

    /// Creates a separate state for the source: errors of the two peers do not affect each other.
    pub(in crate::relay) fn source(&self) -> Self {
        let mut source = Self::new(self.kafka.clone(), self.metrics.clone(), self.stop.clone());
        source.has_worked = self.has_worked;
        source
    }

    async fn probe_kafka(&mut self) -> Result<(), Error> {
        while !self.stop.is_cancelled() {
            let kafka = self.kafka.clone();
            let probe = tokio::task::spawn_blocking(move || publish::probe(&kafka, PROBE_LIMIT));
            let probed = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                probed = self.tick_during(probe) => probed,
            };
            match probed.map_err(|panicked| Error::Thread(std::io::Error::other(panicked)))? {
                Ok(cluster) => {
                    tracing::info!(brokers = cluster.brokers, cluster = cluster.id.as_deref(), "kafka connected");
                    self.metrics.kafka.connected();
                    self.rights_refused = 0;
                    self.was_refused = false;
                    return Ok(());
                }
                Err(error) => {
                    self.metrics.kafka.lost(Loss::Failed);
                    self.classify(error.into())?;
                    let pause = self.next_backoff();
                    self.pause(pause).await;
                }
            }
        }
        Ok(())
    }

    /// Logs a transient error, and gives back a fatal one.
    pub(in crate::relay) fn classify(&mut self, error: Error) -> Result<(), Error> {
        let is_recurring =
            error.failure_position().is_some_and(|(what, position)| self.recurrence.is_recurring(what, position));
        let error = if is_recurring { error.mark_recurring() } else { error };
        let is_about_files = error.is_about_files();
        let may_change = is_about_files || error.code().exit() == Exit::Rights;
        self.was_refused = may_change;
        if may_change {
            self.rights_refused += 1;
        }
        let is_retried = self.rights_refused < RIGHTS_ATTEMPTS || is_about_files && self.has_worked;
        // A privilege that is missing twice at the same position is not about the connection, which resets the
        // attempts.
        if error.fate() == Fate::Fatal && (is_recurring || !(may_change && is_retried)) {
            return Err(error);
        }
        self.report(&error);
        Ok(())
    }

    /// Says whether a table or a column that passed the check does not exist any more. The next check uses a new name
    /// or gives the error; a second error without progress is not about the outbox.
    pub(in crate::relay) fn must_recheck(&mut self, error: &Error) -> bool {
        let position = error.failure_position().filter(|(state, _)| matches!(*state, "42P01" | "42703"));
        let is_first = position.is_some_and(|(_, position)| self.rechecked.replace(position) != Some(position));
        if is_first {
            tracing::warn!(
                code = %error.code(), error = chain(error),
                "table or column missing: checking the tables again"
            );
        }
        is_first
    }

    /// Records that all rows were read and marked: the next error at this position is another one.
    pub(in crate::relay) fn forget_failures(&mut self) {
        self.recurrence.forget();
        self.rechecked = None;
    }

    /// Records that a connection to PostgreSQL was established.
    pub(in crate::relay) const fn connected(&mut self) {
        self.has_worked = true;
        self.rights_refused = 0;
    }

    /// Records how long a connection lasted.
    pub(in crate::relay) fn connection_lasted(&mut self, duration: Duration) {
        if duration > STABLE_AFTER {
            self.backoff.reset();
            self.logged = None;
        }
    }

    /// Logs an error: at once when it is new, once a minute while it is the same.
    pub(in crate::relay) fn report(&mut self, error: &Error) {
        let text = chain(error);
        let code = error.code().to_string();
        self.metrics.failed(error.component(), error);
        let is_news = self.logged.as_ref().is_none_or(|(logged, at)| *logged != text || at.elapsed() > LOG_INTERVAL);
        if is_news {
            tracing::warn!(code, error = text, next = error.help(), "retrying after error");
            self.logged = Some((text, Instant::now()));
        }
    }
}
