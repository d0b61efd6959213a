//! Why records are not acknowledged, according to librdkafka's statistics.

use std::fmt;

use rdkafka::statistics::Partition;
use rdkafka::statistics::Statistics;

/// The partition of records whose topic is unknown.
const UNASSIGNED: i32 = -1;

/// Records that are not acknowledged, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// The topic in which most of them wait.
    pub topic: String,
    /// Their number.
    pub records: i64,
    /// The reason.
    pub cause: Cause,
}

/// Why records are not acknowledged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The topic does not exist.
    NoTopic,
    /// No broker is up.
    BrokersDown,
    /// The partition has no leader.
    NoLeader {
        /// The partition in which most of them wait.
        partition: i32,
    },
    /// The leader of the partition is down.
    LeaderDown {
        /// The partition in which most of them wait.
        partition: i32,
        /// The leader, with its address.
        broker: String,
    },
    /// The leader of the partition is up and does not acknowledge.
    NotAcknowledged {
        /// The partition in which most of them wait.
        partition: i32,
        /// The leader, with its address.
        broker: String,
    },
}

impl Waiting {
    /// Finds the reason that most records have. A topic that does not exist comes first, since only an operator can
    /// create it.
    #[must_use]
    pub fn find(statistics: &Statistics) -> Option<Self> {
        let is_up = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        let of_topic = |(topic, seen): (&String, &rdkafka::statistics::Topic)| {
            let has_partitions = seen.partitions.keys().any(|partition| *partition >= 0);
            let most =
                seen.partitions.values().max_by_key(|partition| queued(partition)).filter(|most| queued(most) > 0)?;
            let cause = match most.partition {
                _ if !is_up => Cause::BrokersDown,
                UNASSIGNED if !has_partitions => Cause::NoTopic,
                UNASSIGNED => return None,
                partition => match broker(statistics, most.leader) {
                    None => Cause::NoLeader { partition },
                    Some((broker, true)) => Cause::NotAcknowledged { partition, broker },
                    Some((broker, false)) => Cause::LeaderDown { partition, broker },
                },
            };
            Some(Self { topic: topic.clone(), records: queued(most), cause })
        };
        statistics
            .topics
            .iter()
            .filter_map(of_topic)
            .max_by_key(|waiting| (waiting.cause == Cause::NoTopic, waiting.records))
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, records, cause } = self;
        match cause {
            Cause::NoTopic => write!(f, "topic {topic} does not exist ({records} records queued)"),
            Cause::BrokersDown => write!(f, "all brokers are down ({records} records queued for topic {topic})"),
            Cause::NoLeader { partition } => {
                write!(f, "partition {partition} of topic {topic} has no leader ({records} records queued)")
            }
            Cause::LeaderDown { partition, broker } => write!(
                f,
                "broker {broker}, the leader of partition {partition} of topic {topic}, is down ({records} records \
                 queued)"
            ),
            Cause::NotAcknowledged { partition, broker } => write!(
                f,
                "broker {broker}, the leader of partition {partition} of topic {topic}, does not acknowledge {records} \
                 records"
            ),
        }
    }
}

/// The records of a partition that are not acknowledged.
fn queued(partition: &Partition) -> i64 {
    partition.msgq_cnt + partition.xmit_msgq_cnt + partition.msgs_inflight
}

/// Returns a broker by its number, and whether it is up.
fn broker(statistics: &Statistics, number: i32) -> Option<(String, bool)> {
    let found = statistics.brokers.values().find(|broker| broker.nodeid == number && number >= 0)?;
    // "host:port/number"
    let address = found.name.split_once('/').map_or(found.name.as_str(), |(address, _)| address);
    Some((format!("{number} ({address})"), found.state == "UP"))
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;
    use rdkafka::statistics::Topic;

    use super::*;

    fn statistics(broker_state: &str, partitions: &[(i32, i32, i64)]) -> Statistics {
        let broker = Broker { name: "k:9092/1".into(), nodeid: 1, state: broker_state.into(), ..Broker::default() };
        let partition = |&(partition, leader, msgq_cnt)| {
            (partition, Partition { partition, leader, msgq_cnt, ..Partition::default() })
        };
        let topic = Topic { partitions: partitions.iter().map(partition).collect(), ..Topic::default() };
        Statistics {
            brokers: [("k:9092/1".to_owned(), broker)].into(),
            topics: [("t".to_owned(), topic)].into(),
            ..Statistics::default()
        }
    }

    #[test]
    fn the_reason_of_unacknowledged_records_is_given() {
        let rows = [
            (statistics("UP", &[(0, 1, 0)]), None),
            (statistics("UP", &[(-1, -1, 3)]), Some(Cause::NoTopic)),
            (statistics("DOWN", &[(-1, -1, 3)]), Some(Cause::BrokersDown)),
            (statistics("UP", &[(0, 1, 0), (1, -1, 3)]), Some(Cause::NoLeader { partition: 1 })),
            (
                statistics("UP", &[(0, 1, 3)]),
                Some(Cause::NotAcknowledged { partition: 0, broker: "1 (k:9092)".to_owned() }),
            ),
        ];
        for (statistics, expected) in rows {
            assert_eq!(Waiting::find(&statistics).map(|waiting| waiting.cause), expected);
        }
    }

    #[test]
    fn a_topic_that_does_not_exist_comes_before_a_partition_with_more_records() {
        let mut statistics = statistics("UP", &[(0, 1, 900)]);
        let partition = Partition { partition: -1, leader: -1, msgq_cnt: 1, ..Partition::default() };
        let missing = Topic { partitions: [(-1, partition)].into(), ..Topic::default() };
        statistics.topics.insert("missing".to_owned(), missing);
        let waiting = Waiting::find(&statistics).unwrap();
        assert_eq!((waiting.topic.as_str(), waiting.records, waiting.cause), ("missing", 1, Cause::NoTopic));
    }
}
