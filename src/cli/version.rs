//! `walrelay version`: what this program is made of.

use std::process::ExitCode;

use serde_json::json;

use super::args::Format;
use super::output::Output;
use super::report::Failed;

pub(super) fn version(format: Format, output: &mut Output) -> Result<ExitCode, Failed> {
    let (version, librdkafka, openssl) =
        (env!("CARGO_PKG_VERSION"), rdkafka::util::get_rdkafka_version().1, openssl::version::version());
    match format {
        Format::Human => {
            output.line(&format!("walrelay {version}"))?;
            output.line(&format!("librdkafka {librdkafka}"))?;
            output.line(openssl)?;
        }
        Format::Json => {
            output.line(&json!({ "walrelay": version, "librdkafka": librdkafka, "openssl": openssl }).to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
