//! What callers, librdkafka's polling thread and the supervisor share: the queue, and the client that empties it.
//!
//! While there is no client, records are only accepted. Every record gets one result: its delivery report, an error for
//! certain, or the end of the publisher.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;
use tokio::sync::Semaphore;

use crate::kafka::Repeats;
use crate::kafka::Verdict;
use crate::kafka::is_about_size;
use crate::kafka_error::KafkaError;
use crate::publisher::client::Client;
use crate::publisher::client::Reports;
use crate::publisher::client::now_micros;
use crate::publisher::error::Error;
use crate::publisher::outgoing::Outgoing;
use crate::publisher::outgoing::Unheard;
use crate::publisher::queue::Queue;

/// A topic that librdkafka has not found for so long does not exist: the time of `topic.metadata.propagation.max.ms`.
const TOPIC_GRACE: Duration = Duration::from_secs(59);

/// The number of missing topics that are remembered.
const MAX_MISSING: usize = 1_000;

/// The shared part of a publisher.
#[derive(Debug)]
pub(super) struct Core {
    /// Room for records, in bytes.
    pub(super) room: Arc<Semaphore>,
    pub(super) max_record_bytes: usize,
    state: Mutex<State>,
    /// Wakes the supervisor.
    changed: Condvar,
    /// Wakes those that wait for results.
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue<Outgoing>,
    client: Option<Client>,
    /// Why the client cannot deliver any more.
    broken: Option<String>,
    /// Why the last client was replaced, until a record is delivered.
    trouble: Option<String>,
    /// A record was delivered since the last client was installed.
    has_delivered: bool,
    /// A batch was refused for its size.
    was_too_large: bool,
    phase: Phase,
    /// Topics that did not exist for the whole grace.
    missing: HashSet<String>,
    unheard: Unheard,
    repeats: Repeats,
}

#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    #[default]
    Open,
    /// No further events are accepted.
    Closing,
    Ended,
}

/// What the supervisor does next.
pub(super) enum Task {
    /// The client is broken, and why.
    Replace(Client, String),
    /// The publisher has ended, perhaps without a client.
    End(Option<Client>),
}

/// What the next client needs.
pub(super) struct Needs {
    /// The last one delivered something, or the next one finds out which records Kafka refuses.
    pub(super) no_backoff: bool,
    /// A batch of several records was too large.
    pub(super) smaller_batches: bool,
}

impl Core {
    pub(super) fn new(max_in_flight_bytes: usize, max_record_bytes: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(max_in_flight_bytes)),
            max_record_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
            settled: Notify::new(),
        }
    }

    /// Accepts a record and sends what can be sent. Returns its number.
    pub(super) fn accept(&self, outgoing: Outgoing) -> Result<usize, Error> {
        let mut state = self.lock();
        if state.phase > Phase::Open {
            return Err(Error::Closed);
        }
        let number = state.queue.accept(outgoing);
        self.pump(&mut state);
        Ok(number)
    }

    /// The time of a record is over. Returns the error, or none if it has its result.
    pub(super) fn expire(&self, number: usize, timeout: Duration) -> Option<Error> {
        let mut state = self.lock();
        let waiting = state.waiting();
        if let Some(outgoing) = state.queue.withdraw(number) {
            return Some(outgoing.record.not_sent(timeout, waiting));
        }
        let outgoing = state.queue.get_mut(number)?;
        Some(outgoing.not_acknowledged(timeout, waiting))
    }

    /// Returns why records wait, if it is known.
    pub(super) fn waiting(&self) -> Option<String> {
        self.lock().waiting()
    }

    /// Waits until everything that was accepted before this call has its result, or until the time is over. Returns the
    /// number up to which it waited.
    pub(super) async fn settled(&self, timeout: Duration) -> usize {
        let end = self.lock().queue.next_number();
        let settled = async {
            loop {
                let mut notified = std::pin::pin!(self.settled.notified());
                notified.as_mut().enable();
                if self.lock().queue.before(end).next().is_none() {
                    return;
                }
                notified.await;
            }
        };
        // What is left then is seen in the queue.
        let _ = tokio::time::timeout(timeout, settled).await;
        end
    }

    /// Reports the events before a number that are not known to be delivered, without those whose caller heard of it.
    pub(super) fn report_before(&self, end: usize) -> Result<(), Error> {
        let mut state = self.lock();
        let mut unheard = std::mem::take(&mut state.unheard);
        state.queue.before(end).for_each(|(outgoing, was_sent)| unheard.add(outgoing.unsettled(was_sent)));
        unheard.into_result()
    }

    /// Accepts nothing more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.phase = state.phase.max(Phase::Closing);
    }

    /// Ends the publisher: what has no result gets an error. Reports the events that are not known to be delivered.
    pub(super) fn end(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.phase = Phase::Ended;
        self.room.close();
        let mut unheard = std::mem::take(&mut state.unheard);
        for (outgoing, was_sent) in state.queue.drain() {
            unheard.add(outgoing.unsettled(was_sent));
            outgoing.end(was_sent);
        }
        self.notify();
        unheard.into_result()
    }

    /// Waits for something that the supervisor must do.
    pub(super) fn next_task(&self) -> Task {
        let mut state = self.lock();
        loop {
            if state.phase == Phase::Ended {
                return Task::End(state.client.take());
            }
            if let Some(why) = state.broken.clone()
                && let Some(client) = state.client.take()
            {
                return Task::Replace(client, why);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until the publisher ends. Returns whether it has ended.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let has_ended = |state: &mut State| state.phase == Phase::Ended;
        let waited = self.changed.wait_timeout_while(self.lock(), duration, |state| !has_ended(state));
        waited.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Ended
    }

    /// The client before has answered everything. Says what the next one needs.
    pub(super) fn renew(&self) -> Needs {
        let mut state = self.lock();
        let renewed = state.queue.renew();
        for outgoing in renewed.refused {
            state.fail(outgoing, Outgoing::refused);
        }
        self.notify();
        let was_too_large = std::mem::take(&mut state.was_too_large);
        Needs {
            no_backoff: renewed.has_suspects || state.has_delivered,
            smaller_batches: renewed.has_suspects && was_too_large,
        }
    }

    /// Sends everything that has no result to a new client.
    pub(super) fn install(&self, client: Client) {
        let mut state = self.lock();
        state.client = Some(client);
        state.broken = None;
        state.has_delivered = false;
        self.pump(&mut state);
    }

    /// Sends what can be sent now.
    fn pump(&self, state: &mut State) {
        while state.broken.is_none()
            && let Some(client) = &state.client
            && let Some((number, outgoing)) = state.queue.next_to_send()
        {
            outgoing.sent_at = Some(Instant::now());
            match client.send(&outgoing.record, number) {
                Ok(()) => state.queue.sent(number),
                Err(ClientError::MessageProduction(RDKafkaErrorCode::QueueFull)) if !client.is_idle() => return,
                Err(ClientError::MessageProduction(
                    RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::MessageSizeTooLarge,
                )) => {
                    let limit = self.max_record_bytes;
                    state.settle(number, |outgoing| outgoing.too_large(limit));
                    self.notify();
                }
                Err(error) => self.failed(state, number, error),
            }
        }
    }

    fn failed(&self, state: &mut State, number: usize, error: ClientError) {
        let Some(outgoing) = state.queue.get_mut(number) else { return };
        let topic = &outgoing.record.topic;
        let code = error.rdkafka_error_code();
        match code.map_or(Verdict::Transient, Verdict::of) {
            Verdict::Topic
                if state.missing.contains(topic)
                    || outgoing.sent_at.is_some_and(|sent_at| sent_at.elapsed() >= TOPIC_GRACE) =>
            {
                if state.missing.len() >= MAX_MISSING {
                    state.missing.clear();
                }
                state.missing.insert(topic.clone());
                state.settle(number, Outgoing::topic_missing);
            }
            Verdict::Rights => state.settle(number, |outgoing| outgoing.access_denied(KafkaError::new(error))),
            Verdict::Record if code != Some(RDKafkaErrorCode::InvalidDifferentRecord) => {
                let why = error.to_string();
                state.was_too_large |= code.is_some_and(is_about_size);
                outgoing.refusal = Some(error);
                state.queue.refuse(number);
                self.break_client(state, &why);
            }
            // A topic that existed, the brokers' or the client's state, or another record of the batch.
            Verdict::Topic | Verdict::Record | Verdict::Transient => self.break_client(state, &error.to_string()),
        }
    }

    fn break_client(&self, state: &mut State, why: &str) {
        if state.broken.is_none() {
            state.broken = Some(why.to_owned());
            state.trouble = Some(why.to_owned());
            self.changed.notify_all();
        }
    }

    fn notify(&self) {
        self.changed.notify_all();
        self.settled.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports for Core {
    fn report(&self, number: usize, result: Result<(i32, i64), ClientError>) {
        let mut state = self.lock();
        match result {
            Ok((partition, offset)) => {
                if let Some(outgoing) = state.queue.settle(number) {
                    state.missing.remove(&outgoing.record.topic);
                    state.trouble = None;
                    state.has_delivered = true;
                    outgoing.published(partition, offset);
                }
            }
            Err(error) => self.failed(&mut state, number, error),
        }
        self.pump(&mut state);
        drop(state);
        self.settled.notify_waiters();
    }

    fn broken(&self, why: &str) {
        self.break_client(&mut self.lock(), why);
    }
}

impl State {
    fn waiting(&self) -> Option<String> {
        self.client.as_ref().and_then(Client::waiting).or_else(|| self.trouble.clone())
    }

    /// Gives a record its error.
    fn settle(&mut self, number: usize, error: impl FnOnce(&Outgoing) -> Error) {
        if let Some(outgoing) = self.queue.settle(number) {
            self.fail(outgoing, error);
        }
    }

    fn fail(&mut self, outgoing: Outgoing, error: impl FnOnce(&Outgoing) -> Error) {
        let error = error(&outgoing);
        let topic = outgoing.record.topic.clone();
        let Some(unheard) = outgoing.fail(error) else { return };
        if self.repeats.is_news(&topic, &unheard.reason, now_micros()) {
            tracing::warn!(topic, event_id = unheard.event_id, reason = unheard.reason, "event not published");
        }
        self.unheard.add(unheard);
    }
}
