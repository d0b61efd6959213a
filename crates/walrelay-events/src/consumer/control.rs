//! The handle of a consumer: what it is doing, and pause and resume.
//!
//! The status is made of what the consumer reports to its observer, so that the two cannot contradict each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::watch;

use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::topic_partition::TopicPartition;

/// The handle of a consumer, from [`Consumer::control`](crate::consumer::Consumer::control). Cloning it is cheap. Any
/// thread can use it.
///
/// ```
/// use walrelay_events::consumer::{Config, Consumer, Delivery};
///
/// let consumer = Consumer::new(Config::new("localhost:9092", "shipping", &["order-events"]), |_: Delivery| async {});
/// let control = consumer.control();
/// assert!(!control.is_ready(), "it has not started yet");
/// control.pause();
/// assert!(control.status().is_paused);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    status: watch::Sender<Status>,
    is_paused: AtomicBool,
    uncommitted: Mutex<Vec<(TopicPartition, i64)>>,
}

/// What a consumer is doing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Where the consumer is in its life.
    pub state: State,
    /// Whether at least one broker is up.
    pub is_connected: bool,
    /// Whether [`Control::pause`] was called, and [`Control::resume`] was not since.
    pub is_paused: bool,
    /// The assigned partitions and the lag of each. It is unknown until the first statistics, after up to 5 s.
    pub partitions: BTreeMap<TopicPartition, Option<u64>>,
    /// Records in handlers.
    pub handlers_in_flight: usize,
    /// Buffered records of all partitions.
    pub buffered_records: usize,
}

/// Where a consumer is in its life.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// It has not joined its group: it was not started, it waits for brokers, or it checks the topics.
    #[default]
    Starting,
    /// It joins its group and waits for its partitions.
    Joining,
    /// It has its partitions. They can be none, if the group has more members than partitions.
    Joined,
    /// The group refuses it. The consumer retries.
    Refused {
        /// Kafka's error.
        error: String,
        /// What to do.
        next: String,
    },
    /// It finishes running handlers, commits and leaves its group.
    Stopping,
    /// It has ended.
    Ended,
}

impl Status {
    /// Returns whether the consumer has joined its group and has its partitions.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Joined
    }

    /// Returns the lag of all assigned partitions, as far as it is known.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions.values().flatten().sum()
    }
}

impl Control {
    /// Returns what the consumer is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { is_paused: self.is_paused(), ..self.shared.status.borrow().clone() }
    }

    /// Returns whether the consumer has joined its group and has its partitions.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.status.borrow().is_ready()
    }

    /// Waits until the consumer has joined its group and has its partitions. Returns false if it has ended.
    pub async fn ready(&self) -> bool {
        let mut status = self.shared.status.subscribe();
        // The sender lives as long as this handle.
        let reached = status.wait_for(|status| status.is_ready() || status.state == State::Ended).await;
        reached.is_ok_and(|status| status.is_ready())
    }

    /// Starts no more handlers. Running ones finish, their offsets are committed, and the consumer stays in its group.
    /// Up to `max_buffered_records` records per partition are buffered meanwhile. A pause may precede the start.
    pub fn pause(&self) {
        if !self.shared.is_paused.swap(true, Relaxed) {
            tracing::info!("consumer paused");
        }
    }

    /// Starts handlers again.
    pub fn resume(&self) {
        if self.shared.is_paused.swap(false, Relaxed) {
            tracing::info!("consumer resumed");
        }
    }

    /// Returns whether the consumer is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused.load(Relaxed)
    }

    /// Brokers have answered, and the topics exist.
    pub(super) fn started(&self) {
        self.shared.status.send_modify(|status| (status.state, status.is_connected) = (State::Joining, true));
    }

    pub(super) fn set_state(&self, state: State) {
        self.shared.status.send_modify(|status| status.state = state);
    }

    /// Keeps which positions are not committed, and how many handlers run, for a stop that the consumer's own thread
    /// does not answer.
    pub(super) fn set_uncommitted(&self, uncommitted: Vec<(TopicPartition, i64)>) {
        *self.shared.uncommitted.lock().unwrap_or_else(PoisonError::into_inner) = uncommitted;
    }

    pub(super) fn uncommitted(&self) -> Vec<(TopicPartition, i64)> {
        self.shared.uncommitted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns an observer that keeps the status up to date and passes everything on.
    pub(super) fn watch(&self, observer: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(Watched { control: self.clone(), observer })
    }
}

struct Watched {
    control: Control,
    observer: Arc<dyn Observer>,
}

impl Observer for Watched {
    fn observe(&self, observed: &Observed<'_>) {
        // Not for each record: this takes a lock.
        if !matches!(observed, Observed::Handled { .. }) {
            self.control.shared.status.send_if_modified(|status| status.apply(observed));
        }
        self.observer.observe(observed);
    }
}

impl Status {
    /// Takes what the consumer reported. Returns whether it changes the status.
    fn apply(&mut self, observed: &Observed<'_>) -> bool {
        match observed {
            Observed::PartitionAssigned { partition } => _ = self.partitions.insert((*partition).clone(), None),
            Observed::PartitionRevoked { partition } => _ = self.partitions.remove(*partition),
            Observed::Lag { partition, records } => {
                let Some(lag) = self.partitions.get_mut(*partition) else { return false };
                *lag = Some(*records);
            }
            Observed::Joined => self.join(State::Joined),
            Observed::JoinRefused { error, next } => {
                self.join(State::Refused { error: (*error).to_owned(), next: (*next).to_owned() });
            }
            Observed::AssignmentLost | Observed::ClientReplaced => self.join(State::Joining),
            Observed::AllBrokersDown => self.is_connected = false,
            Observed::BrokersUp { .. } => self.is_connected = true,
            Observed::Load { handlers_in_flight, buffered_records, .. } => {
                self.handlers_in_flight = *handlers_in_flight;
                self.buffered_records = *buffered_records;
            }
            Observed::Handled { .. }
            | Observed::DeadLettered { .. }
            | Observed::DeadLetterFailed { .. }
            | Observed::RevokedInFlight { .. }
            | Observed::WaitingForTransaction { .. }
            | Observed::TransactionEnded { .. } => return false,
        }
        true
    }

    /// A consumer that stops does not join any more.
    fn join(&mut self, state: State) {
        if !matches!(self.state, State::Stopping | State::Ended) {
            self.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> (Control, Arc<dyn Observer>) {
        let control = Control::default();
        let observer = control.watch(Arc::new(()));
        (control, observer)
    }

    #[test]
    fn a_consumer_is_ready_while_it_has_its_partitions() {
        let (control, observer) = control();
        let partition = TopicPartition::new("t", 0);
        assert_eq!(control.status(), Status::default());
        control.started();
        observer.observe(&Observed::PartitionAssigned { partition: &partition });
        assert!(!control.is_ready());
        observer.observe(&Observed::Joined);
        observer.observe(&Observed::Lag { partition: &partition, records: 7 });
        let status = control.status();
        assert!(status.is_ready() && status.is_connected);
        assert_eq!((status.lag(), status.partitions.len()), (7, 1));
        observer.observe(&Observed::AssignmentLost);
        observer.observe(&Observed::PartitionRevoked { partition: &partition });
        observer.observe(&Observed::Lag { partition: &partition, records: 9 });
        assert_eq!((control.status().state, control.status().partitions.len()), (State::Joining, 0));
        let (error, next) = ("no", "something else");
        observer.observe(&Observed::JoinRefused { error, next });
        let refused = State::Refused { error: error.to_owned(), next: next.to_owned() };
        assert_eq!(control.status().state, refused);
    }

    #[test]
    fn a_consumer_that_stops_is_not_ready_again() {
        let (control, observer) = control();
        control.set_state(State::Stopping);
        observer.observe(&Observed::Joined);
        assert_eq!(control.status().state, State::Stopping);
    }

    #[test]
    fn a_pause_may_precede_the_start() {
        let (control, _) = control();
        control.pause();
        control.pause();
        assert!(control.status().is_paused && control.clone().is_paused());
        control.resume();
        assert!(!control.status().is_paused);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_for_a_consumer_hears_that_it_ended() {
        let (control, observer) = control();
        let (first, second) = (control.clone(), control.clone());
        let ready = tokio::spawn(async move { first.ready().await });
        tokio::task::yield_now().await;
        observer.observe(&Observed::Joined);
        assert!(ready.await.unwrap());
        control.set_state(State::Stopping);
        let ended = tokio::spawn(async move { second.ready().await });
        tokio::task::yield_now().await;
        control.set_state(State::Ended);
        assert!(!ended.await.unwrap());
    }
}
