//! Whether a peer is connected, and the number of reconnects by the reason of the loss.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use crate::measure::Counter;

/// Why a connection was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Loss {
    /// The connection broke, or an attempt failed.
    Failed,
    /// The server is shutting down.
    ServerShutdown,
    /// The relay disconnected.
    Disconnected,
    /// The brokers are up and acknowledge nothing.
    Stalled,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Failed, Self::ServerShutdown, Self::Disconnected, Self::Stalled];

    /// Gives the word for it in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::ServerShutdown => "server_shutdown",
            Self::Disconnected => "disconnected",
            Self::Stalled => "stalled",
        }
    }
}

/// The connection to a peer. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    presence: AtomicU8,
    reconnects: [Counter; Loss::ALL.len()],
}

/// Connected.
const UP: u8 = 1;
/// Lost after a connection; the reason is added.
const LOST: u8 = 2;

impl Link {
    /// Records that the peer is connected.
    pub fn connected(&self) {
        let before = self.0.presence.swap(UP, Relaxed);
        if let Some(counter) = before.checked_sub(LOST).and_then(|loss| self.0.reconnects.get(usize::from(loss))) {
            counter.increment();
        }
    }

    /// Records that the connection is lost. The first reason counts.
    pub fn lost(&self, loss: Loss) {
        let _ = self.0.presence.compare_exchange(UP, LOST + loss as u8, Relaxed, Relaxed);
    }

    /// Says whether the peer is connected.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.presence.load(Relaxed) == UP
    }

    /// Gives the number of reconnects after a loss for this reason.
    #[must_use]
    pub fn reconnects(&self, loss: Loss) -> u64 {
        self.0.reconnects.get(loss as usize).map_or(0, Counter::value)
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
