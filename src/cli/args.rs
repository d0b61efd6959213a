//! What may be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use super::dlq::DlqVerb;
use super::output::Color;
use super::output::Format;

/// Streams a transactional outbox out of PostgreSQL into Kafka, and confirms the log only after delivery.
#[derive(Debug, Parser)]
#[command(name = "walrelay", version, propagate_version = true, max_term_width = 110)]
pub(super) struct Args {
    /// The configuration file [default: ./config.toml, then /etc/walrelay/config.toml]
    #[arg(long, short, global = true, value_name = "FILE", env = "WALRELAY_CONFIG", hide_env = true)]
    pub(super) config: Option<PathBuf>,
    /// Set an option over file and environment; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Relay until told to stop: waits for PostgreSQL and Kafka, creates nothing, skips nothing
    Run,
    /// Print the SQL that run needs to have been done, or do it
    Setup {
        /// Run it instead of printing it; may be repeated safely
        #[arg(long)]
        apply: bool,
        /// Make the outbox tables as well
        #[arg(long)]
        with_outbox: bool,
        /// Grant this role what run needs
        #[arg(long, value_name = "NAME")]
        role: Option<String>,
        /// Start at the slot's position although events before it may be missing in Kafka
        #[arg(long)]
        accept_gap: bool,
    },
    /// Show the whole way on this machine, with a throwaway PostgreSQL and an in-process Kafka
    Demo {
        /// How many orders are written
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        orders: u32,
        /// How records are printed
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Look at dead letters, and bring them back
    Dlq {
        #[command(subcommand)]
        verb: Box<DlqVerb>,
    },
    /// Ask a running relay whether it is alive; exit code 0 or 1
    Healthcheck {
        /// Where it listens [default: http.listen of the configuration]
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<SocketAddr>,
        /// Ask whether events flow, not only whether it is alive
        #[arg(long)]
        ready: bool,
    },
    /// Print the versions of walrelay and of what is built in
    Version {
        /// How they are printed
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print every effective option with where it comes from; secrets do not show
    Show {
        /// How they are printed
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Tell every mistake, each with its place
    Validate,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
