//! `walrelay config init`: writes the first configuration file, and never over another one.
//!
//! The text is checked before anything is written, so that what is written has no mistakes.

mod args;
mod error;

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config;
use crate::config::Config;
use crate::config::Mistake;
use crate::config::Sources;

use super::output::Output;
use super::report::Failed;
use super::wrap::printable;

pub(super) use args::InitArgs;
use error::Error;

/// Where the file is written, if --config names no other place: where every verb looks first.
const FILE: &str = "config.toml";

/// Where every verb looks next.
const SHARED: &str = "/etc/walrelay/config.toml";

/// Writes the file, or prints its text.
pub(super) fn init(args: &InitArgs, sources: &Sources, output: &mut Output) -> Result<ExitCode, Failed> {
    let path = sources.file.clone().unwrap_or_else(|| PathBuf::from(FILE));
    args.refuse_password().map_err(Failed::new)?;
    let config = args.config(&path);
    let text = config::starter(&config);
    let warnings = config::check_text(&path, &text).map_err(|mistakes| {
        Failed::new(Error::Options(mistakes.iter().map(Mistake::text).collect::<Vec<_>>().join("; ")))
    })?;
    if args.print {
        output.text(&text)?;
    } else {
        write(&path, &text).map_err(|error| Failed::new(Error::of_file(&path, args.words(), error)))?;
        output.note(&printable(&format!("wrote {}", path.display())));
    }
    for warning in warnings {
        output.note(&printable(&format!("warning: {warning}")));
    }
    if !sources.sets.is_empty() {
        output.note("warning: --set is not part of the file: repeat it with each command, or write it into the file");
    }
    for (name, _) in sources.variables.iter().filter(|(name, _)| name.contains("__")) {
        output.note(&printable(&format!("warning: {name} is set, and has precedence over the file")));
    }
    if !args.print {
        if sources.file.is_none() && Path::new(SHARED).exists() {
            output.note(&format!("warning: {SHARED} exists; in this folder {FILE} is used instead"));
        }
        say_next(&config, args.names_table(), output);
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates the file with its whole text, or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Prints the two commands that lead to the first event.
fn say_next(config: &Config, names_table: bool, output: &mut Output) {
    let is_name = |topic: &String| !topic.contains('{');
    let is_named = config.outbox.iter().all(|outbox| outbox.topic.as_ref().is_some_and(is_name));
    let with_topics = if is_named { " --with-topics" } else { "" };
    // A table that was named exists, as a rule: with a mistyped name setup would create an empty one.
    let with_outbox = if names_table { "" } else { " --with-outbox" };
    output.hint(&format!("  next: run `walrelay setup --apply{with_outbox}{with_topics}`, then `walrelay run`"));
    if names_table {
        output.note("  add --with-outbox if the table does not exist yet");
    }
    output.note(
        "  setup connects as the role of postgres.url; if that may not create tables and slots, add --admin-url URL",
    );
    output.note("  add --app-role NAME if another role than the owner of the table writes the events");
    if !is_named {
        output.note(
            "  the rows name the topics: create them before the first event, or name one topic in the file and let \
             setup --with-topics create it",
        );
    }
}
