//! The command line: verbs, options and their help texts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;

use super::dlq::DlqVerb;
use super::explain;
use super::init::InitArgs;
use super::output::Color;
use super::output::Format;
use super::setup::SetupArgs;
use super::tail::TailOptions;

/// The shortest interval of `--watch`.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Streams a transactional outbox from PostgreSQL to Kafka and confirms the WAL only after delivery
#[derive(Debug, Parser)]
#[command(name = "walrelay", version, propagate_version = true, max_term_width = 110)]
pub(super) struct Args {
    /// The configuration file [default: ./config.toml, then /etc/walrelay/config.toml]
    #[arg(long, short, global = true, value_name = "FILE", env = "WALRELAY_CONFIG", hide_env = true)]
    pub(super) config: Option<PathBuf>,
    /// Set an option; overrides file and environment, may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// When to print in color
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Relay until SIGTERM; retries until PostgreSQL and Kafka are up, creates nothing, skips nothing
    Run {
        /// Check everything first, as `walrelay check` does, and refuse to start if something is wrong
        #[arg(long)]
        check: bool,
    },
    /// Check everything that `run` depends on, and change nothing; exits with 0 or 1
    Check {
        /// Repeat until everything passes, for at most this long
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
        /// Warnings fail as well
        #[arg(long)]
        strict: bool,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Compare the server with what `run` depends on, and print the SQL for what is missing, or run it
    Setup(SetupArgs),
    /// Drop the slot and the publication that `setup` created; asks first, and never drops the outbox table
    Teardown {
        /// Do not ask; for scripts
        #[arg(long)]
        yes: bool,
        /// Delete the stored position as well, and the schema walrelay if nothing else is in it
        #[arg(long)]
        with_position: bool,
        /// With --yes: drop the slot even if events behind it are not delivered
        #[arg(long)]
        accept_gap: bool,
    },
    /// Relay orders on this machine, from a throwaway PostgreSQL to an in-process Kafka
    Demo {
        /// Number of orders to write
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        orders: u32,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Write, show or validate the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// List, show and redrive dead-letter records
    Dlq {
        #[command(subcommand)]
        verb: Box<DlqVerb>,
    },
    /// Print how the relay and its slot are, also if it is not running; exits with 0 if it runs and is well, or with 1
    Status {
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
        /// Print again and again, by default every 2 s
        #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = interval)]
        watch: Option<Duration>,
    },
    /// Print the events that are not published yet, as the records that they will be; consumes nothing
    Peek {
        /// At most this many events
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// How long the server may take to find them
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = at_least_a_second)]
        timeout: Duration,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Print what the running relay publishes, record by record, until Ctrl-C; uses no consumer group
    Tail {
        #[command(flatten)]
        options: TailOptions,
    },
    /// Ask a running relay whether it is alive; exits with 0 or 1
    Healthcheck {
        /// Address of the relay [default: http.listen of the configuration]
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<SocketAddr>,
        /// Ask for readiness instead of liveness
        #[arg(long)]
        ready: bool,
    },
    /// Explain an error code: what it means, why it happens and what to do
    Explain {
        /// Code such as WR-6611 or 6611 [default: a list of all codes]
        code: Option<String>,
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: explain::Format,
    },
    /// Print the versions of walrelay, librdkafka and OpenSSL
    Version {
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Print the manual page of walrelay, or of one of its commands, in roff
    Man {
        /// The command, such as run or dlq list [default: the page of walrelay]
        command: Vec<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Write a first configuration file, to --config or ./config.toml; never over an existing one
    Init(Box<InitArgs>),
    /// Print every option with its value and where it comes from, without secrets
    Show {
        /// Output format
        #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
        format: Format,
    },
    /// Report all mistakes, each with its position; also in the files and variables that the configuration names
    Validate {
        /// Do not look at those files and variables: they are on another machine
        #[arg(long)]
        without_files: bool,
    },
}

/// Parses a timeout, of which a server takes no fraction of a second.
fn at_least_a_second(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).ok().filter(|timeout| *timeout >= Duration::from_secs(1));
    timeout.ok_or_else(|| "expected a duration with its unit of at least 1s, such as 30s".to_owned())
}

/// Parses the interval of `--watch`.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).ok().filter(|interval| *interval >= MIN_INTERVAL);
    interval.ok_or_else(|| "expected a duration with its unit of at least 100ms, such as 2s".to_owned())
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
