//! The one way to standard output and standard error. A reader that has gone away ends the program quietly.

use std::io;
use std::io::IsTerminal as _;
use std::io::Write;

use clap::ValueEnum;

use super::invocation;

/// How data is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Human,
    /// For programs
    Json,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Standard output for data, standard error for everything else.
pub(super) struct Output {
    out: io::Stdout,
    notes: io::Stderr,
    is_coloured: bool,
}

impl Output {
    pub(super) fn new(color: Color) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_coloured = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && !is_plain,
        };
        Self { out: io::stdout(), notes: io::stderr(), is_coloured }
    }

    /// Says whether a person watches in colour.
    pub(super) const fn is_coloured(&self) -> bool {
        self.is_coloured
    }

    /// Writes a line of data.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(&format!("{text}\n"))
    }

    /// Writes data.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Tells something beside the data. If nobody can read it, there is nobody to tell.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "{text}");
    }

    /// Tells the next step. A command in it is one that can be run as it stands.
    pub(super) fn hint(&mut self, text: &str) {
        self.note(&invocation::complete(text));
    }

    /// Gives both streams.
    pub(super) fn both(&mut self) -> (&mut dyn Write, &mut dyn Write) {
        (&mut self.out, &mut self.notes)
    }
}
