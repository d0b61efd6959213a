//! The result of a check for people: one line for each check, its findings below it.

use crate::cli::invocation;
use crate::relay::check::Check;
use crate::relay::check::Outcome;
use crate::relay::check::Report;
use crate::relay::check::Status;

use crate::cli::wrap::printable;
use crate::cli::wrap::wrap;

/// What stands below a check begins under its name.
const INDENT: usize = 11;

pub(super) fn text(report: &Report, width: usize, is_colored: bool) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text.push_str(group.name);
        text.push('\n');
        for check in &group.checks {
            of_check(check, width, is_colored, &mut text);
        }
    }
    let count = |status| report.count(status);
    let summary = format!(
        "{} checks: {} ok, {} with warnings, {} failed, {} skipped",
        report.checks().count(),
        count(Status::Passed),
        count(Status::Warned),
        count(Status::Failed),
        count(Status::Skipped)
    );
    text.push_str(&wrap(&summary, width, 0));
    text
}

fn of_check(check: &Check, width: usize, is_colored: bool, text: &mut String) {
    let (word, color) = match check.status() {
        Status::Passed => ("ok", 32),
        Status::Skipped => ("skipped", 2),
        Status::Warned => ("warning", 33),
        Status::Failed => ("FAILED", 31),
    };
    let title = check.title();
    let line = match &check.outcome {
        Outcome::Passed(found) if !found.is_empty() => format!("{title}: {found}"),
        Outcome::Skipped { needs } => format!("{title}: needs {needs}"),
        Outcome::Passed(_) | Outcome::Found(_) => title,
    };
    let (on, off) = if is_colored { (format!("\x1b[{color}m"), "\x1b[0m") } else { (String::new(), "") };
    let lines = wrap(&printable(&line), width, INDENT);
    text.push_str(&format!("  {on}{word}{off}{}", " ".repeat(INDENT.saturating_sub(2 + word.len()))));
    text.push_str(lines.trim_start());
    for finding in check.findings() {
        text.push_str(&wrap(&printable(&format!("{}: {}", finding.code, finding.what)), width, INDENT));
        text.push_str(&wrap(&format!("why: {}", check.why), width, INDENT));
        if let Some(next) = &finding.next {
            text.push_str(&wrap(&printable(&format!("next: {}", invocation::complete(next))), width, INDENT));
        }
    }
}

#[cfg(test)]
mod tests {
    use walrelay_events::fault::Code;
    use walrelay_events::fault::Exit;

    use crate::relay::check::Finding;
    use crate::relay::check::Group;

    use super::*;

    #[test]
    fn foreign_text_does_not_move_the_cursor() {
        let foreign = || "a\x1b[2J\rb\nc".to_owned();
        let finding = Finding {
            is_warning: false,
            code: Code::new(Exit::CheckFailed, 1),
            what: foreign(),
            next: Some(foreign()),
        };
        let outcomes =
            [Outcome::Passed(foreign()), Outcome::Skipped { needs: foreign() }, Outcome::Found(vec![finding])];
        let checks = outcomes.map(|outcome| Check { name: "topic", subject: Some(foreign()), why: "", outcome });
        let report = Report { groups: vec![Group { name: "kafka", checks: checks.to_vec() }] };
        let text = text(&report, 200, false);
        assert!(text.chars().all(|each| each == '\n' || !each.is_control()), "{text:?}");
        assert_eq!(text.lines().count(), 8, "no line more than usual: {text:?}");
    }
}
