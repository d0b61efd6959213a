//! How a running handler learns that it should end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::sync::CancellationToken;

/// Why a handler should end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CancelReason {
    /// The partition is being revoked. What the handler returns counts within `Config::revoke_timeout`. After that,
    /// or if the assignment was lost, another member handles the record again.
    Revoked,
    /// The consumer is stopping. What the handler returns counts within `Config::shutdown_timeout`.
    Stopping,
    /// `Config::handler_timeout` has passed. One second later the handler is dropped, and the attempt has failed.
    TimedOut,
}

/// Tells a running handler when it should end, and why. Only a handler that can run for long needs it.
///
/// ```
/// use walrelay_events::consumer::{Delivery, Outcome};
///
/// async fn import(delivery: Delivery) -> Outcome {
///     for _ in 0..1_000 {
///         if let Some(reason) = delivery.cancellation.reason() {
///             // Nothing was done that must not be done again. The attempt does not count.
///             return Outcome::transient(format!("not finished: {reason}"));
///         }
///         tokio::task::yield_now().await;
///     }
///     Outcome::Ack
/// }
/// ```
///
/// The default is never canceled.
#[derive(Clone, Default)]
pub struct Cancellation(Option<Arc<Signal>>);

struct Signal {
    token: CancellationToken,
    /// One of the reasons below, or 0.
    reason: AtomicU8,
    /// A call with a time-out is also canceled with all calls of its partition.
    partition: Cancellation,
}

const REASONS: [CancelReason; 3] = [CancelReason::Revoked, CancelReason::Stopping, CancelReason::TimedOut];

impl Cancellation {
    /// Returns why the handler should end, once it should.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        let signal = self.0.as_ref()?;
        let own = usize::from(signal.reason.load(Relaxed)).checked_sub(1).and_then(|at| REASONS.get(at).copied());
        own.or_else(|| signal.partition.reason())
    }

    /// Returns whether the handler should end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until the handler should end, and returns why.
    pub async fn cancelled(&self) -> CancelReason {
        loop {
            if let Some(reason) = self.reason() {
                return reason;
            }
            match &self.0 {
                Some(signal) => signal.token.cancelled().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Creates the cancellation of a partition.
    pub(super) fn of_partition() -> Self {
        Self(Some(Arc::new(Signal {
            token: CancellationToken::new(),
            reason: AtomicU8::new(0),
            partition: Self::default(),
        })))
    }

    /// Creates the cancellation of one call.
    pub(super) fn of_call(&self) -> Self {
        let token = self.0.as_ref().map(|signal| signal.token.child_token()).unwrap_or_default();
        Self(Some(Arc::new(Signal { token, reason: AtomicU8::new(0), partition: self.clone() })))
    }

    /// Cancels. The first reason counts.
    pub(super) fn cancel(&self, reason: CancelReason) {
        let Some(signal) = &self.0 else { return };
        let number = REASONS.iter().zip(1..).find(|(it, _)| **it == reason).map_or(0, |(_, number)| number);
        // Before the token, so that a waiter that is woken finds it.
        let _ = signal.reason.compare_exchange(0, number, Relaxed, Relaxed);
        signal.token.cancel();
    }
}

/// The cancellations of partitions, by a small number and the epoch of the assignment.
#[derive(Debug, Default)]
pub(super) struct Cancellations(Vec<(u64, Cancellation)>);

impl Cancellations {
    /// Returns the cancellation of an assigned partition. An earlier assignment with this number has ended.
    pub(super) fn of(&mut self, (slot, epoch): (usize, u64)) -> Cancellation {
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, Default::default);
        }
        let Some((known, cancellation)) = self.0.get_mut(slot) else { return Cancellation::default() };
        if *known != epoch {
            cancellation.cancel(CancelReason::Revoked);
            (*known, *cancellation) = (epoch, Cancellation::of_partition());
        }
        cancellation.clone()
    }

    /// Cancels the handlers of a partition, if any were started.
    pub(super) fn cancel(&self, (slot, epoch): (usize, u64), reason: CancelReason) {
        if let Some((_, cancellation)) = self.0.get(slot).filter(|(known, _)| *known == epoch) {
            cancellation.cancel(reason);
        }
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation").field(&self.reason()).finish()
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "the partition was revoked",
            Self::Stopping => "the consumer is stopping",
            Self::TimedOut => "the handler timed out",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_reaches_every_call_of_the_partition() {
        let partition = Cancellation::of_partition();
        let (first, second) = (partition.of_call(), partition.of_call());
        first.cancel(CancelReason::TimedOut);
        assert_eq!(first.cancelled().await, CancelReason::TimedOut);
        assert_eq!((second.reason(), partition.reason()), (None, None));
        partition.cancel(CancelReason::Revoked);
        partition.cancel(CancelReason::Stopping);
        assert_eq!(second.cancelled().await, CancelReason::Revoked);
        assert_eq!(first.reason(), Some(CancelReason::TimedOut));
        assert!(!Cancellation::default().is_cancelled());
    }
}
