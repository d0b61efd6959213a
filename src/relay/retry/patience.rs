//! Waiting for the other side: growing pauses, one line a minute about the same trouble, and when a person must act.
//!
//! Both sources of events wait in the same way, and both peers are looked at while one is waited for: what is wrong with the other
//! for good is no news for the time after. Nothing here knows what was on the way when the trouble came: that is let
//! go of by whoever holds it.

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
use crate::relay::retry::backoff::LONGEST_DOWN;
use crate::relay::retry::backoff::LONGEST_REFUSED;
use crate::relay::retry::recurrence::Recurrence;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// Credentials may just be changing: so many attempts are made before they are called wrong.
const RIGHTS_ATTEMPTS: u32 = 3;
/// How long brokers may take to answer a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long a Kafka that answers may take without a look at the source meanwhile: the start itself looks next.
const LOOK_DELAY: Duration = Duration::from_secs(1);
/// How often the source is looked at while Kafka is down.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often the same trouble is told again.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one: the next trouble begins anew.
const GOOD_WHILE: Duration = Duration::from_secs(10);

/// How long brokers may take to answer a producer that was given up. librdkafka gives a request up after `socket.timeout.ms`,
/// by default a minute; this is for one that never does.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked whether they have.
const ANSWER_INTERVAL: Duration = Duration::from_millis(20);
/// An answer that takes longer than this is waited for with a word.
const ANSWER_USUAL: Duration = Duration::from_secs(1);

/// What follows from a failed record or producer.
pub(in crate::relay) enum AfterFailure {
    /// The same again at once, one record at a time.
    OneByOne,
    /// Kafka must answer first, asked after a pause.
    AwaitKafka(Duration),
    /// The same again after a pause: rights may just be changing.
    Pause(Duration),
}

/// What is remembered of the trouble so far.
pub(in crate::relay) struct Patience {
    kafka: publish::Settings,
    metrics: Metrics,
    stop: CancellationToken,
    backoff: Backoff,
    rights_refused: u32,
    /// The peer is up, and refused us.
    was_refused: bool,
    /// Events have flowed: the options are right, and a file that is unfit now is being replaced.
    has_worked: bool,
    told: Option<(String, Instant)>,
    recurrence: Recurrence,
}

impl Patience {
    pub(in crate::relay) fn new(kafka: publish::Settings, metrics: Metrics, stop: CancellationToken) -> Self {
        let backoff = Backoff::new(now_micros() ^ u64::from(std::process::id()) << 32);
        let recurrence = Recurrence::default();
        let (rights_refused, was_refused, has_worked, told) = (0, false, false, None);
        Self { kafka, metrics, stop, backoff, rights_refused, was_refused, has_worked, told, recurrence }
    }

    /// Gives what a producer is made from.
    pub(in crate::relay) const fn kafka(&self) -> &publish::Settings {
        &self.kafka
    }

    /// Says what follows from a record that failed, or from its producer that did. A permanent error fails a whole batch:
    /// only alone is a record known to be the culprit.
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
                self.learn(&failure);
                self.tell(&failure.into());
                let pause = self.next_pause();
                Ok(if is_about_brokers { AfterFailure::AwaitKafka(pause) } else { AfterFailure::Pause(pause) })
            }
        }
    }

    /// A batch was refused: it is told, and later ones are smaller if this one was too large for its topic.
    fn batch_refused(&mut self, failure: &Failure) {
        tracing::warn!(
            code = %failure.code(), error = %failure,
            "a batch was refused: publishing one record at a time until the culprit is known"
        );
        if failure.is_about_size {
            self.kafka.shrink_batches();
        }
    }

    /// A record was refused for its timestamp: later ones to its topic have the time of sending.
    fn learn(&mut self, failure: &Failure) {
        if let Some(topic) = failure.topic().filter(|_| failure.is_about_time)
            && self.kafka.narrow_timestamps(topic)
        {
            tracing::warn!(
                topic,
                "the topic refuses the commit time as a record's timestamp (message.timestamp.before.max.ms or after.max.ms): \
                 sending with the time of sending; the commit time stays in the header produced_at"
            );
        }
    }

    /// The peer is up and refuses: it is asked less often.
    pub(in crate::relay) const fn refused(&mut self) {
        self.was_refused = true;
    }

    /// Gives the next pause.
    pub(in crate::relay) fn next_pause(&mut self) -> Duration {
        self.backoff.next_pause(if self.was_refused { LONGEST_REFUSED } else { LONGEST_DOWN })
    }

    /// Waits for so long, or until a stop is asked for.
    pub(in crate::relay) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.tick_during(tokio::time::sleep(pause)) => {}
        }
    }

    /// Keeps the liveness mark fresh while nothing else does.
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

    /// Waits until the brokers have answered what given-up producers have sent, or until a stop is asked for. Whatever is written
    /// before that may be followed by an older record.
    pub(in crate::relay) async fn await_answers(&self, retired: &mut Vec<Retired>) {
        let began = Instant::now();
        let mut is_said = false;
        loop {
            retired.retain(|retired| !retired.is_answered());
            if retired.is_empty() || self.stop.is_cancelled() {
                return;
            }
            if began.elapsed() > ANSWER_LIMIT {
                tracing::warn!(
                    code = "WR-6934",
                    "the brokers have not answered the previous producer: older records may follow newer ones"
                );
                return retired.clear();
            }
            if !is_said && began.elapsed() > ANSWER_USUAL {
                tracing::warn!(code = "WR-6935", "waiting until the brokers have answered the previous producer");
                self.metrics.enter(State::SinkBlocked);
                is_said = true;
            }
            self.pause(ANSWER_INTERVAL).await;
        }
    }

    /// Waits until Kafka answers, until a stop is asked for, or until what looks at the source meanwhile has found
    /// something wrong.
    pub(in crate::relay) async fn await_kafka(&mut self, looking: impl Future<Output = Error>) -> Result<(), Error> {
        tokio::select! {
            biased;
            answered = self.probe_kafka() => answered,
            wrong = looking => Err(wrong),
        }
    }

    /// Looks at the source again and again while Kafka is down. Gives what is wrong there for good, and logs what may
    /// pass.
    pub(in crate::relay) async fn until_wrong(mut self, look: impl AsyncFn() -> Result<(), Error>) -> Error {
        self.pause(LOOK_DELAY).await;
        loop {
            let looked = self.tick_during(Box::pin(look())).await;
            let pause = match looked.map_err(|error| self.judge(error)) {
                Ok(()) => {
                    self.let_in();
                    LOOK_INTERVAL
                }
                Err(Ok(())) => self.next_pause(),
                Err(Err(wrong)) => return wrong,
            };
            self.pause(pause).await;
        }
    }

    /// The same for the other side: what is known of it is kept apart, so that the two do not count for each other.
    pub(in crate::relay) fn beside(&self) -> Self {
        let mut beside = Self::new(self.kafka.clone(), self.metrics.clone(), self.stop.clone());
        beside.has_worked = self.has_worked;
        beside
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
                    tracing::info!(brokers = cluster.brokers, cluster = cluster.id.as_deref(), "Kafka answers");
                    self.metrics.kafka.connected();
                    self.rights_refused = 0;
                    self.was_refused = false;
                    return Ok(());
                }
                Err(error) => {
                    self.metrics.kafka.lost(Loss::Failed);
                    self.judge(error.into())?;
                    let pause = self.next_pause();
                    self.pause(pause).await;
                }
            }
        }
        Ok(())
    }

    /// Tells of an error that may pass, and gives back one that a person must act on.
    pub(in crate::relay) fn judge(&mut self, error: Error) -> Result<(), Error> {
        let is_again = error.place().is_some_and(|(what, place)| self.recurrence.is_again(what, place));
        let error = if is_again { error.come_again() } else { error };
        let is_about_files = error.is_about_files();
        let may_change = is_about_files || error.code().exit() == Exit::Rights;
        self.was_refused = may_change;
        if may_change {
            self.rights_refused += 1;
        }
        let is_waited_for = self.rights_refused < RIGHTS_ATTEMPTS || is_about_files && self.has_worked;
        if error.fate() == Fate::Fatal && !(may_change && is_waited_for) {
            return Err(error);
        }
        self.tell(&error);
        Ok(())
    }

    /// PostgreSQL has let us in.
    pub(in crate::relay) const fn let_in(&mut self) {
        self.has_worked = true;
        self.rights_refused = 0;
    }

    /// A connection is over that held for so long.
    pub(in crate::relay) fn held_for(&mut self, duration: Duration) {
        if duration > GOOD_WHILE {
            self.backoff.reset();
            self.told = None;
        }
    }

    /// Tells what went wrong: at once when it is new, once a minute while it stays the same.
    pub(in crate::relay) fn tell(&mut self, error: &Error) {
        let text = chain(error);
        let code = error.code().to_string();
        self.metrics.failed(error.component(), error);
        let is_news = self.told.as_ref().is_none_or(|(told, at)| *told != text || at.elapsed() > TELL_INTERVAL);
        if is_news {
            tracing::warn!(code, error = text, help = error.help(), "waiting");
            self.told = Some((text, Instant::now()));
        }
    }
}
