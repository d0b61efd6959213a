//! A mistake in the configuration: its position, the error, and what is allowed.

use std::fmt;

use crate::log;
use crate::secret;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

use super::origin::Origin;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    origin: Option<Origin>,
    text: String,
}

impl Mistake {
    pub(super) const fn new(origin: Origin, text: String) -> Self {
        Self { origin: Some(origin), text }
    }

    pub(super) const fn plain(text: String) -> Self {
        Self { origin: None, text }
    }

    /// Gives it in one line, without the excerpt of the file.
    #[must_use]
    pub fn brief(&self) -> String {
        let origin = self.origin.as_ref().map_or_else(String::new, |origin| format!("{origin}: "));
        origin + &self.text
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        let Some(origin) = &self.origin else { return Ok(()) };
        if let Origin::File { line, column, excerpt, width, .. } = origin {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let before = " ".repeat(column.saturating_sub(1));
            if secret::may_be_in(excerpt) {
                let name = excerpt.split_once('=').map_or("", |(name, _)| name.trim_end());
                return write!(f, "\n  {number} | {name} = (not shown: it may be secret)");
            }
            write!(f, "\n  {number} | {excerpt}\n  {gutter} | {before}{}", "^".repeat((*width).max(1)))?;
        }
        Ok(())
    }
}

/// All mistakes of a configuration; never none.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct Mistakes {
    mistakes: Vec<Mistake>,
    /// The options of `[log]` that could be read.
    log: log::Config,
}

impl Mistakes {
    pub(super) const fn new(mistakes: Vec<Mistake>, log: log::Config) -> Self {
        Self { mistakes, log }
    }

    /// Gives each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter()
    }

    /// Gives their number as a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = self.mistakes.len();
        format!("{count} mistake{} in the configuration", if count == 1 { "" } else { "s" })
    }

    /// Gives the `[log]` options that could be read, and the defaults of the others.
    #[must_use]
    pub const fn log(&self) -> &log::Config {
        &self.log
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n{mistake}"))
    }
}

impl Diagnose for Mistakes {
    fn code(&self) -> Code {
        Code::new(Exit::Configuration, 1)
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        Some(
            "correct them and run `walrelay config validate`; config.toml in the repository shows every option"
                .to_owned(),
        )
    }
}

/// The same for an option that may be a secret, without its value.
pub(super) fn describe_without_value(error: &str) -> String {
    let message = describe(error);
    if message.starts_with("unknown option") || message.starts_with("missing field") {
        return message;
    }
    "invalid value (not shown: it may be secret); a password is { env = \"NAME\" } or { file = \"PATH\" }".to_owned()
}

/// Converts an error of serde: adds the nearest known name, or what is allowed.
pub(super) fn describe(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    let Some((what, expected)) = first.split_once(", expected ") else { return first.to_owned() };
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let found = what.split('`').nth(1).unwrap_or_default();
    let nearest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, found), *name))
        .filter(|(distance, _)| *distance <= 1 + found.len() / 3)
        .min();
    let what = what.replace("unknown field", "unknown option").replace("unknown variant", "unknown value");
    match nearest {
        Some((_, name)) => format!("{what}, did you mean `{name}`?"),
        None if what.starts_with("unknown") => format!("{what}; known are {}", names.join(", ")),
        None => format!("{what}, expected {expected}"),
    }
}
