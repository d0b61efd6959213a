//! A mistake in the configuration: its position, the error, and what is allowed.

use std::collections::BTreeSet;
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
    excerpt: Excerpt,
}

/// How the line of a mistake is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Excerpt {
    /// Unless it looks like a secret.
    Shown,
    /// It may hold a secret, whatever it looks like. The name of its option is shown.
    Hidden,
    /// No part of it is known to be a name.
    HiddenWhole,
    /// It is not what is wrong.
    Omitted,
}

impl Mistake {
    pub(super) fn new(origin: Origin, text: String) -> Self {
        Self::at(Some(&origin), text)
    }

    pub(super) fn at(origin: Option<&Origin>, text: String) -> Self {
        Self { origin: origin.cloned(), text, excerpt: Excerpt::Shown }
    }

    pub(super) fn plain(text: String) -> Self {
        Self::at(None, text)
    }

    pub(super) fn hidden(self) -> Self {
        Self { excerpt: Excerpt::Hidden, ..self }
    }

    pub(super) fn without_line(self) -> Self {
        Self { excerpt: Excerpt::HiddenWhole, ..self }
    }

    pub(super) fn without_excerpt(self) -> Self {
        Self { excerpt: Excerpt::Omitted, ..self }
    }

    /// Says whether this is its text, whatever its place.
    pub(super) fn says(&self, text: &str) -> bool {
        self.text == text
    }

    /// Gives what is wrong, without its place.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives it in one line, without the excerpt of the file.
    #[must_use]
    pub fn brief(&self) -> String {
        let origin = self.origin.as_ref().map_or_else(String::new, |origin| format!("{origin}: "));
        origin + &self.text
    }
}

/// Sorts mistakes by their place: the file from top to bottom, the environment, `--set`. Keeps one of several that say
/// the same of the same place.
pub(super) fn sort(mistakes: &mut Vec<Mistake>) {
    mistakes.sort_by_key(|mistake| mistake.origin.as_ref().map_or((u8::MAX, 0, 0), Origin::place));
    let mut briefs = BTreeSet::new();
    mistakes.retain(|mistake| briefs.insert(mistake.brief()));
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brief())?;
        if let Some(Origin::File { line, column, excerpt, width, .. }) = &self.origin
            && self.excerpt != Excerpt::Omitted
        {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let before = " ".repeat(column.saturating_sub(1));
            if self.excerpt != Excerpt::Shown || secret::may_be_in(excerpt) {
                let name = excerpt.split_once('=').map(|(name, _)| name.trim_end()).filter(|name| is_name(name));
                let name = name.filter(|_| self.excerpt != Excerpt::HiddenWhole);
                let shown = name.map_or_else(String::new, |name| format!("{name} = "));
                return write!(f, "\n  {number} | {shown}(not shown: it may be secret)");
            }
            write!(f, "\n  {number} | {excerpt}\n  {gutter} | {before}{}", "^".repeat((*width).max(1)))?;
        }
        Ok(())
    }
}

/// Says whether this can be the name of an option, and nothing else.
fn is_name(text: &str) -> bool {
    text.trim_start().chars().all(|char| char.is_ascii_alphanumeric() || "_-.\"".contains(char))
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

/// Describes what is wrong with an option, by serde's error about it.
pub(super) fn of_option(keys: &[String], error: &str) -> String {
    // Of an unknown section its name is enough, once.
    let unknown = error.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let end = unknown.and_then(|name| keys.iter().position(|key| key == name)).map_or(keys.len(), |place| place + 1);
    let path = keys.get(..end).unwrap_or_default().join(".");
    let message = if secret::may_be_in(&path) { describe_without_value(error) } else { describe(error) };
    if path.is_empty() { message } else { format!("{path}: {message}") }
}

/// Gives the message about an option of `[[outbox]]` that does not say of which one.
pub(super) fn of_list(keys: &[String], origin: &Origin) -> Option<String> {
    let (list, rest) = keys.split_first()?;
    if list != "outbox" || rest.first().is_some_and(|place| place.parse::<usize>().is_ok()) {
        return None;
    }
    let options = ["table".to_owned()];
    let rest = if rest.is_empty() { &options } else { rest };
    let write = match origin {
        Origin::File { .. } => "write [[outbox]] with two brackets, once for each table".to_owned(),
        Origin::Variable(_) => {
            format!("write WALRELAY_OUTBOX__0__{} for the first one", rest.join("__").to_uppercase())
        }
        Origin::Set(_) => format!("write --set outbox.0.{}=... for the first one", rest.join(".")),
    };
    Some(format!("{}: outbox is a list of tables: {write}", keys.join(".")))
}

/// The same for an option that may be a secret, without its value.
fn describe_without_value(error: &str) -> String {
    let message = describe(error);
    if message.starts_with("unknown option") || message.starts_with("missing option") {
        return message;
    }
    "invalid value (not shown: it may be secret); a password is { env = \"NAME\" } or { file = \"PATH\" }".to_owned()
}

/// Converts an error of serde: adds the nearest known name, and what is allowed.
fn describe(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    if first.contains("invalid socket address syntax") {
        return "expected an IP address and a port, such as \"127.0.0.1:7430\"".to_owned();
    }
    let Some((what, expected)) = first.rsplit_once(", expected ") else {
        return first.replace("missing field", "missing option");
    };
    // The text may be a secret in the wrong place. The line that is shown with it has been checked for that.
    if let Some((kind, _)) = what.split_once(": string \"") {
        let expected = if expected.starts_with("struct ") { "a section" } else { expected };
        return format!("{kind}: a string, expected {expected}");
    }
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let found = what.split('`').nth(1).unwrap_or_default();
    let nearest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &found.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= 1 + found.len() / 3)
        .min();
    let what = what.replace("unknown field", "unknown option").replace("unknown variant", "unknown value");
    let is_value = what.starts_with("unknown value");
    match nearest {
        Some((_, name)) if is_value => {
            format!("{what}, did you mean `{name}`? allowed are {}", names.join(", "))
        }
        Some((_, name)) => format!("{what}, did you mean `{name}`?"),
        None if is_value => format!("{what}; allowed are {}", names.join(", ")),
        None if what.starts_with("unknown") => format!("{what}; known are {}", names.join(", ")),
        None => format!("{what}, expected {expected}"),
    }
}
