//! `walrelay man`: manual pages in roff, made of the command line itself.
//!
//! Each command has a page of its own, which lists its options and names the pages below it. The first page also has
//! the files, the environment, the signals and the exit codes.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use clap::Command;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::explain;

use super::args::Args;
use super::output::Output;
use super::report::Failed;

/// The exit code for a command that does not exist: the command line is invalid.
const USAGE: u8 = 2;

/// What the first page has besides its options: section, then names with their meaning.
const SECTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "FILES",
        &[
            ("./config.toml", "The configuration, unless --config names another file."),
            ("/etc/walrelay/config.toml", "The configuration, if the current folder has none."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("WALRELAY_CONFIG", "The configuration file."),
            (
                "WALRELAY_SECTION__KEY",
                "An option, such as WALRELAY_POSTGRES__URL. It overrides the file, and --set overrides both.",
            ),
            ("PGHOST, PGUSER, PGPASSWORD, ...", "As for libpq, where postgres.url says nothing else."),
            ("NO_COLOR", "If it is set, nothing is printed in color."),
            ("COLUMNS", "The width of lines, instead of that of the terminal."),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "walrelay run reads no further events, waits until Kafka has acknowledged those in flight, confirms \
                 them and ends with 0. A second signal ends it at once; nothing is lost, and events may be repeated.",
            ),
            ("SIGHUP", "Ends walrelay run if its terminal closes. Otherwise it is ignored."),
        ],
    ),
];

/// Prints the page of walrelay, or that of a command.
pub(super) fn man(command: &[String], output: &mut Output) -> Result<ExitCode, Failed> {
    let mut root = Args::command().disable_help_subcommand(true);
    root.build();
    let mut found = &root;
    for name in command {
        let Some(next) = found.find_subcommand(name) else {
            output.note(&format!("error: there is no command {:?}", command.join(" ")));
            output.hint("  next: run `walrelay --help` for the list of all commands");
            return Ok(ExitCode::from(USAGE));
        };
        found = next;
    }
    output.text(&page(found, command.is_empty())?)?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command, is_first: bool) -> io::Result<String> {
    let man = Man::new(command.clone()).manual("walrelay").source(concat!("walrelay ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if is_first {
        for (title, entries) in SECTIONS {
            section(title, entries.iter().copied(), &mut page);
        }
        let mut exits: Vec<(u16, &str)> = explain::exits().collect();
        exits.extend([(0, "the command did what was asked"), (2, "the command line is invalid")]);
        exits.sort_unstable();
        let exits: Vec<(String, &str)> = exits.iter().map(|(code, meaning)| (code.to_string(), *meaning)).collect();
        section("EXIT STATUS", exits.iter().map(|(code, meaning)| (code.as_str(), *meaning)), &mut page);
        section("SEE ALSO", [("walrelay explain", "What an error code such as WR-6601 means.")], &mut page);
    }
    Ok(page)
}

/// Adds a section of names and meanings.
fn section<'e>(title: &str, entries: impl IntoIterator<Item = (&'e str, &'e str)>, page: &mut String) {
    let _ = writeln!(page, ".SH \"{title}\"");
    for (name, meaning) in entries {
        let _ = writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(name), escaped(meaning));
    }
}

/// A line of roff must not begin with a dot, and a hyphen stays one when it is copied.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_file_is_no_request_of_roff() {
        assert_eq!(escaped("./config.toml"), "\\&./config.toml");
        assert_eq!(escaped("--config a\\b"), "\\-\\-config a\\eb");
    }

    #[test]
    fn every_command_has_a_page_with_all_of_its_options() {
        let mut root = Args::command().disable_help_subcommand(true);
        root.build();
        let mut open = vec![&root];
        while let Some(command) = open.pop() {
            let page = page(command, false).unwrap();
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{option} in {page}");
            }
            open.extend(command.get_subcommands());
        }
    }
}
