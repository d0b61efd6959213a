//! The handle of an event that was accepted.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::publisher::core::Core;
use crate::publisher::error::Error;
use crate::publisher::outgoing::Published;

/// An event that was accepted: a future that completes when it is delivered, or with the error. It takes at most
/// `delivery_timeout` from the call that accepted the event.
///
/// The event is sent whether this is awaited or not. If it is dropped, [`Publisher::flush`] and [`Publisher::close`]
/// report a failure of the event.
///
/// [`Publisher::flush`]: crate::publisher::Publisher::flush
/// [`Publisher::close`]: crate::publisher::Publisher::close
#[must_use = "await it to hear whether the event was delivered, or call Publisher::flush later"]
pub struct Pending {
    result: oneshot::Receiver<Result<Published, Error>>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    core: Arc<Core>,
    number: usize,
}

impl Pending {
    pub(super) fn new(
        result: oneshot::Receiver<Result<Published, Error>>,
        (timeout, elapsed): (Duration, Duration),
        core: Arc<Core>,
        number: usize,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(timeout.saturating_sub(elapsed)));
        Self { result, deadline, timeout, core, number }
    }
}

impl Future for Pending {
    type Output = Result<Published, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = Pin::new(&mut self.result).poll(context) {
            return Poll::Ready(result.unwrap_or(Err(Error::Closed)));
        }
        if self.deadline.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let expired = self.core.expire(self.number, self.timeout).map(Err);
        // Without an error the result came at the same moment.
        Poll::Ready(expired.unwrap_or_else(|| self.result.try_recv().unwrap_or(Err(Error::Closed))))
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("number", &self.number).finish_non_exhaustive()
    }
}
