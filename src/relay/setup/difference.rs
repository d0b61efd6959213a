//! What the server has and what it lacks, as SQL for `psql`. Each statement does nothing where it has been run.

use std::fmt::Write as _;

/// What is there, and what setup would change.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// The server that was compared; none if no server was.
    pub server: Option<String>,
    /// What is there, and what of it was checked.
    pub existing: Vec<String>,
    /// What could not be compared, so that nobody knows whether `run` can start.
    pub unseen: Vec<String>,
    /// In the order in which they must be made.
    pub changes: Vec<Change>,
}

/// Something that is missing or different, and the statement that corrects it.
#[derive(Clone, Debug)]
pub struct Change {
    /// As in "create slot walrelay".
    pub what: String,
    pub(super) runner: Runner,
    /// What to know before it is run.
    pub(super) notes: Vec<String>,
    pub(super) statement: Statement,
    /// `setup --apply` does not run it: it changes an existing table or publication of somebody else.
    pub is_by_hand: bool,
}

/// How a change is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Statement {
    /// With the semicolon at its end.
    Sql(String),
    /// A command for a shell, since plain SQL cannot do it.
    Shell(String),
}

/// The role that can run a statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Runner {
    /// Who that is, and why.
    pub(super) who: String,
    /// Whether the role of this connection is one; none if that is not known.
    pub(super) is_current: Option<bool>,
}

impl Change {
    /// A statement that setup runs as well.
    pub(super) fn sql(what: impl Into<String>, runner: Runner, sql: impl Into<String>) -> Self {
        let statement = Statement::Sql(sql.into());
        Self { what: what.into(), runner, notes: Vec::new(), statement, is_by_hand: false }
    }

    /// Adds what to know before it is run.
    pub(super) fn noting<N: Into<String>>(mut self, notes: impl IntoIterator<Item = N>) -> Self {
        self.notes.extend(notes.into_iter().map(Into::into));
        self
    }

    /// Leaves it to a person.
    pub(super) fn by_hand(mut self) -> Self {
        self.is_by_hand = true;
        self
    }

    /// Gives the SQL; empty if it takes a command.
    pub(super) fn sql_text(&self) -> &str {
        match &self.statement {
            Statement::Sql(sql) => sql,
            Statement::Shell(_) => "",
        }
    }

    /// Says whether the role of this connection may not make it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.runner.is_current == Some(false)
    }

    /// Gives who can run it.
    #[must_use]
    pub fn runner(&self) -> &str {
        &self.runner.who
    }
}

impl Difference {
    /// Gives the statements, with what to know as comments; empty if nothing is to be changed.
    #[must_use]
    pub fn script(&self) -> String {
        if self.changes.is_empty() {
            return String::new();
        }
        let mut script = String::new();
        match &self.server {
            Some(server) => comment(&mut script, &format!("What is missing in {server}.")),
            None => comment(&mut script, "Everything that walrelay needs. No server was compared."),
        }
        comment(&mut script, "A statement that has been run does nothing when it is run again.");
        comment(&mut script, "Run them one by one, as psql does: a transaction that has written cannot create a slot.");
        script.push_str("\\set ON_ERROR_STOP on\n");
        for change in &self.changes {
            script.push('\n');
            comment(&mut script, &format!("To {}: run this as {}.", change.what, change.runner.who));
            change.notes.iter().for_each(|note| comment(&mut script, note));
            if change.is_by_hand {
                comment(&mut script, "`walrelay setup --apply` does not run it. Look at it, then run it yourself:");
            }
            match &change.statement {
                // A pipe into psql must not run it either.
                Statement::Sql(sql) if change.is_by_hand => {
                    sql.lines().for_each(|line| comment(&mut script, &format!("  {line}")));
                }
                Statement::Sql(sql) => script.push_str(sql),
                Statement::Shell(command) => comment(&mut script, &format!("  {command}")),
            }
            if !script.ends_with('\n') {
                script.push('\n');
            }
        }
        script
    }
}

/// Writes a comment of one line: a name from the server cannot end it.
fn comment(script: &mut String, text: &str) {
    let text: String = text.chars().map(|each| if each.is_control() { ' ' } else { each }).collect();
    let _ = writeln!(script, "-- {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_a_comment_and_nothing_to_change_is_no_script() {
        let runner = Runner { who: "the owner".to_owned(), is_current: None };
        let change = Change::sql("create table a\n; DROP TABLE b", runner.clone(), "SELECT 1;").noting(["x\ry"]);
        let by_hand = Change::sql("drop", runner, "DROP\nTABLE b;").by_hand();
        let difference = Difference { changes: vec![change, by_hand], ..Difference::default() };
        let script = difference.script();
        let statements: Vec<&str> =
            script.lines().filter(|line| !line.starts_with("-- ") && !line.is_empty()).collect();
        assert_eq!(statements, ["\\set ON_ERROR_STOP on", "SELECT 1;"], "{script}");
        assert!(script.contains("--   DROP\n--   TABLE b;\n"), "{script}");
        assert!(script.contains("-- x y\n") && script.contains("--apply` does not run it"), "{script}");
        assert_eq!(Difference::default().script(), "");
    }
}
