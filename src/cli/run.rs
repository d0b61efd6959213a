//! `walrelay run`: from the configuration to the last confirmed position.
//!
//! All output is log records: also the last line, and each mistake in the configuration.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;
use crate::config::Loaded;
use crate::config::Mistakes;
use crate::metrics::Sources;
use crate::relay;
use crate::relay::Metrics;
use crate::relay::Mode;
use crate::relay::State;
use crate::relay::check::Finding;
use crate::relay::check::Status;
use crate::relay::postgres::Target;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::chain;

use super::check;
use super::invocation;
use super::report::Failed;
use super::systemd;
use crate::log;

/// Relays until a signal, or until an error that a person must fix.
pub(super) fn run(
    loaded: Result<Loaded, Mistakes>,
    is_checked: bool,
    stop: CancellationToken,
) -> Result<ExitCode, Failed> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => return refuse(&mistakes),
    };
    let guard = log::start(&loaded.config.log).map_err(Failed::new)?;
    for warning in &loaded.warnings {
        tracing::warn!(warning, "the configuration has a weakness");
    }
    if is_checked && let Some(code) = check(&loaded, &stop)? {
        return Ok(code);
    }
    let ended = relay(loaded.config, stop, &guard);
    let code = match &ended {
        Ok(()) => {
            tracing::info!("stopped, all records acknowledged");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(code = %error.code(), error = chain(&**error), next = error.help(), "stopped by an error");
            ExitCode::from(error.code().exit() as u8)
        }
    };
    drop(guard);
    Ok(code)
}

/// Logs each mistake in the configured format, if that could be read.
fn refuse(mistakes: &Mistakes) -> Result<ExitCode, Failed> {
    let guard = log::start(mistakes.log()).map_err(Failed::new)?;
    let code = mistakes.code();
    for mistake in mistakes.iter() {
        tracing::error!(%code, mistake = mistake.brief(), "the configuration cannot be used");
    }
    let count = mistakes.iter().count();
    tracing::error!(%code, error = mistakes.summary(), mistakes = count, next = mistakes.help(), "stopped by an error");
    drop(guard);
    Ok(ExitCode::from(code.exit() as u8))
}

/// Checks everything first. Gives the exit code if the relay must not start.
fn check(loaded: &Loaded, stop: &CancellationToken) -> Result<Option<ExitCode>, Failed> {
    let Some(report) = check::look(loaded, stop)? else {
        tracing::info!("stopped before the check was over");
        return Ok(Some(ExitCode::SUCCESS));
    };
    for check in report.checks() {
        let title = check.title();
        for Finding { is_warning, code, what, next } in check.findings() {
            if *is_warning {
                tracing::warn!(check = title, %code, error = what, next, "check warns");
            } else {
                tracing::error!(check = title, %code, error = what, next, "check failed");
            }
        }
    }
    let Some(first) = report.first_failure() else {
        tracing::info!(checks = report.checks().count(), "check passed");
        return Ok(None);
    };
    let error = format!("{} of {} checks failed", report.count(Status::Failed), report.checks().count());
    tracing::error!(code = %first.code, error, next = "`walrelay check` shows all of them", "stopped by an error");
    Ok(Some(ExitCode::from(first.code.exit() as u8)))
}

fn relay(config: Config, stop: CancellationToken, guard: &log::Guard) -> Result<(), Box<dyn Diagnose>> {
    let metrics = Metrics::default();
    // From now on the state has an age.
    metrics.enter(State::Starting);
    let mut sources = match config.source.mode {
        Mode::Wal => Sources::new(&config.relay.name, &config.source.slot, &config.source.publication, metrics.clone()),
        Mode::Poll => Sources::of_polling(&config.relay.name, metrics.clone()),
    };
    // A bad connection string stops the relay with its own error.
    sources.database = Target::resolve(&config.postgres.url).ok().map(|target| target.database_on_servers());
    sources.brokers.clone_from(&config.kafka.brokers);
    sources.with_producer = config.kafka.metrics;
    sources.log_dropped = guard.dropped();
    sources.log_suppressed = guard.suppressed();
    sources.complete_help = invocation::complete;
    let admin = admin::start(&config.http, Arc::new(sources)).map_err(boxed)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        librdkafka = rdkafka::util::get_rdkafka_version().1,
        openssl = openssl::version::version(),
        http = %admin.address(),
        "walrelay starts"
    );
    if config.source.mode == Mode::Wal && !config.source.store_position {
        tracing::warn!(
            "source.store_position is off: after a crash of PostgreSQL events may be repeated since the server last \
             saved the slot, and a slot that somebody else moved is not noticed"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(relay::Error::Thread).map_err(boxed)?;
    let notifier = systemd::notify(&metrics, &stop).map_err(relay::Error::Thread).map_err(boxed)?;
    let settings = config.relay_settings();
    let ended = runtime.block_on(Box::pin(relay::run(settings, metrics.clone(), stop)));
    // A probe of the brokers may still run on its thread. The process does not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(10));
    if let Err(error) = &ended {
        metrics.failed(error.component(), error);
    }
    drop((notifier, admin));
    ended.map_err(boxed)
}

fn boxed(error: impl Diagnose + 'static) -> Box<dyn Diagnose> {
    Box::new(error)
}
