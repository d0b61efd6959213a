//! The options of a consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::consumer::budget::DeadLetterBudget;
use crate::consumer::dead_letter::HeaderFormat;
use crate::consumer::retry::RetryPolicy;
use crate::oauth::TokenProvider;

/// The options of a consumer. [`Config::new`] returns the defaults.
///
/// ```
/// use std::time::Duration;
/// use walrelay_events::consumer::{Config, InboxRetention};
///
/// let mut config = Config::new("kafka-1:9093,kafka-2:9093", "shipping", &["order-events"]);
/// config.properties.insert("security.protocol".to_owned(), "ssl".to_owned());
/// config.max_concurrency = 16;
/// config.retry.max_attempts = 5;
/// config.inbox_retention = Some(InboxRetention::For(Duration::from_secs(8 * 86_400)));
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The bootstrap servers: `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// The topics to subscribe to, by exact name.
    pub topics: Vec<String>,
    /// Further librdkafka properties, for example for TLS and SASL. Properties that carry a guarantee are refused.
    pub properties: BTreeMap<String, String>,
    /// Fetches tokens for SASL OAUTHBEARER. Without a provider, the properties decide how the clients log in.
    pub token_provider: Option<TokenProvider>,
    /// How partitions are assigned to the members of the group.
    pub group_protocol: GroupProtocol,
    /// The maximum number of handlers that run at once. Those of revoked partitions count until they return.
    pub max_concurrency: usize,
    /// How long a handler may take; by default there is no limit. Then its [`Cancellation`] says so, and one second
    /// later it is dropped where it awaits. The attempt has failed and is retried as the retry policy says. What the
    /// handler has spawned, or runs without awaiting, is not ended.
    ///
    /// [`Cancellation`]: crate::consumer::Cancellation
    pub handler_timeout: Option<Duration>,
    /// The maximum number of buffered records per partition. A partition that reaches it and stays full is paused.
    pub max_buffered_records: usize,
    /// The maximum number of buffered bytes of all partitions. When it is reached, every partition is paused.
    pub max_buffered_bytes: u64,
    /// How often a failed record is retried, and after which backoff.
    pub retry: RetryPolicy,
    /// Where dead-letter records go.
    pub dead_letters: DeadLetters,
    /// The interval between two commits of offsets.
    pub commit_interval: Duration,
    /// How long a shutdown takes at most: running handlers, the last commit, leaving the group and closing the client.
    /// Handlers get three quarters of it, or all but the last 3 s.
    pub shutdown_timeout: Duration,
    /// How long the revocation of a partition waits for its running handlers. At least 3 s less than
    /// `max.poll.interval.ms`.
    pub revoke_timeout: Duration,
    /// Where a group without committed offsets starts.
    pub start: Start,
    /// What happens when records were deleted before the group consumed them.
    pub on_gap: OnGap,
    /// How long the application's inbox keeps event ids, if it has one.
    pub inbox_retention: Option<InboxRetention>,
}

/// Where dead-letter records go, which headers they get, and how many there may be.
///
/// ```
/// use walrelay_events::consumer::{Config, HeaderFormat};
///
/// let mut config = Config::new("localhost:9092", "shipping", &["order-events"]);
/// assert_eq!(config.dead_letter_topic("order-events"), "order-events.dlq");
/// config.dead_letters.topic = "shipping.{topic}.dlq".to_owned();
/// config.dead_letters.header_format = HeaderFormat::Spring;
/// config.dead_letters.budget.max_consecutive = 5;
/// assert_eq!(config.dead_letter_topic("order-events"), "shipping.order-events.dlq");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetters {
    /// The dead-letter topic. `{topic}` is replaced by the topic of the record.
    pub topic: String,
    /// The format of the headers that describe the origin and the reason.
    pub header_format: HeaderFormat,
    /// How many records may be dead-lettered before the consumer stops.
    pub budget: DeadLetterBudget,
}

/// Where a group without committed offsets in a topic starts. Partitions that are added later start at their oldest
/// record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// After the newest record.
    Latest,
}

/// How partitions are assigned: Kafka's `group.protocol`. All members use the same; a rolling restart changes it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The members agree on the assignment (`cooperative-sticky`). Every Kafka version supports it. A member that does
    /// not respond delays the rebalance of all.
    #[default]
    Classic,
    /// The brokers assign partitions (KIP-848, Kafka 4.0 and later). A member that does not respond delays only its own
    /// partitions. The session timeout is the broker's `group.consumer.session.timeout.ms`.
    Consumer,
}

/// What happens when a committed offset no longer exists: retention deleted the records, the topic was recreated, or
/// the log was truncated because a leader without some of the records was elected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnGap {
    /// The consumer stops with [`Error::Gap`](crate::consumer::Error::Gap) or
    /// [`Error::Truncated`](crate::consumer::Error::Truncated).
    #[default]
    Stop,
    /// The consumer logs a warning and continues at the oldest record, or at the one where a truncated log differs.
    SkipToEarliest,
}

/// How long the application's inbox keeps event ids. Checked against the retention of the topics at every start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InboxRetention {
    /// Without limit.
    Forever,
    /// For this long. The consumer does not start if `retention.ms` of a topic is longer or unlimited. It logs a
    /// warning if records may outlive the inbox by `segment.ms`.
    For(Duration),
    /// For this long, although a topic keeps records longer. If offsets are reset further back, effects can repeat.
    ShorterThanTopic(Duration),
}

impl Config {
    /// Returns the defaults for these brokers, this group and these topics.
    #[must_use]
    pub fn new(brokers: &str, group: &str, topics: &[&str]) -> Self {
        Self {
            brokers: brokers.to_owned(),
            group: group.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            properties: BTreeMap::new(),
            token_provider: None,
            group_protocol: GroupProtocol::default(),
            max_concurrency: 256,
            handler_timeout: None,
            max_buffered_records: 8_192,
            max_buffered_bytes: 32 << 20,
            retry: RetryPolicy::default(),
            dead_letters: DeadLetters::default(),
            commit_interval: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(20),
            revoke_timeout: Duration::from_secs(5),
            start: Start::default(),
            on_gap: OnGap::default(),
            inbox_retention: None,
        }
    }

    /// Returns the dead-letter topic of a topic.
    #[must_use]
    pub fn dead_letter_topic(&self, topic: &str) -> String {
        self.dead_letters.topic.replace("{topic}", topic)
    }
}

impl fmt::Debug for Config {
    /// Without the values of properties: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            brokers,
            group,
            topics,
            properties,
            token_provider,
            group_protocol,
            max_concurrency,
            handler_timeout,
            max_buffered_records,
            max_buffered_bytes,
            retry,
            dead_letters,
            commit_interval,
            shutdown_timeout,
            revoke_timeout,
            start,
            on_gap,
            inbox_retention,
        } = self;
        f.debug_struct("Config")
            .field("brokers", brokers)
            .field("group", group)
            .field("topics", topics)
            .field("properties", &properties.keys())
            .field("token_provider", token_provider)
            .field("group_protocol", group_protocol)
            .field("max_concurrency", max_concurrency)
            .field("handler_timeout", handler_timeout)
            .field("max_buffered_records", max_buffered_records)
            .field("max_buffered_bytes", max_buffered_bytes)
            .field("retry", retry)
            .field("dead_letters", dead_letters)
            .field("commit_interval", commit_interval)
            .field("shutdown_timeout", shutdown_timeout)
            .field("revoke_timeout", revoke_timeout)
            .field("start", start)
            .field("on_gap", on_gap)
            .field("inbox_retention", inbox_retention)
            .finish()
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self {
            topic: "{topic}.dlq".to_owned(),
            header_format: HeaderFormat::default(),
            budget: DeadLetterBudget::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_output_contains_no_value_of_a_property() {
        let mut config = Config::new("localhost:9092", "shipping", &["order-events"]);
        config.properties.insert("sasl.password".to_owned(), "secret".to_owned());
        let text = format!("{config:?}");
        assert!(text.contains("sasl.password") && text.contains("shipping") && !text.contains("secret"), "{text}");
    }
}
