//! The one way to standard output and standard error. A reader that has gone away ends the program quietly.

use std::io;
use std::io::IsTerminal as _;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::args::Color;

/// Standard output for data, standard error for everything else.
pub(super) struct Output {
    out: io::Stdout,
    notes: io::Stderr,
    is_coloured: bool,
    /// The configuration file that was named, for commands that are told.
    file: Option<PathBuf>,
}

impl Output {
    pub(super) fn new(color: Color, file: Option<PathBuf>) -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_coloured = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && !is_plain,
        };
        Self { out: io::stdout(), notes: io::stderr(), is_coloured, file }
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

    /// Tells the next step. A command in it is one that can be run as it stands: with the file that this one was given. What
    /// was `--set` is not repeated, since it may be a secret.
    pub(super) fn hint(&mut self, text: &str) {
        let with_file = self.file.as_deref().map(|file| with_file(text, file));
        self.note(with_file.as_deref().unwrap_or(text));
    }

    /// Gives both streams.
    pub(super) fn both(&mut self) -> (&mut dyn Write, &mut dyn Write) {
        (&mut self.out, &mut self.notes)
    }
}

/// Names a file in the commands of a text, quoted for a shell where it must be.
fn with_file(text: &str, file: &Path) -> String {
    let file = file.display().to_string();
    let is_plain = file.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-+:@%,".contains(letter));
    let file = if is_plain { file } else { format!("'{}'", file.replace('\'', "'\\''")) };
    text.replace("`walrelay ", &format!("`walrelay --config {file} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_hint_names_the_file_that_was_given() {
        let hint = "run `walrelay setup --apply`, then `walrelay run`; see walrelay setup";
        assert_eq!(
            with_file(hint, Path::new("/etc/w/a.toml")),
            "run `walrelay --config /etc/w/a.toml setup --apply`, then `walrelay --config /etc/w/a.toml run`; see walrelay setup"
        );
        assert!(with_file(hint, Path::new("it's mine.toml")).contains(r"--config 'it'\''s mine.toml' setup"));
    }
}
