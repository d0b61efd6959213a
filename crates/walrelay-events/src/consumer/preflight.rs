//! Checks before a consumer joins its group: its topics and their dead-letter topics exist, and the inbox keeps event
//! ids longer than any topic keeps records. Waits for brokers that are down. Stops if access is denied.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::ConfigResource;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use crate::consumer::brokers;
use crate::consumer::config::Config;
use crate::consumer::config::InboxRetention;
use crate::consumer::dead_letter::Producer;
use crate::consumer::error::Error;
use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::kafka::is_connection_property;

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const BACKOFF: Duration = Duration::from_secs(1);
/// The interval at which a pause checks for a stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Checks, and retries until brokers answer. Returns false if `stop` was cancelled meanwhile.
pub(super) fn check(
    config: &Config,
    producer: &Producer,
    properties: &BTreeMap<String, String>,
    observer: &dyn Observer,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    let mut down_since: Option<Instant> = None;
    let mut topics = config.topics.clone();
    topics.extend(config.topics.iter().map(|topic| config.dead_letter_topic(topic)));
    topics.sort();
    topics.dedup();
    while !stop.is_cancelled() {
        match attempt(config, producer, properties, &topics) {
            Ok(checked) => {
                if let Some(since) = down_since {
                    observer.observe(&Observed::BrokersUp { after: since.elapsed() });
                }
                return checked.map(|()| true);
            }
            Err(error) => {
                let error = producer.take_authentication_error().unwrap_or(error);
                if let Some(fatal) = brokers::fatal(&error).filter(|_| !producer.lacks_token()) {
                    return Err(fatal);
                }
                tracing::warn!(error = %error, brokers = config.brokers, "retrying after error");
                if down_since.is_none() {
                    down_since = Some(Instant::now());
                    observer.observe(&Observed::AllBrokersDown);
                }
            }
        }
        for _ in 0..BACKOFF.as_millis() / STOP_CHECK.as_millis() {
            if stop.is_cancelled() {
                break;
            }
            thread::sleep(STOP_CHECK);
        }
    }
    Ok(false)
}

/// Checks once. An outer error is transient.
fn attempt(
    config: &Config,
    producer: &Producer,
    properties: &BTreeMap<String, String>,
    topics: &[String],
) -> Result<Result<(), Error>, KafkaError> {
    let missing = producer.missing_topics(topics, REQUEST_TIMEOUT)?;
    if !missing.is_empty() {
        let topics = missing.into_iter().map(str::to_owned).collect();
        return Ok(Err(Error::TopicsMissing { topics }));
    }
    let Some(inbox) = config.inbox_retention else { return Ok(Ok(())) };
    let retentions = retentions(config, properties).inspect_err(|error| {
        // librdkafka's mock cluster does not implement DescribeConfigs.
        tracing::warn!(error = %error, required_by = "inbox_retention", "DescribeConfigs failed");
    })?;
    for (topic, retention) in retentions {
        if let Err(error) = compare(inbox, &topic, retention) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// How long a topic keeps records; none means without limit. Kafka deletes whole segments, by their newest record.
type Retention = Option<RetentionRange>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct RetentionRange {
    /// `retention.ms`: each record is kept at least this long.
    least: Duration,
    /// `retention.ms` and `segment.ms`: the first record of a segment can be kept this long.
    most: Duration,
}

fn retentions(config: &Config, properties: &BTreeMap<String, String>) -> Result<Vec<(String, Retention)>, KafkaError> {
    let mut client = ClientConfig::new();
    for (name, value) in properties.iter().filter(|(name, _)| is_connection_property(name)) {
        client.set(name, value);
    }
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let resources: Vec<_> = config.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return Ok(Vec::new()) };
    let described = runtime.block_on(admin.describe_configs(&resources, &options))?;
    let read = |described: Result<ConfigResource, _>, topic: &String| match described {
        // Every topic has entries. rdkafka drops the error, which is a missing permission.
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
    Some(RetentionRange { least, most: least.saturating_add(time("segment.ms").unwrap_or_default()) })
}

fn compare(inbox: InboxRetention, topic: &str, retention: Retention) -> Result<(), Error> {
    let text = |retention: Retention| match retention {
        Some(RetentionRange { least, .. }) => format!("for {}", humantime::format_duration(least)),
        None => "without limit".to_owned(),
    };
    match inbox {
        InboxRetention::Forever => Ok(()),
        InboxRetention::For(inbox) if retention.is_some_and(|retention| retention.least <= inbox) => {
            if let Some(most) = retention.map(|retention| retention.most).filter(|most| *most > inbox) {
                // Whole segments are deleted, so records can outlive retention.ms by segment.ms. If offsets are reset
                // that far back, effects can repeat.
                tracing::warn!(
                    topic,
                    retention_with_segment = %humantime::format_duration(most),
                    inbox_retention = %humantime::format_duration(inbox),
                    "inbox retention is shorter than retention.ms plus segment.ms"
                );
            }
            Ok(())
        }
        InboxRetention::For(inbox) => Err(Error::InboxRetentionTooShort {
            inbox: humantime::format_duration(inbox).to_string(),
            topic: topic.to_owned(),
            retention: text(retention),
        }),
        InboxRetention::ShorterThanTopic(inbox) => {
            tracing::warn!(
                topic,
                retention = text(retention),
                inbox_retention = %humantime::format_duration(inbox),
                "inbox retention is shorter than topic retention"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_i12_an_inbox_with_a_shorter_retention_than_its_topic_is_refused() {
        let day = Duration::from_secs(86_400);
        let days = |days: u32| Some(RetentionRange { least: days * day, most: 2 * days * day });
        let rows = [
            (InboxRetention::Forever, None, true),
            (InboxRetention::For(7 * day), days(7), true),
            (InboxRetention::For(6 * day), days(7), false),
            (InboxRetention::For(600 * day), None, false),
            (InboxRetention::ShorterThanTopic(day), None, true),
        ];
        for (inbox, retention, is_valid) in rows {
            assert_eq!(compare(inbox, "t", retention).is_ok(), is_valid, "{inbox:?} {retention:?}");
        }
    }
}
