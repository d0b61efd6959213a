//! The verbs of `walrelay dlq`.

use clap::Subcommand;

use crate::cli::output::Format;

use super::filter::Filter;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DlqVerb {
    /// List dead-letter records, one line each
    List {
        #[command(flatten)]
        filter: Filter,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Show dead-letter records with headers and value
    Show {
        #[command(flatten)]
        filter: Filter,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Write dead-letter records back to the topics they came from
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// Write them to this topic instead
        #[arg(long, value_name = "TOPIC")]
        to: Option<String>,
        /// Only print what would be done
        #[arg(long)]
        dry_run: bool,
    },
}
