//! The thread that writes lines, so that nobody who logs ever waits for a terminal or a pipe.

use std::io::Write;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use tracing::Level;

use crate::measure::Counter;

use super::limit::Limit;
use super::limit::Repeated;
use super::line;
use super::line::Content;
use super::line::Look;

/// How often the thread looks for something to say when nobody logs.
const PAUSE: Duration = Duration::from_secs(1);

/// What goes to the thread.
#[derive(Debug)]
pub(super) enum Order {
    /// Write this line.
    Line(String),
    /// Say what is still to be said, then end.
    End(SyncSender<()>),
}

/// What the threads that log and the one that writes have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) look: Look,
    limit: Mutex<Limit>,
    pub(super) dropped: Counter,
    pub(super) suppressed: Counter,
}

impl Shared {
    pub(super) fn new(look: Look) -> Self {
        Self { look, limit: Mutex::default(), dropped: Counter::default(), suppressed: Counter::default() }
    }

    pub(super) fn limit(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until it is told to end. Errors of the output are not ours to tell: there is no other place to tell them.
pub(super) fn run(mut out: Box<dyn Write + Send>, orders: &Receiver<Order>, shared: &Shared) {
    let mut told_dropped = 0;
    let mut swept = Instant::now();
    loop {
        let order = orders.recv_timeout(PAUSE);
        if swept.elapsed() >= PAUSE {
            swept = Instant::now();
            let expired = shared.limit().expired(swept);
            tell_repeated(out.as_mut(), shared, expired);
        }
        match order {
            Ok(Order::Line(line)) => put(out.as_mut(), &line),
            Ok(Order::End(done)) => {
                let held_back = shared.limit().finish();
                tell_repeated(out.as_mut(), shared, held_back);
                tell_dropped(out.as_mut(), shared, &mut told_dropped);
                let _ = done.try_send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        tell_dropped(out.as_mut(), shared, &mut told_dropped);
    }
}

fn tell_repeated(out: &mut dyn Write, shared: &Shared, repeated: Vec<Repeated>) {
    for Repeated { level, target, code, message, count } in repeated {
        let content = Content::new(&format!("repeated and not shown: {message}"), ("suppressed", count), code);
        put(out, &line::write(shared.look, SystemTime::now(), level, target, &content));
    }
}

fn tell_dropped(out: &mut dyn Write, shared: &Shared, told: &mut u64) {
    let dropped = shared.dropped.value();
    if dropped > *told {
        let content = Content::new("log lines were lost, the output took no more", ("lost", dropped - *told), None);
        put(out, &line::write(shared.look, SystemTime::now(), Level::WARN, module_path!(), &content));
        *told = dropped;
    }
}

fn put(out: &mut dyn Write, line: &str) {
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}
