//! `walrelay tail`: follows what the running relay publishes, until Ctrl-C.
//!
//! It reads the topics themselves, without a consumer group: nothing is joined and nothing committed, so that it
//! disturbs neither the relay nor its consumers. Topics and partitions that are created meanwhile are read from their
//! beginning. While the brokers are down it says so once, and waits.

mod error;
mod options;
mod show;

use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use crate::config::Loaded;
use crate::relay::Settings;
use crate::relay::publish;
use walrelay_events::consumer::TopicPartition;
use walrelay_events::internal::FollowFrom;
use walrelay_events::internal::Follower;

use super::closed::Reader;
use super::output::Format;
use super::output::Output;
use super::report::Failed;

use error::Error;
pub(super) use options::TailOptions;
use options::Topics;

/// The timeout of a request at the start.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one wait for a record lasts: between two, the reader of the output is looked for.
const WAIT: Duration = Duration::from_millis(200);
/// How often new topics and partitions are looked for, and the timeout of such a request.
const REFRESH: Duration = Duration::from_secs(10);
const REFRESH_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn tail(options: &TailOptions, loaded: &Loaded, output: &mut Output) -> Result<ExitCode, Failed> {
    let settings = loaded.config.relay_settings();
    let topics = Topics::new(options, &settings).map_err(Failed::new)?;
    let mut follower = open(&settings).map_err(Failed::new)?;
    let found = follower.add(&|topic| topics.contains(topic), options.start(), LIMIT);
    let found = found.map_err(|source| Failed::new(Error::Kafka { action: "read the topics", source }))?;
    if found.is_empty() {
        return Err(Failed::new(Error::NoTopic(topics.described())));
    }
    output.note(&format!("following {}; Ctrl-C ends it", named(&found)));
    follow(&mut follower, options, &topics, output)?;
    Ok(ExitCode::SUCCESS)
}

fn open(settings: &Settings) -> Result<Follower, Error> {
    let (kafka, name) = (settings.kafka.clone(), format!("{} tail", settings.relay.name));
    let properties = publish::Settings::new(kafka, name, settings.delivery.max_in_flight_bytes).connection()?;
    Follower::new(&properties).map_err(|source| Error::Kafka { action: "create a consumer", source })
}

/// Prints records until the limit, or until nobody reads the output.
fn follow(follower: &mut Follower, options: &TailOptions, topics: &Topics, output: &mut Output) -> Result<(), Failed> {
    let reader = Reader::of_output();
    let (mut printed, mut refreshed, mut noted) = (0, Instant::now(), String::new());
    loop {
        match follower.next(WAIT) {
            Ok(Some(record)) if options.selects(&record) => {
                output.line(&match options.format {
                    Format::Human => show::line(&record),
                    Format::Json => show::object(&record).to_string(),
                })?;
                noted.clear();
                printed += 1;
                if options.limit.is_some_and(|limit| printed >= limit) {
                    return Ok(());
                }
            }
            Ok(Some(_)) => noted.clear(),
            Ok(None) if reader.is_gone() => return Ok(()),
            Ok(None) => {}
            // librdkafka retries for ever, and repeats its reason.
            Err(error) => {
                let text = error.to_string();
                if text != noted {
                    output.note(&format!("waiting: {text}"));
                    noted = text;
                }
            }
        }
        if refreshed.elapsed() >= REFRESH {
            let found = follower.add(&|topic| topics.contains(topic), FollowFrom::Beginning, REFRESH_LIMIT);
            // An error comes again at the next record.
            if let Some(found) = found.ok().filter(|found| !found.is_empty()) {
                output.note(&format!("following {} as well", named(&found)));
            }
            refreshed = Instant::now();
        }
    }
}

/// Names topics with the number of their partitions.
fn named(partitions: &[TopicPartition]) -> String {
    let mut names: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    names.sort_unstable();
    names.dedup();
    let count = |name: &str| partitions.iter().filter(|partition| &*partition.topic == name).count();
    let of_topic = |name: &&str| match count(name) {
        1 => format!("{name} (1 partition)"),
        count => format!("{name} ({count} partitions)"),
    };
    names.iter().map(of_topic).collect::<Vec<_>>().join(", ")
}
