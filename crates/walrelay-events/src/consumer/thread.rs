//! The thread of a consumer: how it is started, how it is stopped, and what happens if it does not end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use crate::consumer::control::Control;
use crate::consumer::control::State;
use crate::consumer::dead_letter::Producer;
use crate::consumer::error::Error;

/// A stop gives the thread at least this long to answer, whatever the shutdown timeout.
const MIN_STOP: Duration = Duration::from_secs(1);
/// The interval at which a pause checks for a stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What is dropped after the end of a consumer was returned, because dropping it blocks.
pub(super) type Kept = Option<Arc<Producer>>;

/// Runs `consume` on a thread of its own, until it ends, or until `stop` completes and the thread has answered or the
/// timeout has passed.
pub(super) async fn run(
    control: Control,
    timeout: Duration,
    stop: impl Future<Output = ()>,
    consume: impl FnOnce(&CancellationToken, &mut Kept) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let stopping = CancellationToken::new();
    // If this future is dropped, the thread stops soon after.
    let _guard = stopping.clone().drop_guard();
    let (end, ended) = oneshot::channel();
    let (stops, says_end) = (stopping.clone(), EndedOnDrop(control.clone()));
    let log = tracing::dispatcher::get_default(Clone::clone);
    let run = move || {
        let mut kept = None;
        let result = in_log_of(&log, || consume(&stops, &mut kept));
        drop(says_end);
        let _ = end.send(result);
        drop(kept);
    };
    let started = thread::Builder::new().name("consumer".to_owned()).spawn(run);
    started.map_err(|error| Error::Thread(error.to_string()))?;
    let mut ended = std::pin::pin!(ended);
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = stop => {
            stopping.cancel();
            if control.status().state == State::Starting {
                // A request to the brokers may block the thread. It ends after that and does not join.
                control.set_state(State::Ended);
                return Ok(());
            }
            let answer = tokio::time::timeout(timeout.max(MIN_STOP), ended).await;
            let Ok(ended) = answer else { return blocked(&control) };
            ended
        }
    };
    ended.unwrap_or_else(|_| Err(Error::Thread("it panicked".to_owned())))
}

/// Blocks for this long, or until a stop.
pub(super) fn pause(time: Duration, stop: &CancellationToken) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.is_cancelled() {
        thread::sleep(STOP_CHECK);
    }
}

/// Says that the consumer has ended, also after a panic.
struct EndedOnDrop(Control);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.set_state(State::Ended);
    }
}

/// Returns the end of a consumer whose thread does not answer, because a request to the brokers blocks it.
fn blocked(control: &Control) -> Result<(), Error> {
    let status = control.status();
    control.set_state(State::Ended);
    tracing::warn!("consumer thread is blocked, and abandoned");
    Err(Error::ShutdownTimeout { running: status.handlers_in_flight, uncommitted: control.uncommitted() })
}

/// Runs in the log of another thread, if that has one.
fn in_log_of<T>(log: &Dispatch, run: impl FnOnce() -> T) -> T {
    if log.is::<NoSubscriber>() { run() } else { tracing::dispatcher::with_default(log, run) }
}
