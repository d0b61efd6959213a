//! When runs were started, to know the oldest one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

/// How many of the current runs were started at a time.
#[derive(Debug, Default)]
pub(super) struct Starts {
    at: BTreeMap<Instant, usize>,
    count: usize,
}

impl Starts {
    pub(super) fn add(&mut self, now: Instant) {
        *self.at.entry(now).or_default() += 1;
        self.count += 1;
    }

    pub(super) fn remove(&mut self, started: Instant) {
        let Entry::Occupied(mut runs) = self.at.entry(started) else { return };
        self.count -= 1;
        *runs.get_mut() -= 1;
        if *runs.get() == 0 {
            runs.remove();
        }
    }

    /// Counts the runs.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Returns when the oldest run was started.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.at.keys().next().copied()
    }
}
