//! What lanes report about themselves.

use std::time::Instant;

use crate::consumer::topic_partition::TopicPartition;

use super::Lanes;
use super::buffer::PartitionBuffer;
use super::limits::Flow;

impl<R> Lanes<R> {
    /// Returns the paused partitions.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &TopicPartition> {
        self.slots.iter().flatten().filter(|buffer| buffer.flow == Flow::Paused).map(|buffer| &buffer.partition)
    }

    /// Returns whether further records would only wait: `max_concurrency` handlers run, and as many lanes are ready.
    pub(crate) fn is_saturated(&self) -> bool {
        let ready = self.turns.iter().filter_map(|slot| self.slots.get(*slot)?.as_ref()).map(PartitionBuffer::ready);
        self.handlers() >= self.limits.max_concurrency && ready.sum::<usize>() >= self.limits.max_concurrency
    }

    /// Returns the assigned partitions.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// Returns a small number of an assigned partition, and the number of its assignment.
    pub(crate) fn assignment(&self, partition: &TopicPartition) -> Option<(usize, u64)> {
        let slot = self.slot(partition)?;
        Some((slot, self.slots.get(slot)?.as_ref()?.epoch))
    }

    /// Returns the number of running handlers of an assigned partition.
    pub(crate) fn running_of(&self, partition: &TopicPartition) -> usize {
        self.buffer(partition).map_or(0, PartitionBuffer::running)
    }

    /// Returns whether a closing partition has handlers that run or will be started.
    pub(crate) fn is_finishing(&self, partition: &TopicPartition) -> bool {
        self.buffer(partition).is_some_and(|buffer| buffer.running() > 0 || buffer.can_start())
    }

    /// Returns the partition with the oldest run, and when that was started.
    pub(crate) fn oldest_running(&self) -> Option<(&TopicPartition, Instant)> {
        let buffers = self.slots.iter().flatten();
        let assigned = buffers.filter_map(|buffer| Some((&buffer.partition, buffer.oldest_start()?)));
        assigned.chain(self.revoked.oldest()).min_by_key(|(_, started)| *started)
    }

    /// Returns the number of buffered records, of all partitions.
    pub(crate) fn records(&self) -> usize {
        self.slots.iter().flatten().map(|buffer| buffer.prefix.held()).sum()
    }

    /// Returns the number of buffered bytes of all partitions, those in handlers of revoked partitions included.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}
