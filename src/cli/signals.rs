//! Signals, handled from the first moment of the process.
//!
//! | signal | `run` | other verbs |
//! |---|---|---|
//! | SIGTERM, SIGINT | drain; the second one ends at once | an orderly end if the verb has one, else the end |
//! | SIGHUP | with a terminal, which is closing: as SIGTERM; else it is logged and ignored | as SIGTERM |
//! | SIGUSR1, SIGUSR2 | logged and ignored: a script that rotates logs must not end the relay | ignored |
//! | SIGQUIT | ends at once by default; nothing is lost, events may be repeated | the same |
//! | SIGPIPE | ignored: writing fails instead | the same |
//!
//! [`Signals::install`] installs the handlers. A signal that arrives before a verb has said how it ends is kept for it.

use std::fs;
use std::io;
use std::process;
use std::thread;
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

/// What a shell expects of a program that ended because of Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// A shell's exit code for a program that a signal ended, less the signal's number.
const ENDED_BY: i32 = 128;

/// The signals that are handled.
pub(super) struct Signals {
    runtime: Runtime,
    streams: Streams,
}

/// The thread that acts on them. Dropping it ends the thread; later signals are ignored.
pub(super) struct SignalThread {
    stop: CancellationToken,
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
    is_hang_up_an_end: bool,
}

/// How a verb ends.
#[derive(Clone, Copy)]
enum Ending {
    /// At the first signal.
    AtOnce,
    /// At the first signal, and Ctrl-C is how it is meant to end.
    Watched,
    /// In order after the first signal; at once with this code after the second.
    Ordered(i32),
}

/// What a signal asks for.
enum Action {
    /// The end of the process, by the signal of this number.
    End(i32),
    /// Something that is logged and ignored.
    Ignore(&'static str),
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        let is_hang_up_an_end = has_terminal() && !is_hang_up_ignored();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let streams = Streams {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            is_hang_up_an_end,
        };
        drop(entered);
        Ok(Self { runtime, streams })
    }

    /// For a relay: the first signal cancels the token, the second one ends the process with `code`.
    pub(super) fn drain(self, code: i32) -> io::Result<SignalThread> {
        self.start(Ending::Ordered(code))
    }

    /// For a verb that ends in order, or whose end leaves nothing behind if it does not look at the token.
    pub(super) fn interrupt(mut self) -> io::Result<SignalThread> {
        self.streams.is_hang_up_an_end = true;
        self.start(Ending::Ordered(i32::from(INTERRUPTED)))
    }

    /// For a verb that may end at any time.
    pub(super) fn end_at_once(mut self) -> io::Result<SignalThread> {
        self.streams.is_hang_up_an_end = true;
        self.start(Ending::AtOnce)
    }

    /// For a verb that somebody watches until Ctrl-C.
    pub(super) fn end_watching(mut self) -> io::Result<SignalThread> {
        self.streams.is_hang_up_an_end = true;
        self.start(Ending::Watched)
    }

    fn start(self, ending: Ending) -> io::Result<SignalThread> {
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let Self { runtime, streams } = self;
        let (theirs, is_over) = (stop.clone(), over.clone());
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(is_over.run_until_cancelled(streams.handle(ending, &theirs)));
        })?;
        Ok(SignalThread { stop, over, thread: Some(thread) })
    }
}

impl SignalThread {
    /// Returns the token that the first signal cancels.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in that thread has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Streams {
    /// Ends the process at the first signal, or cancels `stop` and ends it at the second one.
    async fn handle(mut self, ending: Ending, stop: &CancellationToken) {
        let interrupt = SignalKind::interrupt().as_raw_value();
        loop {
            match (self.next().await, ending) {
                (Action::End(number), Ending::Watched) if number == interrupt => process::exit(0),
                (Action::End(number), Ending::AtOnce | Ending::Watched) => process::exit(ENDED_BY + number),
                (Action::End(_), Ending::Ordered(code)) if stop.is_cancelled() => {
                    tracing::warn!("second signal, ending at once; a restart publishes again what was in flight");
                    process::exit(code);
                }
                (Action::End(_), Ending::Ordered(_)) => stop.cancel(),
                (Action::Ignore(signal), _) => tracing::warn!(
                    signal,
                    "signal ignored: a restart reads the configuration anew, and lines of the log go to standard error \
                     only"
                ),
            }
        }
    }

    async fn next(&mut self) -> Action {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.hang_up.recv() => {
                if !self.is_hang_up_an_end {
                    return Action::Ignore("SIGHUP");
                }
                SignalKind::hangup()
            }
            _ = self.user_1.recv() => return Action::Ignore("SIGUSR1"),
            _ = self.user_2.recv() => return Action::Ignore("SIGUSR2"),
        };
        Action::End(kind.as_raw_value())
    }
}

/// Whether this process has a controlling terminal, which sends SIGHUP when it closes.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

/// Whether SIGHUP was ignored when the process started, as under `nohup`.
fn is_hang_up_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_first_signal_ignored(&status)
}

/// SIGHUP is the first signal, so the lowest bit.
fn is_first_signal_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen_in_the_mask_of_ignored_signals() {
        for (status, expected) in [
            ("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n", true),
            ("Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t1\n", false),
            ("", false),
        ] {
            assert_eq!(is_first_signal_ignored(status), expected, "{status}");
        }
    }
}
