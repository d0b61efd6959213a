//! Runs of revoked partitions whose handlers have not returned.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Instant;

use crate::consumer::topic_partition::TopicPartition;

use super::by_hash::ByHash;
use super::job::Ticket;
use super::starts::Starts;

/// Runs of revoked partitions, by the epoch of their assignment.
#[derive(Debug, Default)]
pub(super) struct Revoked(HashMap<u64, Assignment>);

/// An assignment that has ended.
#[derive(Debug)]
struct Assignment {
    partition: TopicPartition,
    starts: Starts,
    /// The hashes of the keys of the running lanes.
    keys: HashSet<u64>,
}

impl Revoked {
    /// Adds the runs of a partition that is revoked.
    pub(super) fn add(
        &mut self,
        epoch: u64,
        partition: TopicPartition,
        starts: Starts,
        keys: impl Iterator<Item = u64>,
    ) {
        if starts.count() > 0 {
            self.0.insert(epoch, Assignment { partition, starts, keys: keys.collect() });
        }
    }

    /// Ends a run. Returns its partition.
    pub(super) fn end(&mut self, ticket: &Ticket) -> Option<TopicPartition> {
        let assignment = self.0.get_mut(&ticket.epoch)?;
        if !assignment.keys.remove(&ticket.key) {
            return None;
        }
        assignment.starts.remove(ticket.started);
        let partition = assignment.partition.clone();
        if assignment.keys.is_empty() {
            self.0.remove(&ticket.epoch);
        }
        Some(partition)
    }

    /// Returns how many handlers of a partition still run, by the hash of the key.
    pub(super) fn running(&self, partition: &TopicPartition) -> ByHash<usize> {
        let mut running = ByHash::default();
        for assignment in self.0.values().filter(|it| it.partition == *partition) {
            assignment.keys.iter().for_each(|key| *running.entry(*key).or_default() += 1);
        }
        running
    }

    /// Returns the partition with the oldest run, and when that was started.
    pub(super) fn oldest(&self) -> Option<(&TopicPartition, Instant)> {
        let assignments = self.0.values().filter_map(|it| Some((&it.partition, it.starts.oldest()?)));
        assignments.min_by_key(|(_, started)| *started)
    }
}
