//! `walrelay check`: what it says about broken set-ups, and that the printed commands fix them.

mod kafka;
mod output;
mod polling;
mod server;
mod source;

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::support::program::Program;
use crate::support::program::paste;
use crate::support::source::Sql;

/// Checks, and gives the result.
fn report(program: &Program, arguments: &[&str]) -> Value {
    let ended = program.verb(&[&["check", "-o", "json"], arguments].concat());
    assert!(matches!(ended.code, Some(0 | 1)), "{}", ended.notes);
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {}", ended.out))
}

/// Gives every check of a result, with its title.
fn checks(report: &Value) -> Vec<(String, &Value)> {
    let groups = report["groups"].as_array().unwrap();
    let checks = groups.iter().flat_map(|group| group["checks"].as_array().unwrap());
    let title = |check: &Value| {
        let name = check["name"].as_str().unwrap();
        check["subject"].as_str().map_or_else(|| name.to_owned(), |subject| format!("{name} {subject}"))
    };
    checks.map(|check| (title(check), check)).collect()
}

/// Gives the check with this title, or that begins with it.
fn find<'r>(report: &'r Value, title: &str) -> &'r Value {
    let found = checks(report).into_iter().find(|(found, _)| found.starts_with(title));
    found.unwrap_or_else(|| panic!("no {title} in {report:#}")).1
}

/// Gives the titles of the checks that failed.
fn failed(report: &Value) -> Vec<String> {
    checks(report).into_iter().filter(|(_, check)| check["status"] == "failed").map(|(title, _)| title).collect()
}

/// Gives the commands of all findings of a check.
fn commands(check: &Value) -> Vec<String> {
    let findings = check["findings"].as_array().unwrap_or_else(|| panic!("{check:#}"));
    let next = |finding: &Value| finding["next"].as_str().unwrap_or_default().to_owned();
    findings.iter().flat_map(|finding| quoted(&next(finding))).collect()
}

fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Checks until a check has this status: the server reads its files some time after it was asked to.
fn await_status(program: &Program, title: &str, status: &str) -> Value {
    let began = Instant::now();
    loop {
        let report = report(program, &[]);
        let is_there = checks(&report).iter().any(|(found, _)| found.starts_with(title));
        if is_there && find(&report, title)["status"] == status {
            return report;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{title} is not {status}: {report:#}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// One broken set-up.
struct Case<'c> {
    /// The statements that break it.
    broken: &'c str,
    /// The check that notices it.
    title: &'c str,
    code: &'c str,
    /// What the printed commands begin or, for those of a shell, end with, in their order.
    fixes: &'c [&'c str],
}

/// Breaks the set-up, reads what the check says, runs each printed command, and reads that the check passes.
fn break_and_fix(program: &Program, sql: &Sql, case: &Case<'_>) {
    let Case { broken, title, code, fixes } = case;
    sql.run(broken);
    let mut report = await_status(program, title, "failed");
    assert_eq!(find(&report, title)["findings"][0]["code"], *code, "{broken}: {report:#}");
    for (place, fix) in fixes.iter().enumerate() {
        if place > 0 {
            report = self::report(program, &[]);
        }
        let all: Vec<String> = checks(&report)
            .into_iter()
            .filter(|(_, check)| check["status"] == "failed")
            .flat_map(|(_, check)| commands(check))
            .collect();
        let is_it =
            |command: &&String| command.starts_with(fix) || command.starts_with("walrelay ") && command.ends_with(fix);
        let command = all.iter().find(is_it).unwrap_or_else(|| panic!("{broken}: no {fix} in {report:#}"));
        if command.starts_with("walrelay ") {
            let pasted = paste(command);
            assert_eq!(pasted.code, Some(0), "{broken}: {command}: {}", pasted.notes);
        } else {
            sql.run(command);
        }
    }
    let report = await_status(program, title, "ok");
    assert_eq!(failed(&report), Vec::<String>::new(), "{broken}: {report:#}");
}
