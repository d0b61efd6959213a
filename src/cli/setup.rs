//! `walrelay setup`: prints the SQL that must have been run before `run`, or runs it.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::relay;
use crate::relay::setup;
use crate::relay::setup::SetupOptions;

use super::output::Output;
use super::report::Failed;
use super::signals;

/// Prints the SQL; with a token runs it, until the token is cancelled.
pub(super) fn setup(
    loaded: &Loaded,
    options: &SetupOptions,
    applies: Option<CancellationToken>,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    let Some(stop) = applies else {
        output.text(&setup::script(&settings, options).map_err(Failed::new)?)?;
        output.hint("nothing was changed: run this SQL, or `walrelay setup --apply`");
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    let applied = runtime.block_on(async {
        let mut tell = |step: &str| output.note(&format!("* {step}"));
        let work = setup::apply(&settings, options, &mut tell);
        tokio::select! {
            applied = Box::pin(work) => Some(applied),
            // A slot that is being created is dropped by the server when its connection ends.
            () = stop.cancelled() => None,
        }
    });
    match applied {
        Some(applied) => applied.map_err(Failed::new)?,
        None => {
            output.note("interrupted: what was done stays, run it again to finish");
            return Ok(ExitCode::from(signals::INTERRUPTED));
        }
    }
    output.hint("ready for `walrelay run`");
    Ok(ExitCode::SUCCESS)
}
