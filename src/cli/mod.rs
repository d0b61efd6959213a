//! The command line: one file per verb.
//!
//! Data goes to standard output, everything else to standard error. Each failure prints its code, what happened and the
//! next step, and ends with the exit code of its group.

mod args;
mod check;
mod closed;
pub mod demo;
mod dlq;
mod explain;
mod foreign;
pub mod healthcheck;
mod http;
mod init;
mod invocation;
mod man;
mod output;
mod panics;
mod peek;
mod report;
mod run;
mod setup;
mod signals;
mod status;
mod systemd;
mod tail;
mod teardown;
mod version;
mod wrap;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config;
use crate::config::Loaded;
use crate::config::Mistakes;
use crate::config::Sources;
use crate::log;
use crate::relay;
use walrelay_events::fault::Exit;

use args::Args;
use args::ConfigVerb;
use args::Verb;
use output::Format;
use output::Output;
use peek::PeekOptions;
use report::Failed;
use signals::Signals;
use teardown::TeardownOptions;

/// Parses the arguments and runs their verb.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything else: a signal in the first moments counts.
    let signals = Signals::install();
    panics::end_the_process();
    let args = Args::parse();
    invocation::remember(args.config.as_deref(), &args.set);
    log::complete_with(invocation::complete);
    let mut output = Output::new(args.color);
    match signals.map_err(no_thread).and_then(|signals| dispatch(args, signals, &mut output)) {
        Ok(code) => code,
        Err(failed) => failed.report(&mut output),
    }
}

fn dispatch(args: Args, signals: Signals, output: &mut Output) -> Result<ExitCode, Failed> {
    let sources = Sources::of_process(args.config.clone(), args.set.clone());
    let signals = match &args.verb {
        Verb::Run { .. } => signals.drain(Exit::DrainTimeout as i32),
        Verb::Setup(args) if args.apply => signals.interrupt(),
        Verb::Demo { .. } => signals.interrupt(),
        Verb::Dlq { verb } if verb.writes() => signals.interrupt(),
        Verb::Check { .. }
        | Verb::Setup(_)
        | Verb::Teardown { .. }
        | Verb::Config { .. }
        | Verb::Dlq { .. }
        | Verb::Healthcheck { .. }
        | Verb::Status { .. }
        | Verb::Peek { .. }
        | Verb::Explain { .. }
        | Verb::Version { .. }
        | Verb::Man { .. }
        | Verb::Completions { .. } => signals.end_at_once(),
        Verb::Tail { .. } => signals.end_watching(),
    };
    let signals = signals.map_err(no_thread)?;
    match args.verb {
        // Its warnings and mistakes are log records.
        Verb::Run { check } => run::run(config::load(&sources), check, signals.stop()),
        Verb::Check { wait, strict, format } => {
            let options = check::CheckOptions { wait: wait.unwrap_or_default(), is_strict: strict, format };
            check::check(&load_quietly(&sources)?, &options, output)
        }
        Verb::Setup(args) => setup::setup(&load(&sources, output)?, &args, &signals.stop(), output),
        Verb::Teardown { yes, with_position, accept_gap } => {
            let options = TeardownOptions { with_position, is_agreed: yes, accepts_gap: accept_gap };
            teardown::teardown(&load(&sources, output)?, options, output)
        }
        Verb::Demo { orders, format } => {
            let form = if format == Format::Json { demo::Form::Json } else { demo::Form::Human };
            show_demo(demo::Options { orders, form, is_watched: output.is_colored() }, &signals.stop(), output)
        }
        Verb::Config { verb } => config_verb(verb, &sources, output),
        Verb::Dlq { verb } => dlq::dlq(*verb, &load(&sources, output)?, &signals.stop(), output),
        Verb::Peek { limit, timeout, format } => {
            peek::peek(&load(&sources, output)?, PeekOptions { limit, timeout, format }, output)
        }
        Verb::Tail { options } => tail::tail(&options, &load(&sources, output)?, output),
        Verb::Status { format, watch } => status::status(&load(&sources, output)?, format, watch, output),
        Verb::Healthcheck { address, ready } => check_health(address, ready, &sources, output),
        Verb::Explain { code, format } => explain::explain(code.as_deref(), format, output),
        Verb::Man { command } => man::man(&command, output),
        Verb::Version { format } => version::version(format, output),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut <Args as clap::CommandFactory>::command(), "walrelay", &mut text);
            output.text(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Asks a relay at the address, or at that of the configuration.
fn check_health(
    address: Option<SocketAddr>,
    is_ready: bool,
    sources: &Sources,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let configured =
        || config::load(sources).map_or_else(|_| admin::Config::default().listen, |it| it.config.http.listen);
    let probe = if is_ready { healthcheck::Probe::Ready } else { healthcheck::Probe::Live };
    let answer = healthcheck::healthcheck(address.unwrap_or_else(configured), probe);
    output.line(&answer.to_string())?;
    Ok(ExitCode::from(u8::from(!answer.is_well())))
}

/// Shows the demo until its end or a signal. Its servers stop in both cases.
fn show_demo(options: demo::Options, stop: &CancellationToken, output: &mut Output) -> Result<ExitCode, Failed> {
    let (out, notes) = output.both();
    match demo::run(options, stop, out, notes) {
        Err(error) if error.is_closed_output() => Ok(ExitCode::SUCCESS),
        // The terminal sends the signal to PostgreSQL's programs as well, so they fail because of it.
        Ok(demo::Ended::Interrupted) => Ok(ExitCode::from(signals::INTERRUPTED)),
        Err(_) if stop.is_cancelled() => Ok(ExitCode::from(signals::INTERRUPTED)),
        Ok(demo::Ended::Shown) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failed::new(error)),
    }
}

fn no_thread(error: io::Error) -> Failed {
    Failed::new(relay::Error::Thread(error))
}

fn load_quietly(sources: &Sources) -> Result<Loaded, Failed> {
    config::load(sources).map_err(Failed::new)
}

/// Loads the configuration and prints its warnings.
fn load(sources: &Sources, output: &mut Output) -> Result<Loaded, Failed> {
    loaded(config::load(sources), output)
}

/// Prints the warnings of a configuration.
fn loaded(result: Result<Loaded, Mistakes>, output: &mut Output) -> Result<Loaded, Failed> {
    let loaded = result.map_err(Failed::new)?;
    for warning in &loaded.warnings {
        output.note(&format!("warning: {warning}"));
    }
    Ok(loaded)
}

fn config_verb(verb: ConfigVerb, sources: &Sources, output: &mut Output) -> Result<ExitCode, Failed> {
    match verb {
        ConfigVerb::Init(args) => return init::init(&args, sources, output),
        ConfigVerb::Validate { without_files } => {
            let checked = if without_files { config::load(sources) } else { config::validate(sources) };
            let loaded = loaded(checked, output)?;
            let file =
                loaded.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
            output.line(&format!("{file} is valid"))?;
        }
        ConfigVerb::Show { format: Format::Json } => {
            let loaded = load(sources, output)?;
            output.line(&serde_json::to_string_pretty(&loaded.to_json()).unwrap_or_default())?;
        }
        ConfigVerb::Show { format: Format::Human } => {
            let loaded = load(sources, output)?;
            output.text(&loaded.to_toml())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
