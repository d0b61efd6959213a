//! How many partitions topics have: where there are more than before, keys move.

use std::collections::HashMap;

use rdkafka::statistics::Statistics;

/// How many partitions each topic had when that was last seen.
#[derive(Debug, Default)]
pub(super) struct Partitions(HashMap<String, usize>);

/// A topic that has other partitions than before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Changed {
    pub(super) topic: String,
    pub(super) before: usize,
    pub(super) now: usize,
}

impl Partitions {
    /// Learns how many there are, and gives the topics that have other partitions than before. A topic that is unknown for a
    /// moment has not changed.
    pub(super) fn learn(&mut self, statistics: &Statistics) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (topic, seen) in &statistics.topics {
            let now = seen.partitions.keys().filter(|partition| **partition >= 0).count();
            if now == 0 {
                continue;
            }
            if let Some(before) = self.0.insert(topic.clone(), now).filter(|before| *before != now) {
                changed.push(Changed { topic: topic.clone(), before, now });
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Partition;
    use rdkafka::statistics::Topic;

    use super::*;

    #[test]
    fn f10_partitions_that_were_added_are_seen_once_and_a_topic_that_is_unknown_for_a_moment_has_not_changed() {
        let mut partitions = Partitions::default();
        let mut learn = |count: i32| {
            let known = (-1..count).map(|partition| (partition, Partition { partition, ..Partition::default() }));
            let topic = Topic { partitions: known.collect(), ..Topic::default() };
            partitions.learn(&Statistics { topics: [("t".to_owned(), topic)].into(), ..Statistics::default() })
        };
        assert_eq!([learn(0), learn(2), learn(2), learn(0)], [const { Vec::new() }; 4]);
        assert_eq!(learn(5), [Changed { topic: "t".to_owned(), before: 2, now: 5 }]);
        assert_eq!(learn(5), []);
    }
}
