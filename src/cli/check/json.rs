//! The result of a check for programs. Names and fields are stable.

use serde_json::Value;
use serde_json::json;

use crate::cli::invocation;
use crate::relay::check::Check;
use crate::relay::check::Finding;
use crate::relay::check::Outcome;
use crate::relay::check::Report;
use crate::relay::check::Status;

pub(super) fn text(report: &Report, has_passed: bool) -> String {
    let groups: Vec<Value> = report
        .groups
        .iter()
        .map(|group| json!({ "name": group.name, "checks": group.checks.iter().map(of_check).collect::<Vec<_>>() }))
        .collect();
    let value = json!({
        "passed": has_passed,
        "counts": {
            "ok": report.count(Status::Passed),
            "warning": report.count(Status::Warned),
            "failed": report.count(Status::Failed),
            "skipped": report.count(Status::Skipped),
        },
        "groups": groups,
    });
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn of_check(check: &Check) -> Value {
    let status = match check.status() {
        Status::Passed => "ok",
        Status::Skipped => "skipped",
        Status::Warned => "warning",
        Status::Failed => "failed",
    };
    let mut value = json!({ "name": check.name, "subject": check.subject, "status": status, "why": check.why });
    let (field, content) = match &check.outcome {
        Outcome::Passed(found) => ("found", json!(found)),
        Outcome::Skipped { needs } => ("needs", json!(needs)),
        Outcome::Found(findings) => ("findings", findings.iter().map(of_finding).collect()),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert(field.to_owned(), content);
    }
    value
}

fn of_finding(finding: &Finding) -> Value {
    json!({
        "severity": if finding.is_warning { "warning" } else { "failure" },
        "code": finding.code.to_string(),
        "what": finding.what,
        "next": finding.next.as_deref().map(invocation::complete),
    })
}
