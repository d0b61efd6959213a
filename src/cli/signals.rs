//! Signals: heard from the first moment of the process, before anything is read.
//!
//! | signal | `run` | other verbs |
//! |---|---|---|
//! | SIGTERM, SIGINT | drain; the second one ends at once | an orderly end where there is one, else the end |
//! | SIGHUP | with a terminal, which is going away: as SIGTERM; else it is logged and ignored | as SIGTERM |
//! | SIGUSR1, SIGUSR2 | logged and ignored: a script that rotates logs must not end the relay | ignored |
//! | SIGQUIT | at once, as the system does it; nothing is lost, events may come again | the same |
//! | SIGPIPE | ignored: writing fails instead | the same |
//!
//! The handlers are installed by [`Signals::hear`]. What comes before a verb has said how it ends waits for it.

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

/// The signals that are heard.
pub(super) struct Signals {
    runtime: Runtime,
    heard: Heard,
}

/// The thread that obeys them. Dropping it ends the thread; what comes later is ignored.
pub(super) struct Obeyed {
    stop: CancellationToken,
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Heard {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
    is_hang_up_an_end: bool,
}

/// What a signal asks for.
enum Wish {
    /// To end, because of the signal of this number.
    End(i32),
    /// Something that is not done.
    Other(&'static str),
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn hear() -> io::Result<Self> {
        let is_hang_up_an_end = has_terminal() && !is_hang_up_ignored();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let heard = Heard {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            is_hang_up_an_end,
        };
        drop(entered);
        Ok(Self { runtime, heard })
    }

    /// For a relay: the first wish to end cancels the token, the second one ends the process with `code`.
    pub(super) fn drain(self, code: i32) -> io::Result<Obeyed> {
        self.obey(Some(code))
    }

    /// For a verb that ends in order, or whose end leaves nothing behind if it does not look at the token.
    pub(super) fn interrupt(mut self) -> io::Result<Obeyed> {
        self.heard.is_hang_up_an_end = true;
        self.obey(Some(i32::from(INTERRUPTED)))
    }

    /// For a verb that may end at any time.
    pub(super) fn end_at_once(mut self) -> io::Result<Obeyed> {
        self.heard.is_hang_up_an_end = true;
        self.obey(None)
    }

    fn obey(self, second: Option<i32>) -> io::Result<Obeyed> {
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let Self { runtime, heard } = self;
        let (theirs, is_over) = (stop.clone(), over.clone());
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(is_over.run_until_cancelled(heard.obey(second, &theirs)));
        })?;
        Ok(Obeyed { stop, over, thread: Some(thread) })
    }
}

impl Obeyed {
    /// Gives the token that the first wish to end cancels.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drop for Obeyed {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic over there has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Heard {
    /// Cancels `stop` at the first wish to end; at the second one, or at the first without a `code`, ends the process.
    async fn obey(mut self, code: Option<i32>, stop: &CancellationToken) {
        loop {
            match (self.next().await, code) {
                (Wish::End(number), None) => process::exit(ENDED_BY + number),
                (Wish::End(_), Some(code)) if stop.is_cancelled() => {
                    tracing::warn!(
                        "second signal: leaving at once; what was on the way is published again at the next start"
                    );
                    process::exit(code);
                }
                (Wish::End(_), Some(_)) => stop.cancel(),
                (Wish::Other(signal), _) => tracing::warn!(
                    signal,
                    "signal ignored: a restart reads the configuration anew, and lines of the log go to standard error \
                     only"
                ),
            }
        }
    }

    async fn next(&mut self) -> Wish {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.hang_up.recv() => {
                if !self.is_hang_up_an_end {
                    return Wish::Other("SIGHUP");
                }
                SignalKind::hangup()
            }
            _ = self.user_1.recv() => return Wish::Other("SIGUSR1"),
            _ = self.user_2.recv() => return Wish::Other("SIGUSR2"),
        };
        Wish::End(kind.as_raw_value())
    }
}

/// Says whether this process belongs to a terminal, whose end is told by SIGHUP.
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

/// Says whether SIGHUP was ignored when the process started, as `nohup` does it.
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
