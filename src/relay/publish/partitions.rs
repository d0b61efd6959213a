//! Watches the number of partitions of each topic: when it changes, keys move.

use std::collections::HashMap;

use rdkafka::statistics::Statistics;

/// The last known number of partitions of each topic.
#[derive(Debug, Default)]
pub(super) struct Partitions(HashMap<String, usize>);

/// A topic whose number of partitions changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Changed {
    pub(super) topic: String,
    pub(super) before: usize,
    pub(super) now: usize,
}

impl Partitions {
    /// Updates the numbers and gives the topics that changed. A topic that is briefly unknown has not changed.
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
    fn f10_added_partitions_are_reported_once_and_a_briefly_unknown_topic_is_not() {
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
