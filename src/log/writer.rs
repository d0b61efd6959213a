//! The thread that writes lines, so that no caller waits for a terminal or a pipe.

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

/// How often the thread reports suppressed and lost lines when nobody logs.
const PAUSE: Duration = Duration::from_secs(1);

/// A request to the writer thread.
#[derive(Debug)]
pub(super) enum Order {
    Line(String),
    /// Report what was suppressed and lost, then end.
    End(SyncSender<()>),
}

/// State of the threads that log and the one that writes.
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

/// Writes until `End`. Errors of the output are ignored: there is no other place to report them.
pub(super) fn run(mut out: Box<dyn Write + Send>, orders: &Receiver<Order>, shared: &Shared) {
    let mut reported = 0;
    let mut swept = Instant::now();
    loop {
        let order = orders.recv_timeout(PAUSE);
        if swept.elapsed() >= PAUSE {
            swept = Instant::now();
            let expired = shared.limit().expired(swept);
            report_repeated(out.as_mut(), shared, expired);
        }
        match order {
            Ok(Order::Line(line)) => put(out.as_mut(), &line),
            Ok(Order::End(done)) => {
                let suppressed = shared.limit().finish();
                report_repeated(out.as_mut(), shared, suppressed);
                report_dropped(out.as_mut(), shared, &mut reported);
                let _ = done.try_send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        report_dropped(out.as_mut(), shared, &mut reported);
    }
}

fn report_repeated(out: &mut dyn Write, shared: &Shared, repeated: Vec<Repeated>) {
    for Repeated { level, target, code, message, count } in repeated {
        let content = Content::new(&format!("repetitions suppressed: {message}"), ("suppressed", count), code);
        put(out, &line::write(shared.look, SystemTime::now(), level, target, &content));
    }
}

fn report_dropped(out: &mut dyn Write, shared: &Shared, reported: &mut u64) {
    let dropped = shared.dropped.value();
    if dropped > *reported {
        let content = Content::new("log lines lost, output blocked", ("lost", dropped - *reported), None);
        put(out, &line::write(shared.look, SystemTime::now(), Level::WARN, module_path!(), &content));
        *reported = dropped;
    }
}

fn put(out: &mut dyn Write, line: &str) {
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}
