//! The callbacks of librdkafka's consumer: rebalances, statistics, errors and logs.
//!
//! A rebalance is called from within a poll, on the consumer's own thread. When partitions are assigned, each committed
//! offset is compared with the offsets that the topic holds: later a gap could not be distinguished from a first start.
//! When partitions are revoked, their handlers finish first, then the prefix is committed, then the partitions are
//! unassigned.
//!
//! A commit in flight during a rebalance is refused without an error. Therefore every position is committed again after
//! each rebalance, and whenever the statistics show another committed offset.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use tokio_util::sync::CancellationToken;

use crate::consumer::brokers;
use crate::consumer::cancellation::CancelReason;
use crate::consumer::commit;
use crate::consumer::config::Config;
use crate::consumer::dispatcher::Dispatcher;
use crate::consumer::error::Error;
use crate::consumer::positions;
use crate::consumer::properties::COMMIT_TIMEOUT;
use crate::consumer::refusal;
use crate::consumer::retry;
use crate::consumer::topic_partition::TopicPartition;
use crate::consumer::wakeup::Wakeup;
use crate::kafka::Brokers;
use crate::kafka::Tokens;

/// What the callbacks and the consumer's loop share. Both are on one thread: the lock is never contended.
pub(super) struct GroupContext {
    config: Config,
    /// Outlives the client.
    dispatcher: Arc<Mutex<Dispatcher>>,
    stop: CancellationToken,
    brokers: Brokers,
    wakeup: Wakeup,
    /// The client ends because the group refuses the member.
    is_refused: AtomicBool,
    /// The client is closing. Its partitions were released before.
    is_closing: AtomicBool,
    tokens: Option<Tokens>,
}

impl GroupContext {
    pub(super) fn new(
        config: Config,
        client: &ClientConfig,
        dispatcher: Arc<Mutex<Dispatcher>>,
        stop: CancellationToken,
        tokens: Option<Tokens>,
    ) -> Self {
        let (is_refused, is_closing) = (AtomicBool::new(false), AtomicBool::new(false));
        let (brokers, wakeup) = (Brokers::of(client), Wakeup::new());
        Self { config, dispatcher, stop, brokers, wakeup, is_refused, is_closing, tokens }
    }

    /// Returns whether the client may be unable to log in because its token came late. It tries again.
    pub(super) fn lacks_token(&self) -> bool {
        self.tokens.as_ref().is_some_and(Tokens::are_late)
    }

    /// Returns the token that the client would be given in a poll, if there is one.
    pub(super) fn token(&self) -> Option<OAuthToken> {
        self.tokens.as_ref()?.for_client_now().ok()
    }

    /// Returns why the client cannot reach its brokers again, if it cannot.
    pub(super) fn lost(&self) -> Option<&'static str> {
        self.brokers.lost()
    }

    /// Returns whether the group refuses the member. The client cannot recover.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Callbacks only let the client end from now on.
    pub(super) fn set_closing(&self) {
        self.is_closing.store(true, Relaxed);
    }

    pub(super) fn dispatcher(&self) -> MutexGuard<'_, Dispatcher> {
        self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the client if requests timed out, because it may have lost every broker. Any other error stops the
    /// consumer.
    pub(super) fn positions_failed(&self, dispatcher: &mut Dispatcher, error: Error) {
        if let Error::ClientFailed(error) = &error {
            tracing::warn!(error = %error, "offset requests timed out");
            self.brokers.set_lost();
        } else {
            dispatcher.fail(error);
        }
    }

    /// Takes the error that ended the client. A member that the group may accept later gets a new client.
    pub(super) fn client_ended(&self, fatal: Option<(RDKafkaErrorCode, String)>) {
        let (code, reason) = fatal.unwrap_or((RDKafkaErrorCode::Fatal, "unknown".to_owned()));
        let mut dispatcher = self.dispatcher();
        let error = KafkaError::Global(code);
        let group = &self.config.group;
        match (brokers::fatal(&error), refusal::refused(code, group)) {
            (Some(denied), _) => dispatcher.fail(denied),
            (None, Some((next, true))) => {
                dispatcher.health.join_refused(code, &reason, &next, Instant::now());
                self.is_refused.store(true, Relaxed);
            }
            (None, Some((next, false))) => {
                dispatcher.fail(Error::JoinRefused { group: group.clone(), reason, next });
            }
            (None, None) => {
                tracing::warn!(group, error = reason, "Kafka client failed");
                dispatcher.fail(Error::client_failed(error));
            }
        }
    }

    /// Returns whether the client ends. Its partitions were released before.
    fn is_ending(&self) -> bool {
        self.lost().is_some() || self.is_refused() || self.is_closing.load(Relaxed)
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, assigned: &TopicPartitionList) {
        let mut dispatcher = self.dispatcher();
        let starts = positions::starts(consumer, &self.config, assigned, &mut dispatcher.beginnings, &self.stop);
        let starts = starts.unwrap_or_else(|error| {
            self.positions_failed(&mut dispatcher, error);
            None
        });
        let partitions = brokers::partitions(assigned);
        tracing::info!(partitions = %names(&partitions), "partitions assigned");
        partitions.iter().for_each(|partition| dispatcher.lanes.assign(partition.clone()));
        dispatcher.lanes.forget_commits();
        dispatcher.health.joined(&partitions);
        let starts = starts.unwrap_or_default();
        starts.iter().for_each(|(partition, start)| dispatcher.lanes.begin(partition, *start));
        // Without starts the consumer stops or is replaced, and nothing is polled any more.
        let assignment = if starts.is_empty() { Ok(assigned.clone()) } else { brokers::list_at(&starts) };
        let assigned = assignment.and_then(|assignment| consumer.incremental_assign(&assignment));
        let validated = assigned.and_then(|()| brokers::validate(consumer, &starts));
        if let Err(error) = validated.and_then(|()| positions::note_assigned(consumer, &mut dispatcher.lanes, &starts))
        {
            dispatcher.fail(Error::client_failed(error));
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, revoked: &TopicPartitionList) {
        if self.is_ending() {
            if let Err(error) = consumer.incremental_unassign(revoked) {
                tracing::debug!(error = %error, "unassign failed");
            }
            return;
        }
        let partitions = brokers::partitions(revoked);
        let mut dispatcher = self.dispatcher();
        if consumer.assignment_lost() {
            // Other members own the partitions already: neither waiting nor committing helps.
            tracing::warn!(partitions = %names(&partitions), "assignment lost");
            dispatcher.health.assignment_lost();
        } else {
            let timeout = self.config.revoke_timeout;
            finish(consumer, &mut dispatcher, &partitions, CancelReason::Revoked, timeout);
            tracing::info!(partitions = %names(&partitions), "partitions revoked");
        }
        dispatcher.release(&partitions);
        // A pause outlives the assignment: a partition that is assigned again would never be fetched.
        if let Err(error) = consumer.resume(revoked) {
            dispatcher.fail(Error::client_failed(error));
        }
        if let Err(error) = consumer.incremental_unassign(revoked) {
            dispatcher.fail(Error::client_failed(error));
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        // A poll that serves a callback returns nothing, although records may follow in the queue.
        self.wakeup.wake();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(consumer, partitions);
        } else {
            self.revoked(consumer, partitions);
        }
    }
}

impl ClientContext for GroupContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.wakeup.wake();
        self.tokens.as_ref().ok_or("set Config::token_provider")?.for_client_now()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.wakeup.wake();
        // While brokers are down, librdkafka logs several times a second. What matters of it comes as an error, too.
        tracing::debug!(?level, facility, text, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.wakeup.wake();
        if let Some(code) = error.rdkafka_error_code().filter(|_| !self.is_ending()) {
            self.dispatcher().health.client_error(code, reason, Instant::now());
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.wakeup.wake();
        self.brokers.note(&statistics);
        if self.is_ending() {
            return;
        }
        let mut dispatcher = self.dispatcher();
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            dispatcher.health.broker_up();
        }
        for topic in statistics.topics.values() {
            for partition in topic.partitions.values().filter(|partition| partition.hi_offset >= 0) {
                let (committed, end, stable) = (partition.committed_offset, partition.hi_offset, partition.ls_offset);
                let partition = TopicPartition::new(topic.topic.as_str(), partition.partition);
                dispatcher.lanes.committed(&partition, committed);
                dispatcher.report_lag(&partition, end, Some(stable));
            }
        }
    }
}

/// Waits at most `timeout` for the running handlers of partitions, then commits their positions.
fn finish(
    consumer: &BaseConsumer<GroupContext>,
    dispatcher: &mut Dispatcher,
    partitions: &[TopicPartition],
    reason: CancelReason,
    timeout: Duration,
) {
    let deadline = retry::after(Instant::now(), timeout);
    dispatcher.finish(partitions, reason, deadline);
    positions::note_polled(consumer, &mut dispatcher.lanes);
    let position = |partition: &TopicPartition| Some((partition.clone(), dispatcher.lanes.position(partition)?));
    let positions: Vec<_> = partitions.iter().filter_map(position).collect();
    let deadline = deadline.max(Instant::now() + COMMIT_TIMEOUT);
    if let Err(error) = commit::confirm(consumer, &positions, &dispatcher.beginnings, deadline, || ()) {
        tracing::warn!(error = %error, "last commit failed");
    }
}

fn names(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
