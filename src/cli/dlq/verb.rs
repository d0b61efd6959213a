//! The arguments of `walrelay dlq`.

use clap::Subcommand;

use crate::cli::output::Format;

use super::filter::Filter;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DlqVerb {
    /// List dead-letter records, one line each
    List {
        #[command(flatten)]
        filter: Filter,
        /// The output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Show dead-letter records with headers and value
    Show {
        #[command(flatten)]
        filter: Filter,
        /// The output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Write dead-letter records to their original topics again
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// Write them to this topic instead
        #[arg(long, value_name = "TOPIC")]
        to: Option<String>,
        /// Print what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
}
