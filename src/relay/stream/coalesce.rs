//! When to wait briefly before the next read.
//!
//! A walsender writes each message separately. At a high rate a client that reads at once makes a system call per row;
//! a client that waits briefly reads many rows at once, at half the cost and a higher rate. At a low rate it must not
//! wait.

use std::time::Duration;
use std::time::Instant;

/// A smaller read is short: the socket was nearly empty.
const SHORT_READ: usize = 32 << 10;
/// Reads that follow each other faster than this are a burst.
const STREAM_GAP: Duration = Duration::from_micros(400);
/// So many of them in a row mean a high rate.
const STREAM_READS: u32 = 12;
const WAIT: Duration = Duration::from_micros(100);

/// The intervals of the last reads.
#[derive(Debug)]
pub(in crate::relay) struct Coalesce {
    last: Instant,
    streak: u32,
}

impl Coalesce {
    pub(in crate::relay) const fn new(now: Instant) -> Self {
        Self { last: now, streak: 0 }
    }

    /// Records a read of so many bytes. Gives the wait before the next one.
    pub(in crate::relay) fn after_read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let is_close = now.duration_since(self.last) < STREAM_GAP;
        self.last = now;
        self.streak = if is_close { self.streak.saturating_add(1) } else { 0 };
        (bytes < SHORT_READ && self.streak >= STREAM_READS).then_some(WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_only_in_a_stream_of_short_reads() {
        let start = Instant::now();
        let mut coalesce = Coalesce::new(start);
        let slow = (0..100).map(|n| coalesce.after_read(100, start + n * Duration::from_millis(1)));
        assert!(slow.into_iter().all(|wait| wait.is_none()));
        let start = start + Duration::from_secs(1);
        let fast: Vec<_> = (0..40).map(|n| coalesce.after_read(100, start + n * Duration::from_micros(60))).collect();
        assert_eq!((fast[0], fast[39]), (None, Some(WAIT)));
        let start = start + Duration::from_micros(40 * 60);
        assert_eq!(coalesce.after_read(SHORT_READ, start), None, "after a long read there is more");
    }
}
