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
        /// At most this many records per second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        /// Print what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl DlqVerb {
    /// Returns whether it must not end in the middle.
    pub(in crate::cli) const fn writes(&self) -> bool {
        matches!(self, Self::Redrive { dry_run: false, .. })
    }
}
