//! The dead-letter budget: a bad deployment must not move a whole topic into its dead-letter topic.

use std::collections::HashMap;
use std::hash::Hash;

/// The number of latest events that [`DeadLetterBudget::max_per_thousand`] looks at.
const WINDOW: usize = 1_000;

/// How many records may go to the dead-letter topic before the consumer stops.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetterBudget {
    /// At most this many in a row in one partition.
    pub max_consecutive: u32,
    /// At most this many of the consumer's last 1,000 events.
    pub max_per_thousand: u32,
}

impl Default for DeadLetterBudget {
    fn default() -> Self {
        Self { max_consecutive: 20, max_per_thousand: 100 }
    }
}

/// Which limit of the dead-letter budget was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetExceeded {
    /// [`DeadLetterBudget::max_consecutive`].
    #[error("{0} consecutive events of one partition were dead-lettered")]
    Consecutive(u32),
    /// [`DeadLetterBudget::max_per_thousand`].
    #[error("{0} of the last 1,000 events were dead-lettered")]
    PerThousand(u32),
}

/// Counts dead-lettered events against a budget.
#[derive(Debug)]
pub(crate) struct BudgetTracker<P> {
    budget: DeadLetterBudget,
    consecutive: HashMap<P, u32>,
    /// A ring of the latest events: whether each was dead-lettered.
    window: Box<[bool]>,
    next: usize,
    dead_lettered: u32,
}

impl<P: Clone + Eq + Hash> BudgetTracker<P> {
    pub(crate) fn new(budget: DeadLetterBudget) -> Self {
        Self { budget, consecutive: HashMap::new(), window: vec![false; WINDOW].into(), next: 0, dead_lettered: 0 }
    }

    pub(crate) fn acked(&mut self, partition: &P) {
        // Usually the map is empty, and nothing has to be hashed.
        if !self.consecutive.is_empty() {
            self.consecutive.remove(partition);
        }
        self.push(false);
    }

    /// Counts an event before it is dead-lettered. An error means that it must not be.
    pub(crate) fn dead_letter(&mut self, partition: &P) -> Result<(), BudgetExceeded> {
        let count = self.consecutive.entry(partition.clone()).or_default();
        if *count >= self.budget.max_consecutive {
            return Err(BudgetExceeded::Consecutive(*count));
        }
        if self.dead_lettered >= self.budget.max_per_thousand {
            return Err(BudgetExceeded::PerThousand(self.dead_lettered));
        }
        *count += 1;
        self.push(true);
        Ok(())
    }

    /// Drops the count of a revoked partition.
    pub(crate) fn revoked(&mut self, partition: &P) {
        self.consecutive.remove(partition);
    }

    fn push(&mut self, is_dead_lettered: bool) {
        if let Some(oldest) = self.window.get_mut(self.next) {
            self.dead_lettered = self.dead_lettered + u32::from(is_dead_lettered) - u32::from(*oldest);
            *oldest = is_dead_lettered;
        }
        self.next = (self.next + 1) % WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_dead_letters_of_one_partition_exhaust_the_budget() {
        let mut tracker = BudgetTracker::new(DeadLetterBudget { max_consecutive: 3, max_per_thousand: 100 });
        for _ in 0..3 {
            tracker.dead_letter(&0).unwrap();
        }
        assert_eq!(tracker.dead_letter(&0), Err(BudgetExceeded::Consecutive(3)));
        assert_eq!(tracker.dead_letter(&1), Ok(()), "another partition has its own count");
        tracker.acked(&0);
        assert_eq!(tracker.dead_letter(&0), Ok(()));
    }

    #[test]
    fn a_share_of_the_latest_events_exhausts_the_budget_and_older_events_do_not_count() {
        let mut tracker = BudgetTracker::new(DeadLetterBudget { max_consecutive: 100, max_per_thousand: 5 });
        for _ in 0..5 {
            tracker.dead_letter(&0).unwrap();
            tracker.acked(&0);
        }
        assert_eq!(tracker.dead_letter(&0), Err(BudgetExceeded::PerThousand(5)));
        for _ in 0..WINDOW {
            tracker.acked(&0);
        }
        assert_eq!(tracker.dead_letter(&0), Ok(()));
    }
}
