//! One screen for a person, as wide as the terminal.

use std::time::SystemTime;

use crate::cli::invocation;
use crate::cli::wrap::printable;
use crate::relay::inspect::Inspection;
use crate::relay::inspect::Problem;
use crate::units::span;

use super::daemon::Daemon;
use super::daemon::LastError;
use super::daemon::SlotView;
use super::report::Found;
use super::report::NOT_RUNNING;
use super::report::Report;
use super::report::slot_view;

/// The width of the names on the left.
const LABEL: usize = 13;
/// The smallest width of the values on the right.
const MIN_VALUE: usize = 16;
/// The number of topics; `/status` has all.
const MAX_TOPICS: usize = 5;
/// The longest value, in characters: one error does not fill the screen.
const MAX_CHARS: usize = 600;

/// Writes the lines of the screen.
struct Screen {
    text: String,
    /// The width of a value; none without a terminal.
    value: Option<usize>,
    now: SystemTime,
    has_problem: bool,
}

/// Writes the screen. Without a width nothing is wrapped.
pub(super) fn screen(report: &Report, width: Option<usize>, now: SystemTime) -> String {
    let value = width.map(|width| width.saturating_sub(LABEL).max(MIN_VALUE));
    let mut screen = Screen { text: String::new(), value, now, has_problem: false };
    match &report.found {
        Found::Running(daemon, _) => screen.running(report, daemon),
        Found::Stopped { why, postgres } => screen.stopped(report, why, postgres),
    }
    screen.text
}

impl Screen {
    fn running(&mut self, report: &Report, daemon: &Daemon) {
        let since = daemon.state_since.as_deref().and_then(|at| self.age(at)).map(|age| format!(" for {age}"));
        let state = daemon.state.replace('_', " ");
        self.line("relay", &format!("{}: {state}{}", daemon.name, since.unwrap_or_default()));
        for reason in &report.reasons {
            self.line("not well", reason);
        }
        let role = daemon.role.as_deref().map(|role| format!(", {role}")).unwrap_or_default();
        self.line("running at", &format!("{}, version {}{role}", report.address, daemon.version));
        let word = |is_connected| if is_connected { "connected" } else { "not connected" };
        self.line("postgres", word(daemon.connected.postgres));
        let kafka = if daemon.state == "sink_blocked" && !daemon.connected.kafka {
            "no record is acknowledged"
        } else {
            word(daemon.connected.kafka)
        };
        self.line("kafka", kafka);
        self.flow(daemon);
        if let (Some(name), slot) = (&daemon.slot, &daemon.slot_view) {
            match slot {
                Some(slot) => self.slot(name, slot),
                None => self.line("slot", &format!("{name}: not read yet")),
            }
        }
        if let Some(LastError { code, text, help, at }) = &daemon.last_error {
            let age = at.as_deref().and_then(|at| self.age(at)).map(|age| format!(" {age} ago")).unwrap_or_default();
            self.line("last error", &format!("{code}{age}: {text}"));
            self.next(help.as_deref());
        }
    }

    fn flow(&mut self, daemon: &Daemon) {
        let lag = &daemon.lag;
        let parts = [
            lag.deliver_seconds.map(|seconds| format!("{seconds:.1} s")),
            lag.deliver_bytes.map(|bytes| format!("{} of WAL not confirmed", size(bytes))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        self.line("lag", &if parts.is_empty() { "unknown".to_owned() } else { parts.join(", ") });
        if daemon.slot.is_some() {
            let end = daemon.server_wal_end_lsn.as_deref().map(|end| format!(", the WAL ends at {end}"));
            let confirmed = daemon.confirmed_lsn.as_deref().unwrap_or("nothing yet");
            self.line("confirmed", &format!("{confirmed}{}", end.unwrap_or_default()));
        }
        if let Some(seconds) = daemon.position_wait_seconds {
            self.line("position", &format!("waiting to be stored for {}", span(seconds)));
        }
        if let Some(unpublished) = daemon.unpublished {
            self.line("unpublished", &many(unpublished, "event"));
        }
        let in_flight = &daemon.in_flight;
        let (bytes, max_bytes) = (size(in_flight.bytes), size(in_flight.max_bytes));
        self.line("in flight", &format!("{}, {bytes} of {max_bytes}", many(in_flight.records, "record")));
        let events: u64 = daemon.published.values().map(|each| each.events).sum();
        let bytes: u64 = daemon.published.values().map(|each| each.bytes).sum();
        let last = daemon.last_delivery.as_deref().and_then(|at| self.age(at));
        let last = last.map(|age| format!(", the last one acknowledged {age} ago")).unwrap_or_default();
        self.line("published", &format!("{}, {} since the start{last}", many(events, "event"), size(bytes)));
        for (topic, published) in daemon.published.iter().take(MAX_TOPICS) {
            self.line("", &format!("{topic}: {}", published.events));
        }
        if let Some(more @ 1..) = daemon.published.len().checked_sub(MAX_TOPICS) {
            self.line("", &format!("{more} further topics"));
        }
    }

    fn stopped(&mut self, report: &Report, why: &str, postgres: &Result<Box<Inspection>, Problem>) {
        self.line("relay", &format!("{}: {NOT_RUNNING}", report.name));
        self.line("", &format!("http.listen {}: {why}", report.address));
        for reason in report.reasons.iter().filter(|reason| *reason != NOT_RUNNING) {
            self.line("not well", reason);
        }
        let inspection = match postgres {
            Ok(inspection) => inspection,
            Err(problem) => {
                self.problem("postgres", problem);
                self.line("", "slot, position and publication cannot be read");
                return;
            }
        };
        let server = &inspection.server;
        let version = server.version.as_deref().unwrap_or("of unknown version");
        let recovery = if server.is_in_recovery == Some(true) { ", in recovery" } else { "" };
        self.line("postgres", &format!("{}, PostgreSQL {version}{recovery}", server.host));
        match &inspection.slot {
            None => {}
            Some(Err(problem)) => self.problem("slot", problem),
            Some(Ok(slot)) => {
                if let Some(view) = slot_view(slot) {
                    let name = report.slot.as_deref().unwrap_or_default();
                    self.slot(name, &view);
                    self.line("confirmed", view.confirmed_flush_lsn.as_deref().unwrap_or("nothing"));
                }
                if let Some(problem) = &slot.problem {
                    self.problem("", problem);
                }
            }
        }
        match &inspection.position {
            None => {}
            Some(Err(problem)) => self.problem("position", problem),
            Some(Ok(position)) => {
                let ago = span(position.stored_seconds_ago);
                let end = if position.is_released { "after an orderly stop" } else { "no orderly stop since" };
                self.line("position", &format!("{}, stored {ago} ago, {end}", position.lsn));
            }
        }
        match &inspection.publication {
            None => {}
            Some(Err(problem)) => self.problem("publication", problem),
            Some(Ok(tables)) => {
                let name = report.publication.as_deref().unwrap_or_default();
                self.line("publication", &format!("{name}: exists, {}", many(*tables, "table")));
            }
        }
        match &inspection.unpublished {
            None => {}
            Some(Err(problem)) => self.problem("unpublished", problem),
            Some(Ok(events)) => self.line("unpublished", &many(*events, "event")),
        }
        if !self.has_problem {
            self.next(Some(&invocation::complete("start it with `walrelay run`")));
        }
    }

    fn slot(&mut self, name: &str, slot: &SlotView) {
        let pid = slot.active_pid.map(|pid| format!("PID {pid}"));
        let holder = slot.holder.as_deref().filter(|holder| !holder.is_empty()).map(|holder| format!("{holder:?}"));
        let by: Vec<String> = holder.into_iter().chain(pid).collect();
        let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
        let held = if slot.active { format!("in use{by}") } else { "not in use".to_owned() };
        let word = slot.wal_status.as_deref().unwrap_or("unknown");
        let reason = slot.invalidation_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        self.line("slot", &format!("{name}: {held}, wal_status {word}{reason}"));
        if word == "lost" {
            return;
        }
        let growth = match slot.retained_wal_growth_bytes_per_second {
            None => String::new(),
            Some(..1.0) => ", not growing".to_owned(),
            Some(bytes) => format!(", growing by {} per second", size(rounded(bytes))),
        };
        self.line("retained WAL", &format!("{}{growth}", size(slot.retained_wal_bytes)));
        let left = slot.seconds_to_invalidation;
        let safe = match slot.safe_wal_bytes.map(u64::try_from) {
            None => "no limit (max_slot_wal_keep_size)".to_owned(),
            Some(Err(_)) => "beyond the limit: the next checkpoint may invalidate the slot".to_owned(),
            Some(Ok(safe)) => {
                let left = left.map(|left| format!(", in about {}", span(left))).unwrap_or_default();
                format!("{} more may invalidate the slot{left}", size(safe))
            }
        };
        self.line("safe WAL", &safe);
    }

    /// Why a part cannot be read, with the next step.
    fn problem(&mut self, label: &str, problem: &Problem) {
        self.has_problem = true;
        self.line(label, &format!("{}: {}", problem.code, problem.text));
        self.next(problem.help.as_deref().map(invocation::complete).as_deref());
    }

    /// The next step is not wrapped: its commands can be pasted.
    fn next(&mut self, help: Option<&str>) {
        if let Some(help) = help {
            self.text.push_str(&format!("  next: {}\n", printable(help)));
        }
    }

    fn line(&mut self, label: &str, value: &str) {
        let value: String = printable(value).chars().take(MAX_CHARS).collect();
        let mut label = label;
        for part in self.value.map_or_else(|| vec![value.clone()], |width| wrapped(&value, width)) {
            self.text.push_str(&format!("{label:<LABEL$}{part}\n"));
            label = "";
        }
    }

    /// The time since an RFC 3339 time. A clock that is behind gives zero.
    fn age(&self, at: &str) -> Option<String> {
        let at = humantime::parse_rfc3339(at).ok()?;
        Some(span(self.now.duration_since(at).unwrap_or_default().as_secs_f64()))
    }
}

/// Breaks a text at spaces, and a word that is too long anywhere.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                line.extend(std::iter::repeat_n(' ', gap).chain(word));
                break;
            }
            if used == 0 {
                let rest = word.split_off(width);
                line.extend(word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

fn many(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

fn rounded(value: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(value).map_or(u64::MAX, |value| value.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_age_is_never_negative_and_foreign_text_does_not_move_the_cursor() {
        let mut screen =
            Screen { text: String::new(), value: Some(MIN_VALUE), now: SystemTime::UNIX_EPOCH, has_problem: false };
        assert_eq!(screen.age("1970-01-01T00:00:09Z").as_deref(), Some("0 s"));
        assert_eq!(screen.age("yesterday"), None);
        screen.line("x", "a\u{1b}[2Jb\nc");
        assert_eq!(screen.text, "x            a [2Jb c\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_and_no_character_is_lost(text in "[a-z ]{0,120}", width in 1_usize..50) {
            let lines = wrapped(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            let visible = |text: &str| text.chars().filter(|each| *each != ' ').collect::<String>();
            prop_assert_eq!(visible(&lines.concat()), visible(&text));
        }
    }
}
