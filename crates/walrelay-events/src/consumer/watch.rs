//! Notices what would otherwise pass in silence, and tells it once: Kafka is away, a topic is gone, the group has given us
//! up, a handler does not come back. Keeps where partitions end, for their lag.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

use crate::consumer::lanes::Partition;
use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;

/// A handler that takes longer is worth a word.
const LONG: Duration = Duration::from_secs(60);

/// What has been told.
pub(super) struct Watch {
    observer: Arc<dyn Observer>,
    /// Since when no broker answers.
    away: Option<Instant>,
    /// What polls have said since partitions were last assigned.
    said: Vec<RDKafkaErrorCode>,
    /// When the handler began that was last told of.
    long: Option<Instant>,
    ends: HashMap<Partition, i64>,
}

impl Watch {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, away: None, said: Vec::new(), long: None, ends: HashMap::new() }
    }

    /// Takes note of an error that a poll gave.
    pub(super) fn failed(&mut self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::AllBrokersDown && self.away.is_none() {
            self.away = Some(Instant::now());
            tracing::warn!("no broker of Kafka can be reached: nothing is taken and nothing committed until one can");
            self.observer.observe(&Observed::Away);
        }
        let is_worth_a_word = matches!(
            code,
            RDKafkaErrorCode::PollExceeded
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        );
        if is_worth_a_word && !self.said.contains(&code) {
            self.said.push(code);
            tracing::warn!(error = %error, "nothing is taken from Kafka, or not from all partitions");
        }
    }

    /// Takes note that a broker can be reached.
    pub(super) fn reached(&mut self) {
        if let Some(since) = self.away.take() {
            let took = since.elapsed();
            tracing::warn!(?took, "Kafka is back");
            self.observer.observe(&Observed::Back { after: took });
        }
    }

    /// Takes note that another client takes the place of one that reaches nobody.
    pub(super) fn renewed(&self) {
        self.observer.observe(&Observed::Renewed);
    }

    /// Takes note that partitions have come.
    pub(super) fn assigned(&mut self) {
        self.said.clear();
    }

    /// Takes note of where a partition of ours ends, and up to where it is done.
    pub(super) fn end(&mut self, partition: &Partition, end: i64, done: i64) {
        // Statistics know the end as of the last fetch: a partition that is paused is not fetched.
        let known = self.ends.entry(partition.clone()).or_insert(end);
        *known = end.max(*known);
        let records = u64::try_from(*known - done).unwrap_or_default();
        self.observer.observe(&Observed::Lag { partition, records });
    }

    /// Takes note that a partition is not ours any more.
    pub(super) fn given_up(&mut self, partition: &Partition) {
        self.ends.remove(partition);
        self.observer.observe(&Observed::GivenUp { partition });
    }

    /// Takes note of the handler that has been running for longest: of which partition, since when.
    pub(super) fn running(&mut self, longest: Option<(&Partition, Instant)>, now: Instant) {
        let Some((partition, began)) = longest.filter(|(_, began)| now.duration_since(*began) > LONG) else { return };
        if self.long != Some(began) {
            self.long = Some(began);
            let (topic, number) = (&partition.topic, partition.number);
            tracing::warn!(%topic, partition = number, "a handler has been running for more than a minute: its key waits");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Observer for Told {
        fn observe(&self, observed: &Observed<'_>) {
            let is_back = matches!(observed, Observed::Back { .. });
            self.0.lock().unwrap().push(if is_back { "Back".to_owned() } else { format!("{observed:?}") });
        }
    }

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let told = Told::default();
        let mut watch = Watch::new(Arc::new(told.clone()));
        watch.reached();
        for _ in 0..3 {
            watch.failed(&KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown));
        }
        watch.reached();
        watch.reached();
        assert_eq!(*told.0.lock().unwrap(), ["Away", "Back"]);
    }

    #[test]
    fn the_end_of_a_partition_that_is_paused_is_the_newest_that_was_seen() {
        let told = Told::default();
        let mut watch = Watch::new(Arc::new(told.clone()));
        let partition = Partition { topic: "t".into(), number: 0 };
        watch.end(&partition, 100, 10);
        watch.end(&partition, 90, 20);
        watch.given_up(&partition);
        watch.end(&partition, 90, 20);
        let records: Vec<bool> = told.0.lock().unwrap().iter().map(|line| line.contains("records: 80")).collect();
        assert_eq!(records, [false, true, false, false], "{:?}", told.0.lock().unwrap());
    }
}
