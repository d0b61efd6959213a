//! The one way to standard output and standard error. A reader that has gone away ends the program quietly.

use std::io;
use std::io::IsTerminal as _;
use std::io::Write;

use clap::ValueEnum;

use super::invocation;

/// The format of data on standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// Text for people
    Human,
    /// JSON for programs
    Json,
}

/// When output is in color.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    /// Also into pipes and files
    Always,
    /// Plain text everywhere
    Never,
}

/// Standard output for data, standard error for everything else.
pub(super) struct Output {
    out: io::Stdout,
    notes: io::Stderr,
    is_colored: bool,
    /// A terminal that can be cleared.
    is_terminal: bool,
}

impl Output {
    pub(super) fn new(color: Color) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb;
        let is_colored = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && !is_plain,
        };
        let is_terminal = io::stdout().is_terminal() && !is_dumb;
        Self { out: io::stdout(), notes: io::stderr(), is_colored, is_terminal }
    }

    /// Whether a person watches, in color.
    pub(super) const fn is_colored(&self) -> bool {
        self.is_colored
    }

    /// Whether standard output is a terminal that can be cleared.
    pub(super) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The width for text: that of `COLUMNS`, else that of the terminal. A pipe has none.
    pub(super) fn width(&self) -> Option<usize> {
        let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let found = || terminal_size::terminal_size_of(&self.out).map(|(width, _)| usize::from(width.0));
        given.or_else(found).filter(|width| *width > 0)
    }

    /// Writes a line of data.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(&format!("{text}\n"))
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a note beside the data. If standard error is closed, nobody reads it.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "{text}");
    }

    /// Writes a question, which is answered on the same line.
    pub(super) fn ask(&mut self, question: &str) {
        let _ = write!(self.notes, "{question}");
    }

    /// Writes the next step. Its commands can be pasted.
    pub(super) fn hint(&mut self, text: &str) {
        self.note(&invocation::complete(text));
    }

    pub(super) fn both(&mut self) -> (&mut dyn Write, &mut dyn Write) {
        (&mut self.out, &mut self.notes)
    }
}
