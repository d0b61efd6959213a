//! Which buckets are claimed next: every one is tried in each sweep, and instances that run side by side share them.
//!
//! The keys of a table fall into buckets, and a bucket belongs to the one transaction that holds its lock. A claim takes at
//! most half of them, so that a second instance always finds some; where the next claim begins moves on, so that instances
//! do not stand in each other's way for long. Nothing here says who holds what: the database does.

/// How many buckets the keys of a table fall into. All instances must agree on it.
pub(super) const BUCKETS: i32 = 16;
/// How many of them one transaction claims.
pub(super) const MAX_CLAIM: usize = 8;

/// Where a sweep over the buckets stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sweep {
    /// The bucket that is tried next.
    next: i32,
    /// How many have not been tried in this sweep.
    left: i32,
}

impl Sweep {
    /// Makes one that begins somewhere; instances had better begin in different places.
    pub(super) fn starting_at(seed: u64) -> Self {
        let next = i32::try_from(seed % u64::from(BUCKETS.unsigned_abs())).unwrap_or_default();
        Self { next, left: 0 }
    }

    /// Begins to go round.
    pub(super) const fn begin(&mut self) {
        self.left = BUCKETS;
    }

    /// Says whether some have not been tried.
    pub(super) const fn is_under_way(&self) -> bool {
        self.left > 0
    }

    /// Gives the buckets to try, in this order; none once all have been tried.
    pub(super) fn candidates(&self) -> Vec<i32> {
        (self.next..self.next + self.left).map(|bucket| bucket % BUCKETS).collect()
    }

    /// Learns which of the candidates were free, in the order in which they were tried.
    pub(super) fn claimed(&mut self, buckets: &[i32]) {
        let tried = match buckets.last() {
            // A claim that is full has not looked any further.
            Some(last) if buckets.len() >= MAX_CLAIM => (last - self.next).rem_euclid(BUCKETS) + 1,
            _ => self.left,
        };
        self.next = (self.next + tried) % BUCKETS;
        self.left -= tried.min(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_tries_every_bucket_once() {
        for seed in 0..40 {
            let mut sweep = Sweep::starting_at(seed);
            sweep.begin();
            let mut seen: Vec<i32> = Vec::new();
            while sweep.is_under_way() {
                let claimed: Vec<i32> = sweep.candidates().into_iter().take(MAX_CLAIM).collect();
                seen.extend(&claimed);
                sweep.claimed(&claimed);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..BUCKETS).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_another_instance_holds_is_passed_over_and_tried_again_in_the_next_sweep() {
        let mut sweep = Sweep::starting_at(2);
        sweep.begin();
        let free: Vec<i32> = sweep.candidates().into_iter().filter(|bucket| bucket % 2 == 0).collect();
        sweep.claimed(&free);
        assert_eq!(sweep.candidates(), [1], "the eighth free one was the last but one");
        sweep.claimed(&[]);
        assert_eq!(sweep.candidates(), [] as [i32; 0]);
        sweep.begin();
        assert_eq!(sweep.candidates().len(), 16);
    }

    #[test]
    fn a_claim_that_found_less_than_it_wanted_has_tried_all() {
        let mut sweep = Sweep::starting_at(0);
        sweep.begin();
        sweep.claimed(&[3, 9]);
        assert_eq!(sweep.candidates(), [] as [i32; 0]);
    }
}
