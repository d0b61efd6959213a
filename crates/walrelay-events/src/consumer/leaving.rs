//! The end of a consumer: the last commit, leaving the group, closing the client. Each has a share of the shutdown
//! timeout, and nothing waits beyond it.
//!
//! Closing a client blocks: while the coordinator is down, for as long as a session timeout. It therefore runs on a
//! thread of its own, which is abandoned at the deadline.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;

use crate::consumer::commit;
use crate::consumer::error::Error;
use crate::consumer::positions;
use crate::consumer::properties::COMMIT_TIMEOUT;
use crate::consumer::raw;
use crate::consumer::rebalance::GroupContext;
use crate::consumer::retry;
use crate::consumer::topic_partition::TopicPartition;

/// What closing the client gets of the shutdown timeout at least, if that is long enough.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The shares of a shutdown timeout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Deadlines {
    /// Running handlers finish until then.
    pub(super) handlers: Instant,
    /// The last commit is confirmed until then.
    commit: Instant,
    /// The client is closed until then.
    end: Instant,
}

impl Deadlines {
    /// Divides a shutdown timeout. Handlers get at least three quarters of it. What they leave is for the commit, and
    /// what the commit leaves is for closing the client.
    pub(super) fn new(now: Instant, timeout: Duration) -> Self {
        let commit = COMMIT_TIMEOUT.min(timeout / 4);
        let close = CLOSE_TIMEOUT.min(timeout / 8);
        let at = |reserved| retry::after(now, timeout.saturating_sub(reserved));
        Self { handlers: at(commit), commit: at(close), end: at(Duration::ZERO) }
    }
}

/// Commits what is not committed yet, leaves the group and closes the client.
pub(super) fn leave(consumer: BaseConsumer<GroupContext>, deadlines: Deadlines) -> Result<(), Error> {
    let context = Arc::clone(consumer.context());
    let (positions, beginnings) = {
        let mut dispatcher = context.dispatcher();
        positions::note_polled(&consumer, &mut dispatcher.lanes);
        // Of a lost assignment, other members own the partitions already, and their positions.
        let positions = if consumer.assignment_lost() { Vec::new() } else { dispatcher.lanes.uncommitted() };
        (positions, dispatcher.beginnings.clone())
    };
    let mut uncommitted = Vec::new();
    // A client asks for its next token in a poll. But a poll would drop records, which then count as polled, and let a
    // rebalance change what the positions are those of.
    let renew = || {
        if let Some(token) = context.token() {
            let is_taken = raw::set_token(&consumer, token);
            tracing::debug!(is_taken, "token renewed for the last commit");
        }
    };
    if let Err(error) = commit::confirm(&consumer, &positions, &beginnings, deadlines.commit, renew) {
        uncommitted.extend(positions.into_iter().map(|(partition, position)| (partition, position.offset)));
        tracing::warn!(error = %error, ?uncommitted, "last commit failed");
    }
    let (running, is_down, failure) = {
        let mut dispatcher = context.dispatcher();
        let partitions: Vec<TopicPartition> = dispatcher.lanes.partitions().cloned().collect();
        let running = dispatcher.running();
        let failure = dispatcher.failure().cloned().or_else(|| dispatcher.pending_dead_letters(running));
        dispatcher.release(&partitions);
        (running, dispatcher.health.is_down(), failure)
    };
    // Brokers that are down do not learn that the member leaves.
    let wait = if is_down { Duration::ZERO } else { deadlines.end.saturating_duration_since(Instant::now()) };
    if !close(consumer, wait) {
        tracing::warn!("group not left: it notices the end of this member after the session timeout");
    }
    match failure {
        Some(error) => Err(error),
        None if running > 0 || !uncommitted.is_empty() => Err(Error::ShutdownTimeout { running, uncommitted }),
        None => Ok(()),
    }
}

/// Closes a client and waits for it at most so long. Returns whether it is closed, which means that it has left its
/// group if the coordinator is up.
pub(super) fn close(consumer: BaseConsumer<GroupContext>, wait: Duration) -> bool {
    consumer.context().set_closing();
    let (closed, is_closed) = mpsc::channel();
    let closing = move || {
        drop(consumer);
        let _ = closed.send(());
    };
    // If there is no thread for it, the client is dropped here.
    let started = thread::Builder::new().name("consumer-close".to_owned()).spawn(closing);
    started.is_err() || is_closed.recv_timeout(wait).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shutdown_timeout_includes_the_last_commit_and_closing_the_client() {
        let now = Instant::now();
        let shares = |millis: u64| {
            let Deadlines { handlers, commit, end } = Deadlines::new(now, Duration::from_millis(millis));
            [handlers, commit, end].map(|at| at.duration_since(now).as_millis())
        };
        assert_eq!(shares(20_000), [17_000, 19_000, 20_000]);
        assert_eq!(shares(4_000), [3_000, 3_500, 4_000]);
        assert_eq!(shares(0), [0, 0, 0]);
    }
}
