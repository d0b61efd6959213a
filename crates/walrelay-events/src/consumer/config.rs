//! The options of a consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::consumer::budget::Limit;
use crate::consumer::dead_letter::Names;
use crate::consumer::retry::Policy;

/// The options of a consumer. [`Config::new`] gives the defaults.
///
/// ```
/// use std::time::Duration;
/// use walrelay_events::consumer::{Config, InboxKeeps};
///
/// let mut config = Config::new("kafka-1:9093,kafka-2:9093", "shipping", &["order-events"]);
/// config.properties.insert("security.protocol".to_owned(), "ssl".to_owned());
/// config.running_max = 16;
/// config.retry.tries_max = 5;
/// config.inbox_keeps = Some(InboxKeeps::For(Duration::from_secs(8 * 86_400)));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The brokers to start from, `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group; a good name for the inbox, too.
    pub group: String,
    /// The topics, by their exact names.
    pub topics: Vec<String>,
    /// Any other librdkafka property, such as those of TLS and SASL. The ones that carry a guarantee are refused.
    pub properties: BTreeMap<String, String>,
    /// How the members of the group share partitions.
    pub protocol: Protocol,
    /// How many records may be in handlers at once.
    pub running_max: usize,
    /// How many records of one partition are held; beyond it the partition is paused.
    pub records_max: usize,
    /// How many bytes of records are held; beyond it all partitions are paused.
    pub bytes_max: u64,
    /// How often and how soon a failed event is tried again.
    pub retry: Policy,
    /// Where events go that are rejected.
    pub dead_letters: DeadLetters,
    /// How often offsets are committed.
    pub commit_interval: Duration,
    /// How long a stop waits for handlers.
    pub drain: Duration,
    /// How long handlers may still run when a partition is taken away. Less than `max.poll.interval.ms`, by 3 s at least.
    pub revoke_drain: Duration,
    /// Where a group starts that has committed nothing yet.
    pub start: Start,
    /// What happens when records are gone that were not consumed.
    pub on_gap: OnGap,
    /// How long the application's inbox remembers events, if it uses one.
    pub inbox_keeps: Option<InboxKeeps>,
}

/// Where events go that are rejected, how they are labelled, and how many may go.
///
/// ```
/// use walrelay_events::consumer::{Config, Limit, dead_letter::Names};
///
/// let mut config = Config::new("localhost:9092", "shipping", &["order-events"]);
/// assert_eq!(config.dead_letter_topic("order-events"), "order-events.dlq");
/// config.dead_letters.topic = "shipping.{topic}.dead".to_owned();
/// config.dead_letters.names = Names::Spring;
/// config.dead_letters.limit = Limit { consecutive_max: 5, per_thousand_max: 20 };
/// assert_eq!(config.dead_letter_topic("order-events"), "shipping.order-events.dead");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetters {
    /// The topic; `{topic}` stands for the record's own.
    pub topic: String,
    /// The names of the headers that say where a record came from and why.
    pub names: Names,
    /// How much may be rejected before the consumer stops.
    pub limit: Limit,
}

/// Where a group starts that has committed nothing yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// After the newest record.
    Latest,
}

/// How the members of a group share partitions. All of them do it in the same way; a group changes it member by member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// The members agree on it, cooperatively. Any Kafka can do that. One that does not answer holds up the agreement of all.
    #[default]
    Classic,
    /// The brokers decide (KIP-848, Kafka 4.0 and later): one that does not answer holds up its own partitions and no others.
    /// When it counts as gone is for the brokers to say: `group.consumer.session.timeout.ms`.
    Consumer,
}

/// What happens when the committed offset is not there any more: retention has passed it, or the topic is another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnGap {
    /// The consumer stops and says which records are gone.
    #[default]
    Stop,
    /// It warns and goes on at the oldest record that is there.
    GoOn,
}

/// How long the application's inbox remembers events. Compared with the retention of the topics when the consumer starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InboxKeeps {
    /// For ever.
    Forever,
    /// For this long. Refused if a topic keeps its records longer by its `retention.ms`, or without limit; warned of if some
    /// may outlive that by `segment.ms`.
    For(Duration),
    /// For this long, although a topic keeps its records longer: if offsets are ever set back, effects may repeat.
    ForLessThanTopic(Duration),
}

impl Config {
    /// Gives the defaults for these brokers, this group and these topics.
    #[must_use]
    pub fn new(brokers: &str, group: &str, topics: &[&str]) -> Self {
        Self {
            brokers: brokers.to_owned(),
            group: group.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            properties: BTreeMap::new(),
            protocol: Protocol::default(),
            running_max: 256,
            records_max: 8_192,
            bytes_max: 32 << 20,
            retry: Policy::default(),
            dead_letters: DeadLetters::default(),
            commit_interval: Duration::from_secs(1),
            drain: Duration::from_secs(20),
            revoke_drain: Duration::from_secs(5),
            start: Start::default(),
            on_gap: OnGap::default(),
            inbox_keeps: None,
        }
    }

    /// Gives the dead-letter topic of a topic.
    #[must_use]
    pub fn dead_letter_topic(&self, topic: &str) -> String {
        self.dead_letters.topic.replace("{topic}", topic)
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { topic: "{topic}.dlq".to_owned(), names: Names::default(), limit: Limit::default() }
    }
}
