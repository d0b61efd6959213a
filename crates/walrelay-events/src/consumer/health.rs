//! Logs and reports what would otherwise go unnoticed, once each: all brokers down, a group that refuses the member, a
//! topic that does not exist, a poll interval that was exceeded, a handler that does not return, a transaction that
//! stays open. Keeps the end offset of each partition for its lag.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode;

use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::record::Record;
use crate::consumer::refusal;
use crate::consumer::refusal::Meaning;
use crate::consumer::topic_partition::TopicPartition;

/// A handler that runs longer is logged.
const SLOW_HANDLER: Duration = Duration::from_secs(60);
/// An error that lasts is logged again after this time. librdkafka reports some of them every two seconds.
const REPEAT: Duration = Duration::from_secs(60);
/// At most this many reasons of skipped records are logged.
const MAX_SKIPPED: usize = 100;

/// What was reported so far.
pub(super) struct Health {
    observer: Arc<dyn Observer>,
    group: String,
    down_since: Option<Instant>,
    /// The last error of a connection: the cause when all brokers are down.
    last_connection_error: Option<String>,
    /// Codes logged since the last assignment, and when.
    logged: Vec<(RDKafkaErrorCode, Instant)>,
    /// When the last slow handler that was logged started.
    slow_since: Option<Instant>,
    ends: HashMap<TopicPartition, i64>,
    /// The reasons of skipped records that were logged.
    skipped: HashSet<String>,
    /// Partitions whose records are done up to an open transaction.
    transactions: HashMap<TopicPartition, OpenTransaction>,
}

/// An open transaction, by the offset that it keeps stable.
struct OpenTransaction {
    last_stable: i64,
    is_reported: bool,
}

impl Health {
    pub(super) fn new(observer: Arc<dyn Observer>, group: String) -> Self {
        let (last_connection_error, logged, skipped) = (None, Vec::new(), HashSet::new());
        let (ends, transactions) = (HashMap::new(), HashMap::new());
        let (down_since, slow_since) = (None, None);
        Self { observer, group, down_since, last_connection_error, logged, slow_since, ends, skipped, transactions }
    }

    /// Takes an error that librdkafka reports about the client.
    pub(super) fn client_error(&mut self, code: RDKafkaErrorCode, reason: &str, now: Instant) {
        match refusal::meaning(code, &self.group) {
            Meaning::AllBrokersDown if self.down_since.is_none() => {
                self.down_since = Some(now);
                let error = self.last_connection_error.as_deref().unwrap_or(reason);
                tracing::warn!(group = self.group, error, "all brokers are down");
                self.observer.observe(&Observed::AllBrokersDown);
            }
            Meaning::Connection => {
                tracing::debug!(group = self.group, error = reason, "connection to a broker failed");
                self.last_connection_error = Some(reason.to_owned());
            }
            Meaning::Refused { next } => self.join_refused(code, reason, &next, now),
            Meaning::Lasting { next } if self.is_due(code, now) => {
                tracing::warn!(group = self.group, error = reason, next, "consuming failed");
            }
            Meaning::AllBrokersDown | Meaning::Lasting { .. } | Meaning::Handled => {
                tracing::debug!(group = self.group, ?code, error = reason, "client error");
            }
        }
    }

    /// Takes the reason why the group refuses the member. It is reported when it is logged.
    pub(super) fn join_refused(&mut self, code: RDKafkaErrorCode, reason: &str, next: &str, now: Instant) {
        if self.is_due(code, now) {
            tracing::warn!(group = self.group, error = reason, next, "group refuses this member");
            self.observer.observe(&Observed::JoinRefused { error: reason, next });
        } else {
            tracing::debug!(group = self.group, error = reason, "group still refuses this member");
        }
    }

    /// Returns whether all brokers are down.
    pub(super) const fn is_down(&self) -> bool {
        self.down_since.is_some()
    }

    /// Returns whether an error is to be logged, and counts it as logged.
    fn is_due(&mut self, code: RDKafkaErrorCode, now: Instant) -> bool {
        let is_known = |(known, at): &(_, Instant)| *known == code && now.saturating_duration_since(*at) < REPEAT;
        let is_due = !self.logged.iter().any(is_known);
        if is_due {
            self.logged.retain(|(known, _)| *known != code);
            self.logged.push((code, now));
        }
        is_due
    }

    pub(super) fn broker_up(&mut self) {
        if let Some(since) = self.down_since.take() {
            let after = since.elapsed();
            tracing::warn!(group = self.group, ?after, "brokers are up");
            self.observer.observe(&Observed::BrokersUp { after });
        }
    }

    pub(super) fn client_replaced(&self) {
        self.observer.observe(&Observed::ClientReplaced);
    }

    /// The member has joined its group and has these partitions, besides those that it had.
    pub(super) fn joined(&mut self, partitions: &[TopicPartition]) {
        self.logged.clear();
        for partition in partitions {
            self.observer.observe(&Observed::PartitionAssigned { partition });
        }
        self.observer.observe(&Observed::Joined);
    }

    pub(super) fn assignment_lost(&self) {
        self.observer.observe(&Observed::AssignmentLost);
    }

    /// Reports the lag of an assigned partition, and whether it is behind an open transaction, if that is known.
    pub(super) fn progress(&mut self, partition: &TopicPartition, position: i64, end: i64, last_stable: Option<i64>) {
        self.lag(partition, end, position);
        if let Some(last_stable) = last_stable {
            self.transaction(partition, position, last_stable, end);
        }
    }

    fn lag(&mut self, partition: &TopicPartition, end: i64, position: i64) {
        // Statistics hold the end as of the last fetch, and a paused partition is not fetched.
        let known = self.ends.entry(partition.clone()).or_insert(end);
        *known = end.max(*known);
        let records = u64::try_from(*known - position).unwrap_or_default();
        self.observer.observe(&Observed::Lag { partition, records });
    }

    /// Forgets the ends of all partitions: that of a truncated log is lower.
    pub(super) fn forget_ends(&mut self) {
        self.ends.clear();
    }

    /// Notices a transaction that is open in two consecutive statistics, and its end.
    fn transaction(&mut self, partition: &TopicPartition, position: i64, last_stable: i64, end: i64) {
        let is_waiting = (0..=position).contains(&last_stable) && last_stable < end;
        let mut open = self.transactions.remove(partition);
        if let Some(mut open) = open.take_if(|open| is_waiting && open.last_stable == last_stable) {
            if !open.is_reported {
                open.is_reported = true;
                tracing::warn!(%partition, last_stable, end, "waiting for an open transaction");
                self.observer.observe(&Observed::WaitingForTransaction { partition, last_stable, end });
            }
            self.transactions.insert(partition.clone(), open);
            return;
        }
        if open.is_some_and(|open| open.is_reported) {
            tracing::info!(%partition, "open transaction ended");
            self.observer.observe(&Observed::TransactionEnded { partition });
        }
        if is_waiting {
            self.transactions.insert(partition.clone(), OpenTransaction { last_stable, is_reported: false });
        }
    }

    pub(super) fn revoked(&mut self, partition: &TopicPartition) {
        self.ends.remove(partition);
        self.transactions.remove(partition);
        self.observer.observe(&Observed::PartitionRevoked { partition });
    }

    /// Logs each reason once.
    pub(super) fn skipped(&mut self, record: &Record, reason: &str) {
        if !self.skipped.contains(reason) && self.skipped.len() < MAX_SKIPPED {
            self.skipped.insert(reason.to_owned());
            tracing::warn!(%record, reason, "skipping records");
        }
    }

    /// Takes the oldest running handler: its partition, and when it started.
    pub(super) fn oldest_handler(&mut self, oldest: Option<(&TopicPartition, Instant)>, now: Instant) {
        let slow = oldest.filter(|(_, started)| now.duration_since(*started) > SLOW_HANDLER);
        let Some((partition, started)) = slow else { return };
        if self.slow_since != Some(started) {
            self.slow_since = Some(started);
            tracing::warn!(%partition, running_longer_than = ?SLOW_HANDLER, "handler is slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Observer for Seen {
        fn observe(&self, observed: &Observed<'_>) {
            let is_up = matches!(observed, Observed::BrokersUp { .. });
            self.0.lock().unwrap().push(if is_up { "BrokersUp".to_owned() } else { format!("{observed:?}") });
        }
    }

    #[test]
    fn an_outage_is_reported_once_and_so_is_its_end() {
        let seen = Seen::default();
        let mut health = Health::new(Arc::new(seen.clone()), "g".to_owned());
        health.broker_up();
        for _ in 0..3 {
            health.client_error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down", Instant::now());
        }
        health.broker_up();
        health.broker_up();
        assert_eq!(*seen.0.lock().unwrap(), ["AllBrokersDown", "BrokersUp"]);
    }

    #[test]
    fn a_refused_member_is_reported_once_a_minute_until_it_can_join() {
        let seen = Seen::default();
        let mut health = Health::new(Arc::new(seen.clone()), "g".to_owned());
        let (code, now) = (RDKafkaErrorCode::InconsistentGroupProtocol, Instant::now());
        for seconds in 0..70 {
            health.client_error(code, "JoinGroup failed", now + Duration::from_secs(seconds));
        }
        assert_eq!(seen.0.lock().unwrap().len(), 2);
        let second = RDKafkaErrorCode::GroupMaxSizeReached;
        health.client_error(second, "JoinGroup failed", now + Duration::from_secs(71));
        assert_eq!(seen.0.lock().unwrap().len(), 3, "another reason");
        health.joined(&[]);
        health.client_error(code, "JoinGroup failed", now + Duration::from_secs(72));
        let seen = seen.0.lock().unwrap();
        let refusals = seen.iter().filter(|line| line.contains("JoinRefused") && line.contains("--group g")).count();
        assert_eq!((seen.len(), refusals), (5, 4), "{seen:?}");
    }

    #[test]
    fn a_transaction_that_stays_open_is_reported_once_and_so_is_its_end() {
        let seen = Seen::default();
        let mut health = Health::new(Arc::new(seen.clone()), "g".to_owned());
        let partition = TopicPartition::new("t", 0);
        let mut note = |position, last_stable, end| {
            health.transaction(&partition, position, last_stable, end);
            std::mem::take(&mut *seen.0.lock().unwrap())
        };
        assert!(note(5, 5, 9).is_empty(), "it may be short");
        assert!(note(6, 6, 9).is_empty(), "it is another one");
        assert!(note(6, 6, 9)[0].starts_with("WaitingForTransaction"));
        assert!(note(6, 6, 12).is_empty());
        assert!(note(6, 12, 12)[0].starts_with("TransactionEnded"));
        for _ in 0..2 {
            assert!(note(6, 12, 12).is_empty(), "its records are not handled yet");
            assert!(note(6, 7, 12).is_empty());
            assert!(note(6, -1, 12).is_empty(), "it is not known");
        }
    }

    #[test]
    fn the_end_of_a_paused_partition_is_the_newest_that_was_seen() {
        let seen = Seen::default();
        let mut health = Health::new(Arc::new(seen.clone()), "g".to_owned());
        let partition = TopicPartition::new("t", 0);
        health.lag(&partition, 100, 10);
        health.lag(&partition, 90, 20);
        health.revoked(&partition);
        health.lag(&partition, 90, 20);
        health.forget_ends();
        health.lag(&partition, 40, 20);
        let records: Vec<bool> = seen.0.lock().unwrap().iter().map(|line| line.contains("records: 80")).collect();
        assert_eq!(records, [false, true, false, false, false], "{:?}", seen.0.lock().unwrap());
    }
}
