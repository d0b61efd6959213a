//! `walrelay status`: how the relay is, on one screen.
//!
//! A relay that runs is asked at its own endpoint. One that does not run cannot say anything, so PostgreSQL is asked
//! what it knows: the slot, the retained WAL, the stored position and the publication. Nothing is changed.

mod daemon;
mod report;
mod screen;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use tokio::runtime::Runtime;

use crate::config::Config;
use crate::config::Loaded;
use crate::relay;
use crate::relay::Mode;
use crate::relay::inspect::Inspector;

use super::output::Format;
use super::output::Output;
use super::report::Failed;

use report::Expected;
use report::Found;
use report::Report;
use screen::screen;

/// Clears the terminal, and what has scrolled out of it.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// How long the end waits for a resolver of names that does not answer.
const LEAVE: Duration = Duration::from_millis(10);

/// What is observed, again and again with `--watch`.
struct Observer {
    config: Config,
    inspector: Inspector,
    runtime: Runtime,
}

/// Prints the status once, or at each interval until a signal. 0 is returned only if the relay runs and is well.
pub(super) fn status(
    loaded: &Loaded,
    format: Format,
    watch: Option<Duration>,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let config = loaded.config.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    let mut observer = Observer { inspector: Inspector::new(config.relay_settings()), config, runtime };
    let shown = show(&mut observer, format, watch, output);
    observer.runtime.shutdown_timeout(LEAVE);
    shown
}

fn show(
    observer: &mut Observer,
    format: Format,
    watch: Option<Duration>,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    loop {
        let report = observer.observe();
        let text = match format {
            Format::Json => format!("{}\n", report.to_json()),
            Format::Human => screen(&report, output.width(), SystemTime::now()),
        };
        let Some(interval) = watch else {
            output.text(&text)?;
            return Ok(ExitCode::from(u8::from(!report.is_well())));
        };
        output.text(&match format {
            Format::Human if output.is_terminal() => format!("{CLEAR}{text}"),
            Format::Human => format!("{text}\n"),
            Format::Json => text,
        })?;
        thread::sleep(interval);
    }
}

impl Observer {
    fn observe(&mut self) -> Report {
        let Config { relay, source, http, .. } = &self.config;
        let slot = (source.mode == Mode::Wal).then_some(source.slot.as_str());
        let expected = Expected { name: &relay.name, slot, warn_before_invalidation: source.warn_before_invalidation };
        let (found, reasons) = match daemon::ask(http.listen) {
            Ok((daemon, answer)) => {
                let reasons = report::reasons(&daemon, &expected);
                (Found::Running(Box::new(daemon), answer), reasons)
            }
            Err(why) => {
                let postgres = self.runtime.block_on(Box::pin(self.inspector.look())).map(Box::new);
                let reasons = report::reasons_of_stopped(&postgres, &expected);
                (Found::Stopped { why, postgres }, reasons)
            }
        };
        Report {
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            name: relay.name.clone(),
            slot: slot.map(str::to_owned),
            publication: slot.map(|_| source.publication.clone()),
            address: http.listen.to_string(),
            found,
            reasons,
        }
    }
}
