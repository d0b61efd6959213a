//! `walrelay explain`: what an error code means, or the list of all codes.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;
use serde_json::json;

use crate::explain;
use crate::explain::Explanation;

use super::output::Output;
use super::report::Failed;
use super::wrap::width;
use super::wrap::wrap;

/// The exit code for a code that does not exist: the command line is invalid.
const USAGE: u8 = 2;
/// The widest text: longer lines are hard to read.
const MAX_WIDTH: usize = 100;
const INDENT: usize = 2;

/// The format of the explanations.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// Text for people
    Human,
    /// JSON for programs
    Json,
    /// The page of all codes
    Markdown,
}

pub(super) fn explain(code: Option<&str>, format: Format, output: &mut Output) -> Result<ExitCode, Failed> {
    let one = match code.map(explain::find) {
        None => None,
        Some(Ok(found)) => Some(found),
        Some(Err(similar)) => {
            let similar: Vec<String> = similar.iter().map(|it| format!("{} ({})", it.code(), it.title)).collect();
            output.note(&format!("error: unknown code {:?}", code.unwrap_or_default()));
            output.note(&format!("  similar: {}", similar.join(", ")));
            output.hint("  next: run `walrelay explain` for the list of all codes");
            return Ok(ExitCode::from(USAGE));
        }
    };
    match (format, one) {
        (Format::Human, Some(one)) => output.text(&human(&one))?,
        (Format::Human, None) => {
            for it in explain::all() {
                output.line(&format!("{}  {}", it.code(), it.title))?;
            }
        }
        (Format::Json, Some(one)) => output.line(&json(&one).to_string())?,
        (Format::Json, None) => {
            output.line(&Value::from(explain::all().iter().map(json).collect::<Vec<_>>()).to_string())?;
        }
        (Format::Markdown, _) => output.text(&explain::page())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn human(it: &Explanation) -> String {
    let text = |text: &str| wrap(text, width().min(MAX_WIDTH), INDENT);
    let (means, why, next) = (text(it.means), text(it.why), text(&format!("next: {}", it.next)));
    let exit = text(&format!("exit code: {}, {}", it.exit(), it.exit_means()));
    format!("{}: {}\n\n{means}{why}\n{next}\n{exit}", it.code(), it.title)
}

fn json(it: &Explanation) -> Value {
    json!({
        "code": it.code(),
        "exit_code": it.exit(),
        "title": it.title,
        "means": it.means,
        "why": it.why,
        "next": it.next,
    })
}
