//! `walrelay version`: this program and the libraries that are built in.

use std::process::ExitCode;

use serde_json::json;

use crate::metrics::Build;

use super::output::Format;
use super::output::Output;
use super::report::Failed;

pub(super) fn version(format: Format, output: &mut Output) -> Result<ExitCode, Failed> {
    let Build { version, revision, librdkafka, openssl } = Build::of_this_program();
    let revision = Some(revision).filter(|revision| !revision.is_empty());
    match format {
        Format::Human => {
            let of = revision.map(|revision| format!(" ({revision})")).unwrap_or_default();
            output.line(&format!("walrelay {version}{of}"))?;
            output.line(&format!("librdkafka {librdkafka}"))?;
            output.line(openssl)?;
        }
        Format::Json => {
            let made_of =
                json!({ "walrelay": version, "revision": revision, "librdkafka": librdkafka, "openssl": openssl });
            output.line(&made_of.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
