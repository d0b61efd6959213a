//! Records that wait for their environment: every failure since their last attempt that counts was transient.
//!
//! Such a record is retried without end unless an option limits it, so it must not wait in silence. This module says
//! how long the oldest one has waited, and when to log one.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use crate::consumer::topic_partition::TopicPartition;

/// A record that has waited for a shorter time is not logged: a serialization failure usually needs one retry.
const MIN_LOGGED: Duration = Duration::from_secs(5);
/// The interval between two logged records of a partition.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The records that wait, by partition.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<TopicPartition, WaitingRecords>);

#[derive(Debug, Default)]
struct WaitingRecords {
    /// Each with the time of its first transient failure, the oldest first.
    records: BTreeSet<(Instant, i64)>,
    logged_at: Option<Instant>,
}

impl Waiting {
    /// Adds a transient failure of a record. Returns whether to log it.
    pub(super) fn failed(&mut self, partition: &TopicPartition, offset: i64, since: Instant, now: Instant) -> bool {
        if !self.0.contains_key(partition) {
            self.0.insert(partition.clone(), WaitingRecords::default());
        }
        let Some(waiting) = self.0.get_mut(partition) else { return false };
        waiting.records.insert((since, offset));
        let is_old = now.saturating_duration_since(since) >= MIN_LOGGED;
        let is_due = waiting.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if is_old && is_due {
            waiting.logged_at = Some(now);
        }
        is_old && is_due
    }

    /// Removes a record that had another outcome than a transient failure.
    pub(super) fn ended(&mut self, partition: &TopicPartition, offset: i64, since: Instant) {
        if let Some(waiting) = self.0.get_mut(partition) {
            waiting.records.remove(&(since, offset));
        }
    }

    /// Forgets the records of a revoked partition.
    pub(super) fn revoked(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }

    /// Returns how long the oldest record has waited.
    pub(super) fn longest(&self, now: Instant) -> Duration {
        let oldest = self.0.values().filter_map(|waiting| waiting.records.first()).min();
        oldest.map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since))
    }
}

/// Returns the hash of a key (FNV-1a, 64 bits). Logs show it instead of the key, which may be personal data.
pub(super) fn key_hash(key: &[u8]) -> String {
    let hash = key
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_is_logged_once_a_minute_per_partition() {
        let mut waiting = Waiting::default();
        let (first, second) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!waiting.failed(&first, 7, start, start), "it may be gone at once");
        assert!(waiting.failed(&first, 7, start, at(5)));
        assert!(!waiting.failed(&first, 7, start, at(30)) && !waiting.failed(&first, 8, start, at(64)));
        assert!(waiting.failed(&second, 3, at(20), at(30)), "another partition");
        assert!(waiting.failed(&first, 8, start, at(65)));
        waiting.ended(&first, 7, start);
        waiting.ended(&first, 8, start);
        assert!(!waiting.failed(&first, 9, at(66), at(80)), "however many records wait one after another");
    }

    #[test]
    fn the_oldest_record_is_the_longest_and_goes_when_it_ends_or_its_partition_is_revoked() {
        let mut waiting = Waiting::default();
        let (first, second) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        waiting.failed(&first, 7, start, start);
        waiting.failed(&first, 8, at(2), at(2));
        waiting.failed(&second, 1, at(3), at(3));
        let longest = |waiting: &Waiting| waiting.longest(at(10)).as_secs();
        assert_eq!(longest(&waiting), 10);
        waiting.ended(&first, 7, start);
        assert_eq!(longest(&waiting), 8);
        waiting.revoked(&first);
        assert_eq!(longest(&waiting), 7);
        waiting.ended(&second, 1, at(3));
        assert_eq!(longest(&waiting), 0);
    }

    #[test]
    fn a_key_has_the_hash_that_others_compute() {
        assert_eq!([key_hash(b""), key_hash(b"a")], ["cbf29ce484222325", "af63dc4c8601ec8c"]);
    }
}
