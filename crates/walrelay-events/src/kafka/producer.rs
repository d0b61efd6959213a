//! What the relay's producer and the library's publisher have in common: properties that carry a guarantee, and what
//! Kafka's errors of a record mean.

use rdkafka::error::RDKafkaErrorCode as Kafka;

/// How long an unknown topic is waited for: longer than a broker's restart.
const TOPIC_GRACE_MS: &str = "60000";
/// The default of the brokers for one batch: librdkafka's own would refuse records that they take.
pub const MAX_RECORD_BYTES: usize = 1_048_588;
const MAX_RECORD_BYTES_TEXT: &str = "1048588";

/// librdkafka's default batch size, a little below the default of a topic's `max.message.bytes`.
const BATCH_BYTES: usize = 1_000_000;
/// The smallest batch size. A single record may be larger.
const MIN_BATCH_BYTES: usize = 16 * 1_024;

/// Without one of these a record could be lost, duplicated or reordered.
pub const GUARANTEES: [(&str, &str); 10] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight", "5"),
    // A record never times out: later ones would be delivered without it.
    ("message.timeout.ms", "0"),
    // A permanent error ends the producer instead of skipping the batch.
    ("enable.gapless.guarantee", "true"),
    // As in Java's clients, Debezium and Kafka Connect: keys go to the same partitions.
    ("partitioner", "murmur2_random"),
    ("allow.auto.create.topics", "false"),
    ("topic.metadata.propagation.max.ms", TOPIC_GRACE_MS),
    // So that the limit in bytes is reached first.
    ("queue.buffering.max.messages", "1000000"),
    // They show that a broker is up again.
    ("statistics.interval.ms", "5000"),
];

/// Defaults that properties can change.
pub const DEFAULTS: [(&str, &str); 8] = [
    ("message.max.bytes", MAX_RECORD_BYTES_TEXT),
    ("linger.ms", "1"),
    ("batch.num.messages", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    // Reconnect within two seconds after a broker is up again.
    ("reconnect.backoff.max.ms", "1000"),
    ("log.connection.close", "false"),
    // An idle producer notices this often whether its brokers are up.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// Properties that a guarantee depends on, and why they cannot be set.
pub const GUARDED: [(&str, &str); 17] = [
    ("enable.idempotence", ORDER),
    ("acks", ORDER),
    ("request.required.acks", ORDER),
    ("max.in.flight", ORDER),
    ("max.in.flight.requests.per.connection", ORDER),
    ("retries", ORDER),
    ("message.send.max.retries", ORDER),
    ("queuing.strategy", ORDER),
    ("message.timeout.ms", TIME),
    ("delivery.timeout.ms", TIME),
    ("enable.gapless.guarantee", ORDER),
    ("delivery.report.only.error", "a record counts as delivered only with its own delivery report"),
    ("partitioner", "keys must go to the same partitions as with Java's clients"),
    ("allow.auto.create.topics", "walrelay never creates topics"),
    ("transactional.id", "walrelay does not use Kafka's transactions"),
    ("topic.metadata.propagation.max.ms", "it is long enough for a broker's restart"),
    ("statistics.interval.ms", "walrelay uses the statistics to detect brokers that are up"),
];
/// Why the properties of idempotence cannot be set.
pub const ORDER: &str = "the guarantee that nothing is lost, duplicated or reordered depends on it";
const TIME: &str = "a record that times out would leave a gap";

/// Returns the size of librdkafka's queue in KiB. A single record may be larger than the limit of what is in flight and
/// must fit.
#[must_use]
pub fn queue_kib(in_flight_bytes: u64, max_record_bytes: usize) -> u64 {
    let largest = u64::try_from(max_record_bytes).unwrap_or(u64::MAX);
    in_flight_bytes.max(largest).div_ceil(1_024).clamp(1_024, 2_097_151)
}

/// Returns half of a batch size, given or librdkafka's default: a topic may have a lower limit than its brokers.
#[must_use]
pub fn smaller_batch(given_bytes: Option<usize>) -> usize {
    (given_bytes.unwrap_or(BATCH_BYTES) / 2).max(MIN_BATCH_BYTES)
}

/// What follows from a failed record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The brokers' or the producer's state: a new producer helps.
    Transient,
    /// Kafka rejects this record, or one of its batch, each time.
    Record,
    /// The topic does not exist.
    Topic,
    /// The principal is not authorized.
    Rights,
}

impl Verdict {
    /// Classifies librdkafka's error of a record. An unlisted one is retried with a new producer, and logged.
    #[must_use]
    pub const fn of(code: Kafka) -> Self {
        if is_about_size(code) || is_about_content(code) {
            return Self::Record;
        }
        if matches!(code, Kafka::UnknownTopic | Kafka::UnknownTopicOrPartition) {
            return Self::Topic;
        }
        if is_lack_of_rights(code) {
            return Self::Rights;
        }
        Self::Transient
    }
}

/// Returns whether a record failed because another one did, or because its producer did.
#[must_use]
pub const fn is_consequence(code: Kafka) -> bool {
    matches!(code, Kafka::Fatal | Kafka::PurgeQueue | Kafka::PurgeInflight)
}

/// Returns whether a record or its batch was too large.
#[must_use]
pub const fn is_about_size(code: Kafka) -> bool {
    matches!(code, Kafka::MessageSizeTooLarge | Kafka::InvalidMessageSize | Kafka::MessageBatchTooLarge)
}

const fn is_about_content(code: Kafka) -> bool {
    matches!(
        code,
        Kafka::InvalidMessage
            | Kafka::InvalidRecord
            | Kafka::PolicyViolation
            | Kafka::InvalidTopic
            | Kafka::UnsupportedForMessageFormat
            | Kafka::InvalidDifferentRecord
            // The topic exists and does not have the partition that the row names.
            | Kafka::UnknownPartition
    )
}

/// Returns whether credentials or permissions are missing.
#[must_use]
pub const fn is_lack_of_rights(code: Kafka) -> bool {
    matches!(
        code,
        Kafka::TopicAuthorizationFailed
            | Kafka::ClusterAuthorizationFailed
            | Kafka::SaslAuthenticationFailed
            | Kafka::Authentication
            | Kafka::UnsupportedSASLMechanism
    )
}
