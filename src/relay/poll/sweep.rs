//! Which buckets to claim next: every one is tried in each sweep, and several instances share them.
//!
//! The keys of a table are hashed into buckets, and a bucket belongs to the transaction that holds its lock. A claim
//! takes at most half of them, so that a second instance finds some; the start of the next claim advances, so that
//! instances do not block each other for long. Only the database knows who holds which bucket.

/// The number of buckets. All instances must agree on it.
pub(super) const BUCKETS: i32 = 16;
/// The number of buckets that one transaction claims.
pub(super) const MAX_CLAIM: usize = 8;

/// The progress of a sweep over the buckets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sweep {
    /// The bucket that is tried next.
    next: i32,
    /// The number of buckets that were not tried in this sweep.
    remaining: i32,
}

impl Sweep {
    /// Creates a sweep that starts at a bucket chosen by `seed`; instances should use different ones.
    pub(super) fn starting_at(seed: u64) -> Self {
        let next = i32::try_from(seed % u64::from(BUCKETS.unsigned_abs())).unwrap_or_default();
        Self { next, remaining: 0 }
    }

    /// Starts a sweep.
    pub(super) const fn begin(&mut self) {
        self.remaining = BUCKETS;
    }

    /// Says whether some buckets were not tried.
    pub(super) const fn is_under_way(&self) -> bool {
        self.remaining > 0
    }

    /// Gives the buckets to try, in this order; none after all were tried.
    pub(super) fn candidates(&self) -> Vec<i32> {
        (self.next..self.next + self.remaining).map(|bucket| bucket % BUCKETS).collect()
    }

    /// Records which of the candidates were claimed, in the order of the attempts.
    pub(super) fn claimed(&mut self, buckets: &[i32]) {
        let tried = match buckets.last() {
            // A full claim has not tried the later ones.
            Some(last) if buckets.len() >= MAX_CLAIM => (last - self.next).rem_euclid(BUCKETS) + 1,
            _ => self.remaining,
        };
        self.next = (self.next + tried) % BUCKETS;
        self.remaining -= tried.min(self.remaining);
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
    fn buckets_of_another_instance_are_skipped_and_tried_again_in_the_next_sweep() {
        let mut sweep = Sweep::starting_at(2);
        sweep.begin();
        let free: Vec<i32> = sweep.candidates().into_iter().filter(|bucket| bucket % 2 == 0).collect();
        sweep.claimed(&free);
        assert_eq!(sweep.candidates(), [1], "the eighth free one was the second last");
        sweep.claimed(&[]);
        assert_eq!(sweep.candidates(), [] as [i32; 0]);
        sweep.begin();
        assert_eq!(sweep.candidates().len(), 16);
    }

    #[test]
    fn a_claim_that_is_not_full_has_tried_all() {
        let mut sweep = Sweep::starting_at(0);
        sweep.begin();
        sweep.claimed(&[3, 9]);
        assert_eq!(sweep.candidates(), [] as [i32; 0]);
    }
}
