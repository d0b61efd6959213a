//! `walrelay teardown`: drops what `setup` created, except the outbox table.
//!
//! It says first what it drops, how much WAL that frees and which events would not be delivered. A person at a terminal
//! is asked; a script gives `--yes`, and also `--accept-gap` if events would not be delivered. It looks again before
//! the first step, and refuses if that is worse. It may end at any time: each step is a transaction of its own, and the
//! next run continues. With `--yes` it deletes the position of a slot that is gone only if the gap is accepted.

mod plan;

use std::io;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::config::Loaded;
use crate::relay;
use crate::relay::Mode;
use crate::relay::teardown::Error;
use crate::relay::teardown::Plan;
use crate::relay::teardown::Teardown;

use super::output::Output;
use super::report::Failed;

/// The exit code of a command line that lacks an option.
const USAGE: u8 = 2;
/// The exit code of a person's no.
const DECLINED: u8 = 1;

/// What is dropped, and who has agreed to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TeardownOptions {
    pub(super) with_position: bool,
    pub(super) is_agreed: bool,
    pub(super) accepts_gap: bool,
}

/// What follows a plan.
#[derive(Debug)]
enum Next {
    Drop,
    Ask,
    /// Nobody can be asked.
    NeedsYes,
    Refuse(Error),
}

pub(super) fn teardown(loaded: &Loaded, options: TeardownOptions, output: &mut Output) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    if settings.source.mode == Mode::Poll {
        output.note("source.mode is \"poll\", which has no slot and no publication: nothing to drop");
        output.hint("  for those of mode \"wal\" run `walrelay --set source.mode=wal teardown`");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    let planned = runtime.block_on(Box::pin(Teardown::plan(&settings, options.with_position)));
    let planned = planned.map_err(Failed::new)?;
    let plan = planned.what();
    for line in plan::lines(plan, &settings) {
        output.hint(&line);
    }
    if plan.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    match next(plan, options, io::stdin().is_terminal() && io::stderr().is_terminal()) {
        Next::Refuse(error) => return Err(Failed::new(error)),
        Next::NeedsYes => {
            output.note("error: standard input or error is no terminal, so nobody can be asked; nothing was dropped");
            output.hint(&format!("  next: run `{}`", command(options)));
            return Ok(ExitCode::from(USAGE));
        }
        Next::Ask if !agrees(output) => {
            output.note("nothing was dropped");
            return Ok(ExitCode::from(DECLINED));
        }
        Next::Ask | Next::Drop => {}
    }
    let mut report = |step: &str| output.note(&format!("* {step}"));
    runtime.block_on(Box::pin(planned.apply(options.accepts_gap, &mut report))).map_err(Failed::new)?;
    output.hint(again(plan));
    Ok(ExitCode::SUCCESS)
}

fn next(plan: &Plan, options: TeardownOptions, is_terminal: bool) -> Next {
    match (options.is_agreed, plan::loss(&plan.undelivered)) {
        (true, Some(what)) if !options.accepts_gap => {
            Next::Refuse(Error::Undelivered { what, accepting: format!("{} --accept-gap", command(options)) })
        }
        (true, _) => Next::Drop,
        (false, _) if is_terminal => Next::Ask,
        (false, _) => Next::NeedsYes,
    }
}

/// How to set it up again.
fn again(plan: &Plan) -> &'static str {
    if plan.position.as_ref().is_none_or(|position| position.is_deleted) {
        return "to set it up again run `walrelay setup --apply`: it publishes what is committed from then on";
    }
    "to set it up again run `walrelay setup --apply --accept-gap`: it publishes what is committed from then on"
}

/// The command that asks no question. It is refused if events would not be delivered: nobody has agreed to that yet.
fn command(options: TeardownOptions) -> String {
    let position = if options.with_position { " --with-position" } else { "" };
    format!("walrelay teardown --yes{position}")
}

fn agrees(output: &mut Output) -> bool {
    output.ask("drop it? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::teardown::PublicationPlan;
    use crate::relay::teardown::Undelivered;

    fn plan(undelivered: Undelivered) -> Plan {
        Plan {
            host: "db:5432".to_owned(),
            database: "shop".to_owned(),
            slot: None,
            publication: Some(PublicationPlan::default()),
            other_slots: Vec::new(),
            position: None,
            undelivered,
        }
    }

    #[test]
    fn a_script_drops_events_only_if_it_says_so_and_a_person_is_asked() {
        let events = || Undelivered::Events { count: 3, has_more: false };
        let unknown = || Undelivered::Unknown("a timeout".to_owned());
        for (undelivered, yes, accepts_gap, is_terminal, expected) in [
            (Undelivered::Nothing, true, false, false, "Drop"),
            (Undelivered::Nothing, false, false, true, "Ask"),
            (Undelivered::Nothing, false, true, false, "NeedsYes"),
            (events(), true, false, true, "Refuse"),
            (unknown(), true, false, false, "Refuse"),
            (events(), true, true, false, "Drop"),
            (unknown(), true, true, false, "Drop"),
            (events(), false, false, true, "Ask"),
        ] {
            let options = TeardownOptions { with_position: false, is_agreed: yes, accepts_gap };
            let next = format!("{:?}", next(&plan(undelivered.clone()), options, is_terminal));
            assert!(next.starts_with(expected), "{next} for {undelivered:?}, {options:?}");
        }
    }

    #[test]
    fn the_printed_command_accepts_a_gap_only_where_the_gap_is_named() {
        let options = TeardownOptions { with_position: true, is_agreed: true, accepts_gap: false };
        assert_eq!(command(options), "walrelay teardown --yes --with-position");
        let events = plan(Undelivered::Events { count: 3, has_more: false });
        let Next::Refuse(Error::Undelivered { accepting, .. }) = next(&events, options, false) else { panic!() };
        assert_eq!(accepting, "walrelay teardown --yes --with-position --accept-gap");
    }
}
