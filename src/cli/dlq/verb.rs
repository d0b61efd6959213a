//! What `walrelay dlq` is asked for.

use clap::Subcommand;

use crate::cli::output::Format;

use super::filter::Filter;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DlqVerb {
    /// List letters, one line each
    List {
        #[command(flatten)]
        filter: Filter,
        /// How they are printed
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Show letters whole: headers and value
    Show {
        #[command(flatten)]
        filter: Filter,
        /// How they are printed
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Bring letters back to the topics they came from
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// Bring them to this topic instead
        #[arg(long, value_name = "TOPIC")]
        to: Option<String>,
        /// Only tell what would be done
        #[arg(long)]
        dry_run: bool,
    },
}
