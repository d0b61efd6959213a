//! Which partitions are polled.
//!
//! A partition that is full is held first: nothing is polled at all, for a moment. Then it is paused. After it is
//! resumed, librdkafka needs up to a second until it fetches: its thread for the broker does not notice a resume, or
//! waits for the answer to a fetch of other partitions. Most handlers have made room sooner than that.

use std::time::Duration;
use std::time::Instant;

#[cfg(test)]
use crate::consumer::topic_partition::TopicPartition;

use super::Lanes;
use super::limits::Balance;
use super::limits::Flow;
use super::limits::Load;

/// How long a full partition holds up partitions that are not full.
const HOLD: Duration = Duration::from_millis(50);
/// How long nothing is polled if every partition is full. Not longer: a rebalance waits meanwhile.
const HOLD_ALL: Duration = Duration::from_millis(500);
/// How long a partition that was held in vain is paused at once when it is full again.
const VAIN: Duration = Duration::from_secs(10);

impl<R> Lanes<R> {
    /// Returns the partitions to pause and to resume, if any. They count as paused or resumed from then on.
    pub(crate) fn balance(&mut self, now: Instant) -> Option<Balance> {
        if !self.may_be_full && self.out_of_flow == 0 {
            return None;
        }
        self.may_be_full = false;
        let (limits, load) = (self.limits, self.load());
        let mut balance = Balance::default();
        for buffer in self.slots.iter_mut().flatten() {
            let (bytes, records) = (buffer.bytes, buffer.prefix.held());
            match buffer.flow {
                Flow::Polled if limits.is_full(load, bytes, records) => buffer.flow = Flow::Held { since: now },
                Flow::Held { .. } if limits.has_room(load, bytes, records) => buffer.flow = Flow::Polled,
                Flow::Paused if limits.has_room(load, bytes, records) => {
                    buffer.flow = Flow::Polled;
                    balance.resume.push(buffer.partition.clone());
                }
                Flow::Polled | Flow::Held { .. } | Flow::Paused => {}
            }
        }
        let is_any_polled = self.flows().any(|flow| flow == Flow::Polled);
        for buffer in self.slots.iter_mut().flatten() {
            let is_vain = buffer.held_in_vain.is_some_and(|at| now.duration_since(at) < VAIN);
            let hold = match (is_any_polled, is_vain) {
                (false, _) => HOLD_ALL,
                (true, false) => HOLD,
                (true, true) => Duration::ZERO,
            };
            if matches!(buffer.flow, Flow::Held { since } if now.duration_since(since) >= hold) {
                buffer.flow = Flow::Paused;
                buffer.held_in_vain = buffer.held_in_vain.filter(|_| is_vain).or(Some(now));
                balance.pause.push(buffer.partition.clone());
            }
        }
        self.out_of_flow = self.flows().filter(|flow| *flow != Flow::Polled).count();
        (balance != Balance::default()).then_some(balance)
    }

    /// Returns whether nothing is polled until a partition has room or is paused.
    pub(crate) fn holds_polls(&self) -> bool {
        self.out_of_flow > 0 && self.flows().any(|flow| matches!(flow, Flow::Held { .. }))
    }

    /// Returns whether a partition may have become full since the last call of `balance`.
    pub(crate) const fn may_be_full(&self) -> bool {
        self.may_be_full
    }

    pub(super) fn load(&self) -> Load {
        Load { partitions: self.assigned.len(), bytes: self.bytes }
    }

    fn flows(&self) -> impl Iterator<Item = Flow> {
        self.slots.iter().flatten().map(|buffer| buffer.flow)
    }

    #[cfg(test)]
    pub(super) fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.buffer(partition).is_some_and(|buffer| buffer.flow == Flow::Paused)
    }
}
