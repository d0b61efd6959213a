//! What a check found, as data: groups of checks, each with its outcome.

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::chain;

/// All groups, in the order in which they are set up.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub groups: Vec<Group>,
}

/// Checks of one subject.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: &'static str,
    pub checks: Vec<Check>,
}

/// One check. Name and subject are stable: programs read them.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: &'static str,
    /// The table, topic or option that it is about, if there can be several.
    pub subject: Option<String>,
    /// What depends on it.
    pub why: &'static str,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// It passed; the text is what was found.
    Passed(String),
    /// At least one finding.
    Found(Vec<Finding>),
    /// It could not run, because this check failed.
    Skipped { needs: String },
}

/// Something that is wrong, or that will be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `run` would start, and it may go wrong later.
    pub is_warning: bool,
    pub code: Code,
    pub what: String,
    /// The next step, with the exact command or statement if there is one.
    pub next: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Status {
    Passed,
    Skipped,
    Warned,
    Failed,
}

/// A value, or the name of the check that failed and without which there is none.
pub(super) type Needed<T> = Result<T, &'static str>;

impl Report {
    /// Gives every check.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.groups.iter().flat_map(|group| &group.checks)
    }

    /// Counts the checks with this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks().filter(|check| check.status() == status).count()
    }

    /// Says whether nothing failed, and, if warnings count, nothing warned.
    #[must_use]
    pub fn has_passed(&self, is_strict: bool) -> bool {
        let limit = if is_strict { Status::Skipped } else { Status::Warned };
        self.checks().all(|check| check.status() <= limit)
    }

    /// Gives the first finding that makes it fail.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Finding> {
        self.checks().flat_map(Check::findings).find(|finding| !finding.is_warning)
    }
}

impl Check {
    pub(super) const fn new(name: &'static str, why: &'static str, outcome: Outcome) -> Self {
        Self { name, subject: None, why, outcome }
    }

    pub(super) fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Gives it with its failures as warnings.
    pub(super) fn without_failures(mut self) -> Self {
        if let Outcome::Found(findings) = &mut self.outcome {
            findings.iter_mut().for_each(|finding| finding.is_warning = true);
        }
        self
    }

    /// Gives the name with the subject.
    #[must_use]
    pub fn title(&self) -> String {
        self.subject.as_ref().map_or_else(|| self.name.to_owned(), |subject| format!("{} {subject}", self.name))
    }

    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        if let Outcome::Found(findings) = &self.outcome { findings } else { &[] }
    }

    #[must_use]
    pub fn status(&self) -> Status {
        match &self.outcome {
            Outcome::Passed(_) => Status::Passed,
            Outcome::Skipped { .. } => Status::Skipped,
            Outcome::Found(findings) if findings.iter().all(|finding| finding.is_warning) => Status::Warned,
            Outcome::Found(_) => Status::Failed,
        }
    }
}

impl Outcome {
    pub(super) fn skipped(needs: impl Into<String>) -> Self {
        Self::Skipped { needs: needs.into() }
    }

    pub(super) fn failed(error: &dyn Diagnose) -> Self {
        Self::Found(vec![Finding::failure(error)])
    }

    pub(super) fn warned(error: &dyn Diagnose) -> Self {
        Self::Found(vec![Finding::warning(error)])
    }

    /// Skips what needs a value that there is none of.
    pub(super) fn with<T>(needed: Needed<T>, decide: impl FnOnce(T) -> Self) -> Self {
        needed.map_or_else(Self::skipped, decide)
    }

    /// Decides from a result, and gives the value to the checks that need it.
    pub(super) fn of<T, E: Diagnose>(
        name: &'static str,
        result: Result<T, E>,
        detail: impl FnOnce(&T) -> String,
    ) -> (Self, Needed<T>) {
        match result {
            Ok(value) => (Self::Passed(detail(&value)), Ok(value)),
            Err(error) => (Self::failed(&error), Err(name)),
        }
    }
}

impl Finding {
    pub(super) fn failure(error: &dyn Diagnose) -> Self {
        Self { is_warning: false, code: error.code(), what: chain(error), next: error.help() }
    }

    pub(super) fn warning(error: &dyn Diagnose) -> Self {
        Self { is_warning: true, ..Self::failure(error) }
    }

    /// Replaces the next step by one that knows more names.
    pub(super) fn then(self, next: Option<String>) -> Self {
        Self { next: next.or(self.next), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Error;
    use super::*;

    fn report(outcomes: Vec<Outcome>) -> Report {
        let checks = outcomes.into_iter().map(|outcome| Check::new("login", "", outcome)).collect();
        Report { groups: vec![Group { name: "postgres", checks }] }
    }

    #[test]
    fn a_warning_fails_only_a_strict_check_and_a_skipped_one_fails_none() {
        let error = Error::Superuser { role: "postgres".to_owned() };
        let passed = || Outcome::Passed(String::new());
        let rows = [
            (vec![passed(), Outcome::skipped("login")], true, true),
            (vec![passed(), Outcome::warned(&error)], true, false),
            (vec![Outcome::warned(&error), Outcome::failed(&error)], false, false),
            (vec![Outcome::Found(vec![Finding::warning(&error), Finding::failure(&error)])], false, false),
        ];
        for (outcomes, passes, passes_strictly) in rows {
            let report = report(outcomes);
            assert_eq!((report.has_passed(false), report.has_passed(true)), (passes, passes_strictly), "{report:?}");
            assert_eq!(report.first_failure().is_none(), passes, "{report:?}");
            assert!(report.checks().all(|check| check.clone().without_failures().status() <= Status::Warned));
        }
    }
}
