//! `walrelay check`: the doctor, on standard output.

mod human;
mod json;

use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::relay;
use crate::relay::check::Report;
use crate::relay::check::Status;

use super::output::Format;
use super::output::Output;
use super::report::Failed;
use super::wrap::width;

/// The pause between two checks while waiting.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for a client of Kafka that hangs.
const LEAVE: Duration = Duration::from_millis(10);

pub(super) struct CheckOptions {
    /// For how long it is repeated until everything passes.
    pub(super) wait: Duration,
    pub(super) is_strict: bool,
    pub(super) format: Format,
}

/// Checks, once or until everything passes, and prints the last result.
pub(super) fn check(loaded: &Loaded, options: &CheckOptions, output: &mut Output) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    let (began, runtime) = (Instant::now(), runtime()?);
    let mut noted = String::new();
    let report = loop {
        let report = runtime.block_on(relay::check::check(&settings, &loaded.warnings));
        if report.has_passed(options.is_strict) || began.elapsed() + INTERVAL > options.wait {
            break report;
        }
        let waiting = waiting(&report, options.is_strict);
        if waiting != noted {
            output.note(&waiting);
            noted = waiting;
        }
        std::thread::sleep(INTERVAL);
    };
    runtime.shutdown_timeout(LEAVE);
    let has_passed = report.has_passed(options.is_strict);
    match options.format {
        Format::Json => output.line(&json::text(&report, has_passed))?,
        Format::Human => output.text(&human::text(&report, width(), output.is_colored()))?,
    }
    Ok(ExitCode::from(u8::from(!has_passed)))
}

/// Checks once; none if it was stopped.
pub(super) fn look(loaded: &Loaded, stop: &CancellationToken) -> Result<Option<Report>, Failed> {
    let settings = loaded.config.relay_settings();
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = Box::pin(relay::check::check(&settings, &loaded.warnings)) => Some(report),
            () = stop.cancelled() => None,
        }
    });
    runtime.shutdown_timeout(LEAVE);
    Ok(report)
}

fn runtime() -> Result<Runtime, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(relay::Error::Thread).map_err(Failed::new)
}

/// Says what has not passed yet.
fn waiting(report: &Report, is_strict: bool) -> String {
    let least = if is_strict { Status::Warned } else { Status::Failed };
    let open = report.checks().filter(|check| check.status() >= least);
    format!("waiting for {}", open.map(relay::check::Check::title).collect::<Vec<_>>().join(", "))
}
