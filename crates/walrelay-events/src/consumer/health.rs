//! Logs and reports what would otherwise go unnoticed, once each: all brokers down, a topic that does not exist, a poll
//! interval that was exceeded, a handler that does not return. Keeps the end offset of each partition for its lag.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::topic_partition::TopicPartition;

/// A handler that runs longer is logged.
const SLOW_HANDLER: Duration = Duration::from_secs(60);

/// What was reported so far.
pub(super) struct Health {
    observer: Arc<dyn Observer>,
    down_since: Option<Instant>,
    /// Codes logged since the last assignment.
    logged: Vec<RDKafkaErrorCode>,
    /// When the last slow handler that was logged started.
    slow_since: Option<Instant>,
    ends: HashMap<TopicPartition, i64>,
}

impl Health {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, down_since: None, logged: Vec::new(), slow_since: None, ends: HashMap::new() }
    }

    pub(super) fn poll_failed(&mut self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::AllBrokersDown && self.down_since.is_none() {
            self.down_since = Some(Instant::now());
            tracing::warn!("all brokers are down");
            self.observer.observe(&Observed::AllBrokersDown);
        }
        let is_lasting = matches!(
            code,
            RDKafkaErrorCode::PollExceeded
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        );
        if is_lasting && !self.logged.contains(&code) {
            self.logged.push(code);
            tracing::warn!(error = %error, "consuming failed");
        }
    }

    pub(super) fn broker_up(&mut self) {
        if let Some(since) = self.down_since.take() {
            let after = since.elapsed();
            tracing::warn!(?after, "brokers are up");
            self.observer.observe(&Observed::BrokersUp { after });
        }
    }

    pub(super) fn client_replaced(&self) {
        self.observer.observe(&Observed::ClientReplaced);
    }

    pub(super) fn assigned(&mut self) {
        self.logged.clear();
    }

    /// Reports the lag of an assigned partition.
    pub(super) fn lag(&mut self, partition: &TopicPartition, end: i64, position: i64) {
        // Statistics hold the end as of the last fetch, and a paused partition is not fetched.
        let known = self.ends.entry(partition.clone()).or_insert(end);
        *known = end.max(*known);
        let records = u64::try_from(*known - position).unwrap_or_default();
        self.observer.observe(&Observed::Lag { partition, records });
    }

    pub(super) fn revoked(&mut self, partition: &TopicPartition) {
        self.ends.remove(partition);
        self.observer.observe(&Observed::PartitionRevoked { partition });
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
        let mut health = Health::new(Arc::new(seen.clone()));
        health.broker_up();
        for _ in 0..3 {
            health.poll_failed(&KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown));
        }
        health.broker_up();
        health.broker_up();
        assert_eq!(*seen.0.lock().unwrap(), ["AllBrokersDown", "BrokersUp"]);
    }

    #[test]
    fn the_end_of_a_paused_partition_is_the_newest_that_was_seen() {
        let seen = Seen::default();
        let mut health = Health::new(Arc::new(seen.clone()));
        let partition = TopicPartition::new("t", 0);
        health.lag(&partition, 100, 10);
        health.lag(&partition, 90, 20);
        health.revoked(&partition);
        health.lag(&partition, 90, 20);
        let records: Vec<bool> = seen.0.lock().unwrap().iter().map(|line| line.contains("records: 80")).collect();
        assert_eq!(records, [false, true, false, false], "{:?}", seen.0.lock().unwrap());
    }
}
