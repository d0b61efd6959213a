//! The options of `walrelay tail`, and which records they select.

use crate::cli::dlq::Millis;
use crate::cli::dlq::time;
use crate::cli::output::Format;
use crate::relay::Settings;
use crate::relay::record::route::Route;
use walrelay_events::consumer::Record;
use walrelay_events::internal::FollowFrom;

use super::error::Error;

/// What is followed, and what is printed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TailOptions {
    /// Only this topic; may be repeated [default: the topics of the configuration]
    #[arg(long = "topic", value_name = "NAME")]
    pub(super) topics: Vec<String>,
    /// Only records with this key
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Start at the oldest record instead of the end
    #[arg(long, conflicts_with = "since")]
    pub(super) from_beginning: bool,
    /// Start at this time: 2026-11-24T12:00:00Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Millis>,
    /// End after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// The output format
    #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "human")]
    pub(super) format: Format,
}

impl TailOptions {
    pub(super) fn start(&self) -> FollowFrom {
        match self.since {
            Some(since) => FollowFrom::Time(since.millis()),
            None if self.from_beginning => FollowFrom::Beginning,
            None => FollowFrom::End,
        }
    }

    pub(super) fn selects(&self, record: &Record) -> bool {
        self.key.as_deref().is_none_or(|key| record.key() == Some(key.as_bytes()))
    }
}

/// The topics to follow: the given ones, or those that the relay may publish to.
pub(super) struct Topics {
    given: Vec<String>,
    routes: Vec<Route>,
}

impl Topics {
    pub(super) fn new(options: &TailOptions, settings: &Settings) -> Result<Self, Error> {
        Ok(Self { given: options.topics.clone(), routes: settings.routes()? })
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        if self.given.is_empty() {
            return self.routes.iter().any(|route| route.may_publish_to(topic));
        }
        self.given.iter().any(|given| given == topic)
    }

    /// Names them, for a message.
    pub(super) fn described(&self) -> String {
        let mut names = self.given.clone();
        if names.is_empty() {
            names = self.routes.iter().map(Route::topics_described).collect();
        }
        names.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: TailOptions,
    }

    fn options(arguments: &str) -> Result<TailOptions, clap::Error> {
        Line::try_parse_from(format!("tail {arguments}").split_whitespace()).map(|line| line.options)
    }

    #[test]
    fn a_start_is_the_end_the_beginning_or_a_time() {
        assert_eq!(options("").unwrap().start(), FollowFrom::End);
        assert_eq!(options("--from-beginning").unwrap().start(), FollowFrom::Beginning);
        assert_eq!(options("--since 1970-01-01T00:00:01Z").unwrap().start(), FollowFrom::Time(1_000));
        assert!(options("--since 1h --from-beginning").is_err() && options("--since yesterday").is_err());
    }

    #[test]
    fn a_key_is_compared_byte_for_byte() {
        let record = |key| Record::new("t", 0, 0, key, None, &[]);
        let options = options("--key o-1").unwrap();
        assert!(options.selects(&record(Some(b"o-1"))));
        assert!(!options.selects(&record(Some(b"o-11"))) && !options.selects(&record(None)));
    }
}
