//! The output. A closed pipe, as with `| head`, does not end the program: the servers are still stopped.

use std::fmt::Display;
use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;
use walrelay_events::consumer::Verdict;

/// Prints the title of a step.
pub fn step(text: impl Display) {
    put(&format!("\n{}", paint("1;36", &text.to_string())));
}

/// Prints a line.
pub fn line(text: impl Display) {
    put(&format!("  {text}"));
}

/// Prints a command and its output.
pub fn command(arguments: &[&str], output: &str) {
    line(paint("2", &format!("$ walrelay {}", arguments.join(" "))));
    output.lines().for_each(line);
}

/// Prints the result of a check and returns it.
pub fn check(is_so: bool, what: impl Display) -> bool {
    let mark = if is_so { paint("32", "ok   ") } else { paint("1;31", "WRONG") };
    put(&format!("  {mark} {what}"));
    is_so
}

/// Prints an error.
pub fn failed(error: impl Display) {
    put(&format!("  {} {error}", paint("1;31", "error:")));
}

/// Counts what a consumer reports for the checks, and prints retries and dead-letter records.
#[derive(Debug)]
pub struct Tally {
    pub acked: AtomicU64,
    pub dead_letters: AtomicU64,
}

impl Tally {
    pub const fn new() -> Self {
        Self { acked: AtomicU64::new(0), dead_letters: AtomicU64::new(0) }
    }
}

/// An application uses [`walrelay_events::consumer::Prometheus`]; this observer is for people.
impl Observer for &'static Tally {
    fn observe(&self, observed: &Observed<'_>) {
        match observed {
            Observed::Handled { verdict: Verdict::Ack, .. } => _ = self.acked.fetch_add(1, Relaxed),
            Observed::Handled { verdict: Verdict::Retry { reason, .. }, record, .. } => {
                line(format!("{record} is retried: {reason}"));
            }
            Observed::DeadLettered { record, reason } => {
                self.dead_letters.fetch_add(1, Relaxed);
                line(format!("{record} is dead-lettered: {reason}"));
            }
            Observed::DeadLetterFailed { record, error } => line(format!("{record} cannot be dead-lettered: {error}")),
            Observed::Handled { .. }
            | Observed::RevokedInFlight { .. }
            | Observed::PartitionRevoked { .. }
            | Observed::Lag { .. }
            | Observed::AllBrokersDown
            | Observed::BrokersUp { .. }
            | Observed::ClientReplaced
            | Observed::Load { .. }
            | _ => {}
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
