//! Whether a peer is there, and how often it had to be found again, by what it was lost to.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use crate::measure::Counter;

/// Why a peer was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Loss {
    /// The connection broke, or an attempt at one failed.
    Failed,
    /// The peer said that it was going.
    ServerLeft,
    /// We let it go, since the other peer took nothing.
    Disconnected,
    /// It is there, but takes nothing.
    Stalled,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failed, Self::ServerLeft, Self::Disconnected, Self::Stalled];

    /// Gives the word for it in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::ServerLeft => "server_left",
            Self::Disconnected => "disconnected",
            Self::Stalled => "stalled",
        }
    }
}

/// A peer. A clone is another hand on the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    presence: AtomicU8,
    found_again: [Counter; Loss::ALL.len()],
}

/// It is there.
const UP: u8 = 1;
/// It was there, and is lost; the loss is added.
const LOST: u8 = 2;

impl Link {
    /// Notes that the peer is there.
    pub fn connected(&self) {
        let before = self.0.presence.swap(UP, Relaxed);
        if let Some(counter) = before.checked_sub(LOST).and_then(|loss| self.0.found_again.get(usize::from(loss))) {
            counter.increment();
        }
    }

    /// Notes that the peer is gone. The first reason counts.
    pub fn lost(&self, loss: Loss) {
        let _ = self.0.presence.compare_exchange(UP, LOST + loss as u8, Relaxed, Relaxed);
    }

    /// Says whether the peer is there.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.presence.load(Relaxed) == UP
    }

    /// Counts how often the peer was found again after such a loss.
    #[must_use]
    pub fn reconnects(&self, loss: Loss) -> u64 {
        self.0.found_again.get(loss as usize).map_or(0, Counter::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconnect_is_counted_by_the_first_reason_of_its_loss() {
        let link = Link::default();
        link.lost(Loss::Failed);
        link.connected();
        link.connected();
        assert!(link.is_up());
        assert!(Loss::ALL.iter().all(|loss| link.reconnects(*loss) == 0), "the first connection is none");
        link.lost(Loss::Disconnected);
        link.lost(Loss::Failed);
        assert!(!link.is_up());
        link.connected();
        assert_eq!(Loss::ALL.map(|loss| link.reconnects(loss)), [0, 0, 1, 0]);
    }
}
