//! `walrelay setup`: compares the server with what `run` depends on and prints the SQL for the rest, or runs it.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::relay;
use crate::relay::setup;
use crate::relay::setup::Change;
use crate::relay::setup::Difference;
use crate::relay::setup::SetupOptions;
use crate::relay::setup::TopicOptions;
use crate::shell::word;
use crate::units::Secret;

use super::output::Output;
use super::report::Failed;
use super::signals;
use super::wrap::printable;

/// The variable with the administrator's URL, which no list of processes shows.
const ADMIN_URL: &str = "WALRELAY_ADMIN_URL";

/// The arguments of `setup`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SetupArgs {
    /// Run the SQL instead of printing it; safe to repeat
    #[arg(long)]
    pub(super) apply: bool,
    /// Create the outbox tables as well
    #[arg(long)]
    with_outbox: bool,
    /// Grant this role the privileges that `run` needs [default with --admin-url: the role of postgres.url]
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Grant this role of the application the privilege to insert events
    #[arg(long, value_name = "NAME")]
    app_role: Option<String>,
    /// Connect as an administrator; the configuration keeps the relay's own role
    #[arg(long, value_name = "URL", env = ADMIN_URL, hide_env_values = true, value_parser = secret)]
    admin_url: Option<Secret>,
    /// Create the missing topics that the configuration names as well
    #[arg(long)]
    with_topics: bool,
    /// Partitions of new topics [default: 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of new topics [default: one for each broker, at most 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=i64::from(i16::MAX)))]
    replication_factor: Option<i32>,
    /// Replicas that must have a record before it is acknowledged [default: 2 of 3, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=i64::from(i16::MAX)))]
    min_insync_replicas: Option<i32>,
    /// Print all SQL without a server to compare it with
    #[arg(long, conflicts_with = "apply")]
    offline: bool,
    /// Start at the slot's position even if events before it may be missing in Kafka
    #[arg(long, requires = "apply")]
    accept_gap: bool,
}

impl SetupArgs {
    fn options(&self) -> SetupOptions {
        SetupOptions {
            with_outbox: self.with_outbox,
            role: self.role.clone(),
            app_role: self.app_role.clone(),
            admin_url: self.admin_url.clone(),
            topics: TopicOptions {
                with_topics: self.with_topics,
                partitions: self.partitions,
                replication_factor: self.replication_factor,
                min_insync_replicas: self.min_insync_replicas,
            },
            accept_gap: self.accept_gap,
        }
    }

    /// Gives the words of the same call, without the URL, which may contain a password.
    fn words(&self) -> String {
        let named = |option: &str, name: Option<&String>| {
            name.map(|name| format!(" {option} {}", word(name))).unwrap_or_default()
        };
        let number =
            |option: &str, number: Option<i32>| number.map(|number| format!(" {option} {number}")).unwrap_or_default();
        [
            if self.with_outbox { " --with-outbox" } else { "" }.to_owned(),
            named("--role", self.role.as_ref()),
            named("--app-role", self.app_role.as_ref()),
            if self.with_topics { " --with-topics" } else { "" }.to_owned(),
            number("--partitions", self.partitions),
            number("--replication-factor", self.replication_factor),
            number("--min-insync-replicas", self.min_insync_replicas),
        ]
        .concat()
    }
}

/// Takes the URL as a secret.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a parser of arguments")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Prints what is missing, or runs it until the token is cancelled.
pub(super) fn setup(
    loaded: &Loaded,
    args: &SetupArgs,
    stop: &CancellationToken,
    output: &mut Output,
) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    let options = args.options();
    if args.offline {
        let difference = setup::everything(&settings, &options).map_err(Failed::new)?;
        return print(&difference, args, output);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(relay::Error::Thread);
    let runtime = runtime.map_err(Failed::new)?;
    if !args.apply {
        let difference = runtime.block_on(setup::compare(&settings, &options)).map_err(Failed::new)?;
        return print(&difference, args, output);
    }
    let applied = runtime.block_on(async {
        let mut note = |step: &str| output.hint(&format!("* {step}"));
        let work = setup::apply(&settings, &options, &mut note);
        tokio::select! {
            applied = Box::pin(work) => Some(applied),
            // A slot that is being created is dropped by the server when its connection ends.
            () = stop.cancelled() => None,
        }
    });
    match applied {
        Some(applied) => applied.map_err(Failed::new)?,
        None => {
            output.note("interrupted; run it again to finish");
            return Ok(ExitCode::from(signals::INTERRUPTED));
        }
    }
    output.hint("ready for `walrelay run`");
    Ok(ExitCode::SUCCESS)
}

/// Prints the SQL, and beside it what is there and what is missing.
fn print(difference: &Difference, args: &SetupArgs, output: &mut Output) -> Result<ExitCode, Failed> {
    if let Some(server) = &difference.server {
        output.note(&printable(server));
    }
    for existing in &difference.existing {
        output.note(&printable(&format!("* {existing}")));
    }
    for unseen in &difference.unseen {
        output.note(&printable(&format!("? {unseen}")));
    }
    let all = difference.changes.len();
    if all == 0 && difference.unseen.is_empty() {
        output.hint("nothing to do: ready for `walrelay run`");
        return Ok(ExitCode::SUCCESS);
    }
    if all == 0 {
        output.note("nothing is missing as far as it was compared: run `walrelay check` as the relay's role");
        return Ok(ExitCode::SUCCESS);
    }
    for Change { what, .. } in &difference.changes {
        output.note(&printable(&format!("+ {what}")));
    }
    output.text(&difference.script())?;
    let denied: Vec<&Change> = difference.changes.iter().filter(|change| change.is_denied()).collect();
    if let Some(first) = denied.first() {
        let (count, first, runner) = (denied.len(), &first.what, first.runner());
        output.note(&printable(&format!(
            "this role cannot do {count} of these {all}: to {first} takes {runner}. Run the SQL as such a role, or set \
             --admin-url"
        )));
    }
    let by_hand = difference.changes.iter().filter(|change| change.is_by_hand).count();
    if by_hand > 0 {
        output.note(&format!(
            "nothing was changed: {by_hand} of these {all} are left to you, as comments in the SQL. Make them, then \
             run setup again"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let is_in_environment = std::env::var_os(ADMIN_URL).is_some();
    let admin = if args.admin_url.is_some() && !is_in_environment { " with the same --admin-url" } else { "" };
    output.hint(&format!("nothing was changed: run this SQL, or `walrelay setup --apply{}`{admin}", args.words()));
    Ok(ExitCode::SUCCESS)
}
