//! What a person sees. A reader that has gone away, as with `| head`, ends nothing: the servers are still stopped in order.

use std::fmt::Display;
use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use walrelay_events::consumer::Fate;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;

/// Begins a step.
pub fn step(text: impl Display) {
    put(&format!("\n{}", paint("1;36", &text.to_string())));
}

/// Tells something that happened.
pub fn line(text: impl Display) {
    put(&format!("  {text}"));
}

/// Shows a command and what it printed.
pub fn command(arguments: &[&str], output: &str) {
    line(paint("2", &format!("$ walrelay {}", arguments.join(" "))));
    output.lines().for_each(line);
}

/// Tells whether something is as it should be, and hands that on.
pub fn check(is_so: bool, what: impl Display) -> bool {
    let mark = if is_so { paint("32", "ok   ") } else { paint("1;31", "WRONG") };
    put(&format!("  {mark} {what}"));
    is_so
}

/// Tells what ended it all.
pub fn failed(error: impl Display) {
    put(&format!("  {} {error}", paint("1;31", "error:")));
}

/// Counts what a consumer tells, for the end, and prints what a person should know at once.
#[derive(Debug)]
pub struct Tally {
    pub done: AtomicU64,
    pub dead_letters: AtomicU64,
}

impl Tally {
    pub const fn new() -> Self {
        Self { done: AtomicU64::new(0), dead_letters: AtomicU64::new(0) }
    }
}

/// An application hands [`walrelay_events::consumer::Prometheus`] to its consumer; this one is for the eye.
impl Observer for &'static Tally {
    fn observe(&self, observed: &Observed<'_>) {
        match observed {
            Observed::Handled { fate: Fate::Done, .. } => _ = self.done.fetch_add(1, Relaxed),
            Observed::Handled { fate: Fate::Retried, record, .. } => line(format!("{record} is tried again")),
            Observed::DeadLettered { record, reason } => {
                self.dead_letters.fetch_add(1, Relaxed);
                line(format!("{record} goes to the dead letters: {reason}"));
            }
            Observed::DeadLetterBlocked { record, error } => line(format!("{record} cannot be put aside: {error}")),
            Observed::Handled { fate: Fate::Rejected, .. }
            | Observed::Revoked { .. }
            | Observed::GivenUp { .. }
            | Observed::Away
            | Observed::Renewed
            | Observed::Back { .. }
            | Observed::Lag { .. }
            | Observed::Held { .. } => {}
        }
    }
}

fn put(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn paint(style: &str, text: &str) -> String {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_plain || !io::stdout().is_terminal() { text.to_owned() } else { format!("\x1b[{style}m{text}\x1b[0m") }
}
