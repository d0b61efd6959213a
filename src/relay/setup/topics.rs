//! The topics that the configuration names: which exist, and the commands for the others.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::relay::error::Error as RelayError;
use crate::relay::kafka_commands::Commands;
use crate::relay::kafka_commands::size;
use crate::relay::publish;
use crate::relay::publish::Admin;
use crate::relay::publish::Probe;
use crate::relay::publish::TopicDescription;
use crate::relay::publish::TopicSettings;
use crate::relay::publish::TopicSize;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;

use super::difference::Change;
use super::difference::Difference;
use super::difference::Runner;
use super::difference::Statement;
use super::error::Error;
use super::options::SetupOptions;
use super::options::TopicOptions;

/// The timeout of a log-in, and how long a failed one may be repeated within it.
const LOGIN_LIMIT: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(2);
/// The timeout of each request.
const LIMIT: Duration = Duration::from_secs(5);
/// The timeout of all questions together.
const WHOLE: Duration = Duration::from_secs(20);
/// The number of brokers if none answers.
const USUAL_BROKERS: usize = 3;

/// What the brokers say.
struct Answer {
    brokers: usize,
    topics: Vec<TopicDescription>,
    settings: BTreeMap<String, TopicSettings>,
}

impl TopicOptions {
    /// Finds sizes that contradict each other, before anything is created.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.size(USUAL_BROKERS).map(drop)
    }

    /// Gives the size of new topics on so many brokers.
    fn size(&self, brokers: usize) -> Result<TopicSize, Error> {
        let usual = size(brokers);
        let replicas = self.replication_factor.unwrap_or(usual.replicas);
        let usual_min = if replicas >= 3 { 2 } else { 1 };
        let min_in_sync = self.min_insync_replicas.unwrap_or(usual_min);
        if min_in_sync > replicas {
            return Err(Error::TooFewReplicas { min: min_in_sync, replicas });
        }
        Ok(TopicSize { partitions: self.partitions.unwrap_or(usual.partitions), replicas, min_in_sync })
    }
}

/// Adds the topics to a difference. Brokers that do not answer are no error: the database is compared without them.
pub(super) async fn compare(
    settings: &Settings,
    options: &SetupOptions,
    difference: &mut Difference,
) -> Result<(), Error> {
    let names = names(settings)?;
    options.topics.check()?;
    if names.is_empty() {
        return Ok(());
    }
    match ask(settings, &names).await {
        Ok(answer) => compare_with(&answer, &names, settings, options, difference),
        Err(error) => {
            difference.existing.push(format!("no topic was compared: {error}"));
            add_all(&names, settings, options, difference)
        }
    }
}

/// Adds all topics to a difference, without brokers.
pub(super) fn add_all(
    names: &[String],
    settings: &Settings,
    options: &SetupOptions,
    difference: &mut Difference,
) -> Result<(), Error> {
    let size = options.topics.size(USUAL_BROKERS)?;
    difference.changes.extend(names.iter().map(|name| missing(name, size, settings, options)));
    Ok(())
}

/// Creates the missing topics, and reports each one.
pub(super) async fn create(
    settings: &Settings,
    options: &SetupOptions,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let names = names(settings)?;
    if names.is_empty() {
        report("no topic is created: the topics follow from the rows. Name them in allowed_topics of the [[outbox]]");
        return Ok(());
    }
    let answer = ask(settings, &names).await?;
    let mut difference = Difference::default();
    compare_with(&answer, &names, settings, options, &mut difference)?;
    difference.existing.iter().for_each(|existing| report(existing));
    let size = options.topics.size(answer.brokers)?;
    let admin = Admin::start(&producer(settings), LOGIN_LIMIT).map_err(RelayError::from)?;
    for name in names.iter().filter(|name| answer.may_lack(name)) {
        match admin.create(name, size, LIMIT).await {
            Ok(()) => report(&format!(
                "topic {name} created: {} partitions, {} replicas, min.insync.replicas {}",
                size.partitions, size.replicas, size.min_in_sync
            )),
            Err(RDKafkaErrorCode::TopicAlreadyExists) => report(&format!("topic {name} exists")),
            Err(code) => {
                let command = Commands::new(&settings.kafka).create_with(name, size);
                return Err(Error::Topic { topic: name.clone(), code, command });
            }
        }
    }
    Ok(())
}

/// The topics of all tables that follow from the configuration alone.
pub(super) fn names(settings: &Settings) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = settings.routes()?.iter().flat_map(Route::known_topics).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn compare_with(
    answer: &Answer,
    names: &[String],
    settings: &Settings,
    options: &SetupOptions,
    difference: &mut Difference,
) -> Result<(), Error> {
    let size = options.topics.size(answer.brokers)?;
    for name in names {
        if answer.lacks(name) {
            difference.changes.push(missing(name, size, settings, options));
        } else {
            difference.existing.push(answer.existing(name, &options.topics));
        }
    }
    Ok(())
}

fn missing(name: &str, size: TopicSize, settings: &Settings, options: &SetupOptions) -> Change {
    let who = "a principal of Kafka that may create topics, with Kafka's own tools".to_owned();
    let command = Commands::new(&settings.kafka).create_with(name, size);
    let change = Change::sql(format!("create topic {name}"), Runner { who, is_current: None }, "");
    let change = Change { statement: Statement::Shell(command), ..change };
    if options.topics.with_topics {
        return change;
    }
    change.noting(["Or run `walrelay setup --apply --with-topics`."]).by_hand()
}

impl Answer {
    fn description(&self, name: &str) -> Option<&TopicDescription> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    fn lacks(&self, name: &str) -> bool {
        let error = self.description(name).and_then(|topic| topic.error);
        error == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
    }

    /// To a principal without the right to describe it, brokers do not say whether a topic exists.
    fn may_lack(&self, name: &str) -> bool {
        self.description(name).is_none_or(|topic| topic.error.is_some())
    }

    /// Says what an existing topic has, and what differs from the options. It is not changed.
    fn existing(&self, name: &str, options: &TopicOptions) -> String {
        let Some(topic) = self.description(name) else { return format!("topic {name} was not compared") };
        if let Some(code) = topic.error {
            return format!("topic {name} was not compared: {code}");
        }
        let partitions = topic.partitions.len();
        let replicas = topic.partitions.iter().map(|partition| partition.replicas).min().unwrap_or_default();
        let min = self.settings.get(name).and_then(|settings| settings.as_ref().ok()?.get("min.insync.replicas"));
        let mut text = format!("topic {name} has {partitions} partitions and {replicas} replicas");
        if let Some(min) = min {
            text.push_str(&format!(", min.insync.replicas {min}"));
        }
        let differs = |wanted: Option<i32>, found: Option<i32>| wanted.filter(|_| found.is_some() && wanted != found);
        let number = |count: usize| i32::try_from(count).ok();
        let asked = [
            ("--partitions", differs(options.partitions, number(partitions))),
            ("--replication-factor", differs(options.replication_factor, number(replicas))),
            ("--min-insync-replicas", differs(options.min_insync_replicas, min.and_then(|min| min.parse().ok()))),
        ];
        for (option, wanted) in asked {
            if let Some(wanted) = wanted {
                text.push_str(&format!("; it is left alone, not {option} {wanted}"));
            }
        }
        text
    }
}

fn producer(settings: &Settings) -> publish::Settings {
    let (kafka, name) = (settings.kafka.clone(), settings.relay.name.clone());
    publish::Settings::new(kafka, name, settings.delivery.max_in_flight_bytes)
}

/// Asks on a thread of its own, which nobody waits for: the end of a client waits for its resolver of names.
async fn ask(settings: &Settings, names: &[String]) -> Result<Answer, RelayError> {
    let (producer, names) = (producer(settings), names.to_vec());
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("topics".to_owned())
        .spawn(move || match Probe::start(&producer, LOGIN_LIMIT) {
            Ok(probe) => drop(answer.send(ask_probe(&probe, &names))),
            Err(error) => drop(answer.send(Err(error))),
        })
        .map_err(RelayError::Thread)?;
    match tokio::time::timeout(WHOLE, answered).await {
        Ok(Ok(answer)) => answer.map_err(RelayError::from),
        // The thread has panicked.
        Ok(Err(unanswered)) => Err(RelayError::Thread(io::Error::other(unanswered))),
        Err(_) => Err(RelayError::Publish(publish::Error::Unreachable {
            brokers: settings.kafka.brokers.join(","),
            reason: Some(format!("no answer within {} s", WHOLE.as_secs())),
            code: RDKafkaErrorCode::OperationTimedOut,
        })),
    }
}

fn ask_probe(probe: &Probe, names: &[String]) -> Result<Answer, publish::Error> {
    let cluster = probe.connect(LOGIN_LIMIT, PATIENCE)?;
    let topics = probe.topics(names, LIMIT)?.unwrap_or_default();
    let settings = probe.settings(names, LIMIT).unwrap_or_default();
    Ok(Answer { brokers: cluster.brokers, topics, settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_follows_from_the_brokers_unless_its_size_is_given() {
        let size = |partitions, replicas, min_in_sync| TopicSize { partitions, replicas, min_in_sync };
        let given = |replication_factor, min_insync_replicas| TopicOptions {
            replication_factor,
            min_insync_replicas,
            ..TopicOptions::default()
        };
        assert_eq!(given(None, None).size(1).unwrap(), size(6, 1, 1));
        assert_eq!(given(None, None).size(5).unwrap(), size(6, 3, 2));
        assert_eq!(given(Some(2), None).size(5).unwrap(), size(6, 2, 1));
        assert_eq!(given(Some(5), Some(3)).size(5).unwrap(), size(6, 5, 3));
        assert!(matches!(given(None, Some(2)).size(1), Err(Error::TooFewReplicas { min: 2, replicas: 1 })));
    }
}
