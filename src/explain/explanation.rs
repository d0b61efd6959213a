//! One entry, and the meaning of exit codes.

/// Exit codes with a group of error codes, and what they mean.
const EXITS: [(u16, &str); 10] = [
    (1, "a check failed"),
    (64, "the configuration is invalid"),
    (65, "publication, schema or slot do not match the configuration"),
    (66, "the position is lost, or the publication was changed: events may be missing in Kafka"),
    (67, "authentication failed, or permission denied"),
    (68, "an event cannot be published; it is named, not skipped"),
    (69, "a dependency is down, or refuses permanently"),
    (70, "a bug, or a protocol violation by a server"),
    (71, "the position cannot be stored"),
    (75, "records are not acknowledged, or the position is not stored; a restart loses nothing and may repeat"),
];

/// What one code means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Explanation {
    pub(super) number: u16,
    /// The code in a few words.
    pub title: &'static str,
    pub means: &'static str,
    /// Why it happens.
    pub why: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Gives every exit code with a group of error codes, and its meaning.
pub fn exits() -> impl Iterator<Item = (u16, &'static str)> {
    EXITS.into_iter()
}

impl Explanation {
    /// Gives the code as errors print it.
    #[must_use]
    pub fn code(&self) -> String {
        format!("WR-{:04}", self.number)
    }

    /// Gives the exit code of a process that ends because of it.
    #[must_use]
    pub const fn exit(&self) -> u16 {
        self.number / 100
    }

    /// Gives the meaning of that exit code.
    #[must_use]
    pub fn exit_means(&self) -> &'static str {
        EXITS.iter().find(|(exit, _)| *exit == self.exit()).map_or("", |(_, meaning)| meaning)
    }
}
