//! How much may be rejected before the consumer stops: a bad deploy must not drain a topic into its dead letters.

use std::collections::HashMap;
use std::hash::Hash;

/// Over how many events the share is counted.
const WINDOW: usize = 1_000;

/// How much may be rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// So many in a row within one partition.
    pub consecutive_max: u32,
    /// So many among the last 1,000 events of the consumer.
    pub per_thousand_max: u32,
}

impl Default for Limit {
    fn default() -> Self {
        Self { consecutive_max: 20, per_thousand_max: 100 }
    }
}

/// Too much was rejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Exceeded {
    /// In a row.
    #[error("{0} events of one partition in a row were rejected")]
    Consecutive(u32),
    /// Among the last ones.
    #[error("{0} of the last 1,000 events were rejected")]
    PerThousand(u32),
}

/// What has been rejected so far.
#[derive(Debug)]
pub struct Budget<P> {
    limit: Limit,
    consecutive: HashMap<P, u32>,
    /// A ring of the last events: whether each was rejected.
    last: Box<[bool]>,
    next: usize,
    rejected: u32,
}

impl<P: Clone + Eq + Hash> Budget<P> {
    /// Starts with nothing rejected.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self { limit, consecutive: HashMap::new(), last: vec![false; WINDOW].into(), next: 0, rejected: 0 }
    }

    /// Notes an event that was dealt with.
    pub fn done(&mut self, partition: &P) {
        // Nearly always nothing was rejected, and nothing has to be looked up.
        if !self.consecutive.is_empty() {
            self.consecutive.remove(partition);
        }
        self.note(false);
    }

    /// Notes an event that is to be rejected, or says that it must not be.
    pub fn reject(&mut self, partition: &P) -> Result<(), Exceeded> {
        let count = self.consecutive.entry(partition.clone()).or_default();
        if *count >= self.limit.consecutive_max {
            return Err(Exceeded::Consecutive(*count));
        }
        if self.rejected >= self.limit.per_thousand_max {
            return Err(Exceeded::PerThousand(self.rejected));
        }
        *count += 1;
        self.note(true);
        Ok(())
    }

    /// Forgets a partition that is no longer ours.
    pub fn forget(&mut self, partition: &P) {
        self.consecutive.remove(partition);
    }

    fn note(&mut self, is_rejected: bool) {
        if let Some(place) = self.last.get_mut(self.next) {
            self.rejected = self.rejected + u32::from(is_rejected) - u32::from(*place);
            *place = is_rejected;
        }
        self.next = (self.next + 1) % WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_rejections_in_one_partition_ends_the_budget() {
        let mut budget = Budget::new(Limit { consecutive_max: 3, per_thousand_max: 100 });
        for _ in 0..3 {
            budget.reject(&0).unwrap();
        }
        assert_eq!(budget.reject(&0), Err(Exceeded::Consecutive(3)));
        assert_eq!(budget.reject(&1), Ok(()), "another partition has a run of its own");
        budget.done(&0);
        assert_eq!(budget.reject(&0), Ok(()));
    }

    #[test]
    fn a_share_of_the_last_events_ends_the_budget_and_old_ones_are_forgotten() {
        let mut budget = Budget::new(Limit { consecutive_max: 100, per_thousand_max: 5 });
        for _ in 0..5 {
            budget.reject(&0).unwrap();
            budget.done(&0);
        }
        assert_eq!(budget.reject(&0), Err(Exceeded::PerThousand(5)));
        for _ in 0..WINDOW {
            budget.done(&0);
        }
        assert_eq!(budget.reject(&0), Ok(()));
    }
}
