//! The command line: one file per verb.
//!
//! Data goes to standard output, everything else to standard error. Each failure prints its code, what happened and the
//! next step, and ends with the exit code of its group.

mod args;
pub mod demo;
mod dlq;
pub mod healthcheck;
pub mod log;
mod output;
mod panics;
mod report;
mod run;
mod setup;
mod signals;
mod version;

use std::process::ExitCode;
use std::thread;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config;
use crate::config::Loaded;
use crate::config::Sources;
use crate::relay;
use crate::relay::setup::Wish;

use args::Args;
use args::ConfigVerb;
use args::Format;
use args::Verb;
use output::Output;
use report::Failed;

/// Runs the verb that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    panics::end_the_process();
    let args = Args::parse();
    let mut output = Output::new(args.color, args.config.clone());
    match dispatch(args, &mut output) {
        Ok(code) => code,
        Err(failed) => failed.tell(&mut output),
    }
}

fn dispatch(args: Args, output: &mut Output) -> Result<ExitCode, Failed> {
    let sources = Sources::of_process(args.config.clone(), args.set.clone());
    match args.verb {
        Verb::Run => run::run(load(&sources, output)?, output),
        Verb::Setup { apply, with_outbox, role, accept_gap } => {
            let wish = Wish { with_outbox, role, accept_gap };
            setup::setup(&load(&sources, output)?, &wish, apply, output)
        }
        Verb::Demo { orders, format } => {
            let form = if format == Format::Json { demo::Form::Json } else { demo::Form::Human };
            show_demo(demo::Options { orders, form, is_watched: output.is_coloured() }, output)
        }
        Verb::Config { verb } => config_verb(verb, &sources, output),
        Verb::Dlq { verb } => dlq::dlq(*verb, &load(&sources, output)?, output),
        Verb::Healthcheck { address, ready } => {
            let address = match address {
                Some(address) => address,
                // The file says where; without one the default does.
                None => {
                    config::load(&sources).map_or_else(|_| admin::Config::default().listen, |it| it.config.http.listen)
                }
            };
            let probe = if ready { healthcheck::Probe::Ready } else { healthcheck::Probe::Live };
            let answer = healthcheck::healthcheck(address, probe);
            output.line(&answer.to_string())?;
            Ok(ExitCode::from(u8::from(!answer.is_well())))
        }
        Verb::Version { format } => version::version(format, output),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut <Args as clap::CommandFactory>::command(), "walrelay", &mut text);
            output.text(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Shows the demo until its end or a signal; either way its servers are gone afterwards.
fn show_demo(options: demo::Options, output: &mut Output) -> Result<ExitCode, Failed> {
    let no_thread = |error| Failed::new(relay::Error::Thread(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
    let stop = CancellationToken::new();
    let obeyed = signals::obey(stop.clone(), i32::from(signals::INTERRUPTED));
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(obeyed)).map_err(no_thread)?;
    let (out, notes) = output.both();
    match demo::run(options, &stop, out, notes) {
        Err(error) if error.is_closed_output() => Ok(ExitCode::SUCCESS),
        // What fails after the signal fails because of it: it reaches PostgreSQL's own programs as well.
        Ok(demo::Ended::Interrupted) => Ok(ExitCode::from(signals::INTERRUPTED)),
        Err(_) if stop.is_cancelled() => Ok(ExitCode::from(signals::INTERRUPTED)),
        Ok(demo::Ended::Shown) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failed::new(error)),
    }
}

/// Loads the configuration and tells its warnings.
fn load(sources: &Sources, output: &mut Output) -> Result<Loaded, Failed> {
    let loaded = config::load(sources).map_err(Failed::new)?;
    for warning in &loaded.warnings {
        output.note(&format!("warning: {warning}"));
    }
    Ok(loaded)
}

fn config_verb(verb: ConfigVerb, sources: &Sources, output: &mut Output) -> Result<ExitCode, Failed> {
    let loaded = load(sources, output)?;
    match verb {
        ConfigVerb::Validate => {
            let file =
                loaded.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
            output.line(&format!("{file} is valid"))?;
        }
        ConfigVerb::Show { format: Format::Json } => {
            output.line(&serde_json::to_string_pretty(&loaded.to_json()).unwrap_or_default())?;
        }
        ConfigVerb::Show { format: Format::Human } => output.text(&loaded.to_toml())?,
    }
    Ok(ExitCode::SUCCESS)
}
