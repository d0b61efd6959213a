//! Kafka: log-in, topics, rights, replicas and limits. Nothing is sent, and no topic or group is created.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::relay::error::Error as RelayError;
use crate::relay::kafka_commands;
use crate::relay::kafka_commands::Commands;
use crate::relay::publish;
use crate::relay::publish::Cluster;
use crate::relay::publish::Failure;
use crate::relay::publish::Probe;
use crate::relay::publish::TopicDescription;
use crate::relay::publish::TopicSettings;
use crate::relay::settings::Settings;

use super::outbox_topics::TableTopics;
use super::report::Check;
use super::report::Finding;
use super::report::Group;
use super::report::Needed;
use super::report::Outcome;
use super::topics;
use super::topics::Expected;
use super::topics::TopicFacts;

const LOGIN: &str = "kafka_login";
const BROKERS: &str = "kafka_brokers";
const REACH: &str = "records go to the addresses that the brokers advertise";
const ADVERTISED: &str = "check advertised.listeners of the brokers: this machine must reach each of these addresses";
const ANSWER: &str = "an answer of the brokers";
/// The timeout of a log-in, and how long a failed one may be repeated within it.
const LOGIN_LIMIT: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(2);
/// The timeout of each request.
const LIMIT: Duration = Duration::from_secs(2);
/// The timeout of all of them together.
const WHOLE: Duration = Duration::from_secs(15);

/// What the brokers have said.
struct Facts {
    cluster: Cluster,
    /// None if no broker answered.
    producer_id: Option<Result<(), Failure>>,
    /// None if the brokers are too old to describe them; an error if no broker answers at its address.
    topics: Result<Option<Vec<TopicDescription>>, publish::Error>,
    settings: BTreeMap<String, TopicSettings>,
}

/// Checks the brokers and the topics of the tables.
pub(super) async fn check(settings: &Settings, tables: &[TableTopics]) -> Group {
    let (kafka, name) = (settings.kafka.clone(), settings.relay.name.clone());
    let producer = publish::Settings::new(kafka, name, settings.delivery.max_in_flight_bytes);
    let max_record_bytes = producer.max_record_bytes();
    let mut topics: BTreeMap<&String, bool> = BTreeMap::new();
    for (names, is_certain) in tables.iter().map(TableTopics::names) {
        names.iter().for_each(|name| *topics.entry(name).or_default() |= is_certain);
    }
    let names: Vec<String> = topics.keys().copied().cloned().collect();
    let asked = ask_in_time(producer, names.clone(), &settings.kafka.brokers).await;
    let commands = Commands::new(&settings.kafka);
    let (outcome, facts) = match asked {
        Ok(facts) => (Outcome::Passed(format!("{} brokers", facts.cluster.brokers)), Ok(facts)),
        Err(error) => (refused(&error, &settings.kafka), Err(LOGIN)),
    };
    let mut checks = vec![Check::new(LOGIN, "records go through it", outcome)];
    let facts = facts.as_ref().map_err(|needs| *needs);
    let reached = Outcome::with(facts, |facts| match &facts.topics {
        Ok(None) if facts.producer_id.is_none() => Outcome::skipped(ANSWER),
        Ok(_) => Outcome::Passed(String::new()),
        // A broker that gave a producer id is only slow.
        Err(error) if facts.producer_id.is_some() && error.reason().is_none() => Outcome::warned(error),
        Err(error) => Outcome::Found(vec![Finding::failure(error).then(Some(ADVERTISED.to_owned()))]),
    });
    checks.push(Check::new(BROKERS, REACH, reached));
    let producer_id = Outcome::with(facts, |facts| match &facts.producer_id {
        None => Outcome::skipped(if facts.topics.is_err() { BROKERS } else { ANSWER }),
        Some(Ok(())) => Outcome::Passed("is given".to_owned()),
        Some(Err(failure)) => Outcome::Found(vec![
            Finding::failure(failure).then(Some(format!("run `{}`", commands.grant_idempotence()))),
        ]),
    });
    checks.push(Check::new("producer_id", "idempotence needs it, which prevents repeated records", producer_id));
    for table in tables {
        checks.push(Check::new("topics", "each of them must exist", table.outcome()).about(&table.table));
    }
    let brokers = facts.map_or(1, |facts| facts.cluster.brokers);
    let expected = Expected { commands, brokers, max_record_bytes };
    for (name, is_certain) in topics {
        let of_topic = facts.and_then(|facts| of_topic(facts, name));
        let of_topic = topics::checks(name, of_topic.as_ref().map_err(|needs| *needs), &expected);
        // An old row's topic may be deleted for good.
        checks.extend(of_topic.into_iter().map(|check| if is_certain { check } else { check.without_failures() }));
    }
    Group { name: "kafka", checks }
}

/// Asks on a thread of its own. The end of a client waits for its resolver of names, which may not answer for long: the
/// answers come before it, and nothing here waits for it.
async fn ask_in_time(settings: publish::Settings, names: Vec<String>, brokers: &[String]) -> Result<Facts, RelayError> {
    let (answer, answered) = oneshot::channel();
    let asking = tokio::task::spawn_blocking(move || match Probe::start(&settings, LOGIN_LIMIT) {
        Ok(probe) => drop(answer.send(ask(&probe, &names))),
        Err(error) => drop(answer.send(Err(error.into()))),
    });
    match tokio::time::timeout(WHOLE, answered).await {
        Ok(Ok(answer)) => answer,
        // The thread has panicked.
        Ok(Err(unanswered)) => {
            let error = asking.await.err().map_or_else(|| io::Error::other(unanswered), io::Error::other);
            Err(RelayError::Thread(error))
        }
        Err(_) => Err(RelayError::Publish(publish::Error::Unreachable {
            brokers: brokers.join(","),
            reason: Some(format!("no answer within {} s", WHOLE.as_secs())),
            code: RDKafkaErrorCode::OperationTimedOut,
        })),
    }
}

/// Asks one after the other. Blocks.
fn ask(probe: &Probe, names: &[String]) -> Result<Facts, RelayError> {
    let cluster = probe.connect(LOGIN_LIMIT, PATIENCE)?;
    let producer_id = probe.await_producer_id(LIMIT);
    let topics = if !names.is_empty() {
        probe.topics(names, LIMIT)
    } else if producer_id.is_none() && probe.has_failed() {
        Err(probe.unanswered())
    } else {
        Ok(None)
    };
    let settings = match &topics {
        Ok(Some(_)) => probe.settings(names, LIMIT).unwrap_or_default(),
        Ok(None) | Err(_) => BTreeMap::new(),
    };
    Ok(Facts { cluster, producer_id, topics, settings })
}

fn of_topic(facts: &Facts, name: &str) -> Needed<TopicFacts> {
    let described = facts.topics.as_ref().map_err(|_| BROKERS)?.as_ref().ok_or("brokers that describe topics")?;
    let description = described.iter().find(|topic| topic.name == *name).ok_or(ANSWER)?;
    let settings = facts.settings.get(name).cloned();
    Ok(TopicFacts { name: name.to_owned(), description: description.clone(), settings })
}

/// The outcome of a failed log-in. A secret that cannot be read has a check of its own.
fn refused(error: &RelayError, kafka: &publish::Config) -> Outcome {
    let RelayError::Publish(of_kafka) = error else { return Outcome::failed(error) };
    if matches!(of_kafka, publish::Error::Secret(_)) {
        return Outcome::skipped("secret kafka.sasl.password");
    }
    let reason = of_kafka.reason().and_then(|reason| kafka_commands::next(reason, kafka));
    Outcome::Found(vec![Finding::failure(error).then(reason)])
}
