//! What must hold before a consumer joins its group: its topics are there, their dead-letter topics too, and the inbox
//! remembers events for longer than any topic keeps them. Waits for brokers that do not answer yet, not for ones that refuse.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::ConfigResource;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use crate::consumer::config::Config;
use crate::consumer::config::InboxKeeps;
use crate::consumer::dead_letter;
use crate::consumer::error::Error;
use crate::consumer::kafka;
use crate::kafka::is_of_connections;

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Checks, and waits for brokers. Says whether to go on: a stop ends the wait.
pub(super) fn check(
    config: &Config,
    letters: &dead_letter::Producer,
    properties: &BTreeMap<String, String>,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    let mut topics = config.topics.clone();
    topics.extend(config.topics.iter().map(|topic| config.dead_letter_topic(topic)));
    topics.sort();
    topics.dedup();
    while !stop.is_cancelled() {
        match look(config, letters, properties, &topics) {
            Ok(checked) => return checked.map(|()| true),
            Err(error) => {
                let error = letters.refused().unwrap_or(error);
                if let Some(refusal) = kafka::judge(&error) {
                    return Err(refusal);
                }
                tracing::warn!(error = %error, brokers = config.brokers, "Kafka does not answer yet");
            }
        }
        for _ in 0..PAUSE.as_millis() / LOOK.as_millis() {
            if stop.is_cancelled() {
                break;
            }
            thread::sleep(LOOK);
        }
    }
    Ok(false)
}

/// Looks once: an outer error is one that may pass.
fn look(
    config: &Config,
    letters: &dead_letter::Producer,
    properties: &BTreeMap<String, String>,
    topics: &[String],
) -> Result<Result<(), Error>, KafkaError> {
    let missing = letters.missing(topics, ANSWER)?;
    if !missing.is_empty() {
        let topics = missing.into_iter().map(str::to_owned).collect();
        return Ok(Err(Error::TopicsMissing { topics }));
    }
    let Some(keeps) = config.inbox_keeps else { return Ok(Ok(())) };
    let retentions = retentions(config, properties).inspect_err(|error| {
        tracing::warn!(
            error = %error,
            "Kafka answers, but does not tell how long it keeps records: inbox_keeps is compared with that (testing::Broker \
             cannot tell it; leave inbox_keeps out there)"
        );
    })?;
    for (topic, retention) in retentions {
        if let Err(error) = compare(keeps, &topic, retention) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// How long a topic keeps its records; none is for ever.
type Retention = Option<Keeps>;

/// Kafka deletes whole segments, and those by their newest record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Keeps {
    /// `retention.ms`: each record is there for so long.
    least: Duration,
    /// And with `segment.ms`: the first record of a segment may be there for so long.
    most: Duration,
}

fn retentions(config: &Config, properties: &BTreeMap<String, String>) -> Result<Vec<(String, Retention)>, KafkaError> {
    let mut client = ClientConfig::new();
    for (name, value) in properties.iter().filter(|(name, _)| is_of_connections(name)) {
        client.set(name, value);
    }
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let asked: Vec<_> = config.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return Ok(Vec::new()) };
    let described = runtime.block_on(admin.describe_configs(&asked, &options))?;
    let read = |described: Result<ConfigResource, _>, topic: &String| match described {
        // Every topic has entries: rdkafka leaves out why there are none, and that is a right that is missing.
        Ok(resource) if resource.entries.is_empty() => {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed))
        }
        Ok(resource) => Ok((topic.clone(), retention(&resource))),
        Err(code) => Err(KafkaError::AdminOp(code)),
    };
    described.into_iter().zip(&config.topics).map(|(described, topic)| read(described, topic)).collect()
}

fn retention(resource: &ConfigResource) -> Retention {
    let entries = resource.entry_map();
    let value = |name: &str| entries.get(name).and_then(|entry| entry.value.as_deref());
    if value("cleanup.policy").is_some_and(|policy| policy.split(',').any(|policy| policy.trim() == "compact")) {
        return None;
    }
    let time = |name: &str| value(name)?.parse::<u64>().ok().map(Duration::from_millis);
    let least = time("retention.ms")?;
    Some(Keeps { least, most: least.saturating_add(time("segment.ms").unwrap_or_default()) })
}

fn compare(keeps: InboxKeeps, topic: &str, retention: Retention) -> Result<(), Error> {
    let told = |retention: Retention| match retention {
        Some(Keeps { least, .. }) => format!("for {}", humantime::format_duration(least)),
        None => "without limit".to_owned(),
    };
    match keeps {
        InboxKeeps::Forever => Ok(()),
        InboxKeeps::For(kept) if retention.is_some_and(|retention| retention.least <= kept) => {
            if let Some(most) = retention.map(|retention| retention.most).filter(|most| *most > kept) {
                tracing::warn!(
                    topic,
                    may_keep = %humantime::format_duration(most),
                    inbox = %humantime::format_duration(kept),
                    "the topic deletes whole segments, so some records outlive retention.ms by up to segment.ms: if offsets \
                     are set back that far, effects may repeat"
                );
            }
            Ok(())
        }
        InboxKeeps::For(kept) => Err(Error::InboxTooShort {
            inbox: humantime::format_duration(kept).to_string(),
            topic: topic.to_owned(),
            retention: told(retention),
        }),
        InboxKeeps::ForLessThanTopic(kept) => {
            tracing::warn!(
                topic,
                retention = told(retention),
                inbox = %humantime::format_duration(kept),
                "the inbox forgets sooner than the topic: if offsets are set back, effects may repeat"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_i12_an_inbox_that_forgets_sooner_than_its_topic_is_refused() {
        let day = Duration::from_secs(86_400);
        let days = |days: u32| Some(Keeps { least: days * day, most: 2 * days * day });
        let rows = [
            (InboxKeeps::Forever, None, true),
            (InboxKeeps::For(7 * day), days(7), true),
            (InboxKeeps::For(6 * day), days(7), false),
            (InboxKeeps::For(600 * day), None, false),
            (InboxKeeps::ForLessThanTopic(day), None, true),
        ];
        for (keeps, retention, is_fine) in rows {
            assert_eq!(compare(keeps, "t", retention).is_ok(), is_fine, "{keeps:?} {retention:?}");
        }
    }
}
