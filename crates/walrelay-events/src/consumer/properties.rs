//! librdkafka's properties for the consumer.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::consumer::config::Config;
use crate::consumer::config::GroupProtocol;
use crate::consumer::error::Error;
use crate::kafka;

/// librdkafka's default of `max.poll.interval.ms`.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// What the last commit before a revocation needs, besides `revoke_timeout`.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Properties that carry a guarantee or have an option of their own, and why.
const GUARDED: [(&str, &str); 14] = [
    ("bootstrap.servers", "set Config::brokers"),
    ("metadata.broker.list", "set Config::brokers"),
    ("group.id", "set Config::group"),
    ("enable.auto.commit", "only acked records are committed"),
    ("enable.auto.offset.store", "only acked records are committed"),
    ("auto.commit.enable", "only acked records are committed"),
    ("offset.store.method", "offsets are committed to the group"),
    ("offset.store.path", "offsets are committed to the group"),
    ("enable.partition.eof", "the end of a partition is not an error"),
    ("allow.auto.create.topics", "a missing topic is an error"),
    ("auto.offset.reset", "set Config::start and Config::on_gap"),
    ("partition.assignment.strategy", "rebalances are cooperative"),
    ("group.protocol", "set Config::group_protocol"),
    ("statistics.interval.ms", "lag is read from the statistics"),
];

/// Defaults that differ from librdkafka's. They can be changed.
const DEFAULTS: [(&str, &str); 4] = [
    // Lanes buffer records, too, so librdkafka prefetches little.
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "8192"),
    // With so small a queue, the default of 1 s between two fetches would dominate.
    ("fetch.queue.backoff.ms", "10"),
    // A partition that is resumed waits for the answer to a fetch of others.
    ("fetch.wait.max.ms", "100"),
];

/// Returns librdkafka's properties, or the option that is invalid.
pub(super) fn properties(config: &Config) -> Result<ClientConfig, Error> {
    check(config)?;
    let mut client = client_of(config, DEFAULTS, |_| true);
    client.set("auto.offset.reset", "error").set("statistics.interval.ms", "5000");
    if config.token_provider.is_some() {
        client.set("sasl.mechanisms", "OAUTHBEARER");
    }
    match config.group_protocol {
        GroupProtocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
        GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
    };
    Ok(client)
}

/// Returns the properties of a client that reads partitions of the group and is not a member of it.
pub(super) fn detached(config: &Config) -> ClientConfig {
    let is_kept = |name: &str| kafka::is_connection_property(name) || name == "isolation.level";
    let mut client = client_of(config, [], is_kept);
    client
        // A truncated log is read from where it was truncated to.
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .set("statistics.interval.ms", "100");
    client
}

/// Returns what every client of the group has: defaults, those properties of the application that it keeps, and no
/// commits of its own.
fn client_of<const N: usize>(
    config: &Config,
    defaults: [(&str, &str); N],
    is_kept: impl Fn(&str) -> bool,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in defaults {
        client.set(name, value);
    }
    for (name, value) in config.properties.iter().filter(|(name, _)| is_kept(name)) {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

/// Returns `max.poll.interval.ms`.
pub(super) fn max_poll_interval(config: &Config) -> Duration {
    let given = config.properties.get("max.poll.interval.ms").and_then(|millis| millis.parse().ok());
    given.map_or(MAX_POLL_INTERVAL, Duration::from_millis)
}

fn check(config: &Config) -> Result<(), Error> {
    for name in config.properties.keys() {
        let guarded = GUARDED.iter().find(|(guarded, _)| guarded == name).map(|(_, why)| *why);
        if let Some(why) = guarded.or_else(|| kafka::refusal(name)) {
            return Err(Error::Option(format!("cannot set property {name}: {why}")));
        }
    }
    if config.group.is_empty() || config.topics.is_empty() {
        return Err(Error::Option("cannot start: a consumer needs a group and at least one topic".to_owned()));
    }
    if let Some(topic) = config.topics.iter().find(|topic| config.dead_letter_topic(topic) == **topic) {
        return Err(Error::Option(format!(
            "invalid dead_letters.topic {:?}: the dead-letter records of topic {topic} would be consumed from it again",
            config.dead_letters.topic
        )));
    }
    if config.token_provider.is_some() && config.inbox_retention.is_some() {
        return Err(Error::Option(
            "cannot check inbox_retention with token_provider: librdkafka's Rust client gives requests for settings no \
             token; leave inbox_retention out, and compare the retention yourself"
                .to_owned(),
        ));
    }
    let limits = [
        ("max_concurrency", config.max_concurrency as u64),
        ("max_buffered_records", config.max_buffered_records as u64),
        ("max_buffered_bytes", config.max_buffered_bytes),
    ];
    if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
        return Err(Error::Option(format!("invalid {name}: it must be at least 1")));
    }
    if config.handler_timeout == Some(Duration::ZERO) {
        return Err(Error::Option("invalid handler_timeout: it must be longer than 0, or none".to_owned()));
    }
    let max_poll_interval = max_poll_interval(config);
    if config.revoke_timeout.saturating_add(COMMIT_TIMEOUT) >= max_poll_interval {
        return Err(Error::Option(format!(
            "invalid revoke_timeout {:?}: with {COMMIT_TIMEOUT:?} for the last commit it must be shorter than \
             max.poll.interval.ms, {max_poll_interval:?}, or the assignment is lost meanwhile",
            config.revoke_timeout
        )));
    }
    Ok(())
}
