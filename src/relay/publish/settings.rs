//! From `[kafka]` to librdkafka's properties. What carries a guarantee is set here, and cannot be set elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use walrelay_events::internal::is_connection_property;

use super::config::Compression;
use super::config::Config;
use super::config::Mechanism;
use super::error::Error;

/// How long an unknown topic is waited for: longer than a broker's restart.
const TOPIC_GRACE_MS: &str = "60000";
/// The default of the brokers for one batch: librdkafka's own would refuse records that they take.
const MAX_RECORD_BYTES: usize = 1_048_588;
const MAX_RECORD_BYTES_TEXT: &str = "1048588";

/// librdkafka's default batch size, a little below the default of a topic's `max.message.bytes`.
const BATCH_BYTES: usize = 1_000_000;
/// The smallest batch size. A single record may be larger.
const MIN_BATCH_BYTES: usize = 16 * 1_024;

/// Topics accept timestamps that are no further from now, with few exceptions.
const RECENT: Duration = Duration::from_secs(60);

/// The settings of a producer. Secrets are read for each producer.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Config,
    client_id: String,
    in_flight_bytes: u64,
    /// The batch size, after a batch was rejected for its size.
    batch_bytes: Option<usize>,
    /// How far a timestamp may be from now, by topic, after one was rejected.
    spans: BTreeMap<String, Duration>,
}

impl Settings {
    /// Creates the settings for a client with this id; the queue has room for `in_flight_bytes`.
    #[must_use]
    pub const fn new(config: Config, client_id: String, in_flight_bytes: u64) -> Self {
        Self { config, client_id, in_flight_bytes, batch_bytes: None, spans: BTreeMap::new() }
    }

    /// Halves the batch size of later producers: a topic may have a lower limit than its brokers.
    pub fn shrink_batches(&mut self) {
        let given = self.config.properties.get("batch.size").and_then(|text| text.parse().ok());
        let now = self.batch_bytes.or(given).unwrap_or(BATCH_BYTES);
        self.batch_bytes = Some((now / 2).max(MIN_BATCH_BYTES));
    }

    /// For a topic that rejects timestamps far from its brokers' clock: records of later producers get the current time
    /// if their own timestamp is not recent; at the second call, always. Says whether this changes anything.
    pub fn narrow_timestamps(&mut self, topic: &str) -> bool {
        let span = if self.spans.contains_key(topic) { Duration::ZERO } else { RECENT };
        self.spans.insert(topic.to_owned(), span) != Some(span)
    }

    /// Gives those topics, and how far from now a timestamp may be.
    pub(super) const fn spans(&self) -> &BTreeMap<String, Duration> {
        &self.spans
    }

    /// Gives librdkafka's limit of a record's size.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        let given = self.config.properties.get("message.max.bytes");
        given.and_then(|text| text.parse().ok()).unwrap_or(MAX_RECORD_BYTES)
    }

    /// Gives the size of librdkafka's queue. The relay counts more per record than librdkafka, so its own limit is
    /// reached first; a single record may be larger than that limit and must fit.
    fn queue_kib(&self) -> u64 {
        let largest = u64::try_from(self.max_record_bytes()).unwrap_or(u64::MAX);
        self.in_flight_bytes.max(largest).div_ceil(1_024).clamp(1_024, 2_097_151)
    }

    /// Builds the properties of a producer.
    pub fn client(&self) -> Result<ClientConfig, Error> {
        let mut client = ClientConfig::new();
        let mut set = BTreeMap::new();
        set.extend(GUARANTEES.map(|(name, value)| (name, value.to_owned())));
        set.extend(DEFAULTS.map(|(name, value)| (name, value.to_owned())));
        set.insert("bootstrap.servers", self.config.brokers.join(","));
        set.insert("client.id", self.client_id.clone());
        set.insert("queue.buffering.max.kbytes", self.queue_kib().to_string());
        set.insert("compression.type", compression(self.config.compression).to_owned());
        self.security(&mut set)?;
        for (name, value) in &set {
            client.set(*name, value);
        }
        for (name, value) in &self.config.properties {
            client.set(name, value);
        }
        if let Some(bytes) = self.batch_bytes {
            client.set("batch.size", bytes.to_string());
        }
        client.set_log_level(RDKafkaLogLevel::Notice);
        Ok(client)
    }

    /// Builds the connection properties, for other clients than the relay's producer.
    pub fn connection(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut set = BTreeMap::new();
        set.insert("bootstrap.servers", self.config.brokers.join(","));
        set.insert("client.id", self.client_id.clone());
        self.security(&mut set)?;
        let own = self.config.properties.iter().filter(|(name, _)| is_connection_property(name));
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value));
        Ok(set.chain(own.map(|(name, value)| (name.clone(), value.clone()))).collect())
    }

    fn security(&self, set: &mut BTreeMap<&'static str, String>) -> Result<(), Error> {
        let Config { tls, sasl, .. } = &self.config;
        if let Some(text) = plaintext_error(&self.config) {
            return Err(Error::Option(text));
        }
        if let Some(tls) = tls {
            // A vendored OpenSSL has no certificate directory of its own: search the usual ones.
            let root = if tls.root_cert == "system" { "probe" } else { &tls.root_cert };
            set.insert("ssl.ca.location", root.to_owned());
            if let Some(cert) = &tls.cert {
                set.insert("ssl.certificate.location", cert.display().to_string());
            }
            if let Some(key) = &tls.key {
                set.insert("ssl.key.location", key.display().to_string());
            }
            if let Some(password) = &tls.key_password {
                set.insert("ssl.key.password", password.read()?.expose().to_owned());
            }
        }
        if let Some(sasl) = sasl {
            let mechanism = match sasl.mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            set.insert("sasl.mechanism", mechanism.to_owned());
            set.insert("sasl.username", sasl.username.clone());
            set.insert("sasl.password", sasl.password.read()?.expose().to_owned());
        }
        let protocol = match (tls.is_some(), sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        set.insert("security.protocol", protocol.to_owned());
        Ok(())
    }
}

/// Without one of these a record could be lost, duplicated or reordered.
const GUARANTEES: [(&str, &str); 10] = [
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

/// Defaults that `[kafka.properties]` can change.
const DEFAULTS: [(&str, &str); 8] = [
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

const fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

/// Gives the error of brokers that would be reached without TLS although they must not be.
#[must_use]
pub fn plaintext_error(config: &Config) -> Option<String> {
    let is_fine =
        config.tls.is_some() || config.allow_plaintext || config.brokers.iter().all(|broker| is_local(broker));
    let text = "brokers on other machines need [kafka.tls]: add it, or set kafka.allow_plaintext = true";
    (!is_fine).then(|| text.to_owned())
}

/// Says whether a broker is on this machine.
fn is_local(broker: &str) -> bool {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: Config) -> Settings {
        Settings::new(config, "test".into(), 32 << 20)
    }

    #[test]
    fn the_properties_that_guarantees_depend_on_are_set() {
        let client = settings(Config::default()).client().unwrap();
        for (name, value) in GUARANTEES {
            assert_eq!(client.get(name), Some(value));
        }
        assert_eq!(client.get("security.protocol"), Some("plaintext"));
        let producer: Result<rdkafka::producer::BaseProducer, _> = client.create();
        assert!(producer.is_ok(), "librdkafka accepts the combination");
    }

    #[test]
    fn the_queue_has_room_for_the_largest_record() {
        let properties = [("message.max.bytes".to_owned(), "10485761".to_owned())].into();
        let settings =
            |budget| Settings::new(Config { properties, ..Config::default() }, "test".into(), budget).client().unwrap();
        assert_eq!(settings(8 << 20).get("queue.buffering.max.kbytes"), Some("10241"));
    }

    #[test]
    fn a_record_may_be_as_large_as_the_brokers_default() {
        let own = settings(Config::default());
        assert_eq!(own.client().unwrap().get("message.max.bytes"), Some("1048588"));
        assert_eq!(own.max_record_bytes(), 1_048_588);
    }

    #[test]
    fn f20_the_batch_size_is_halved_down_to_a_minimum() {
        let mut own = settings(Config::default());
        assert_eq!(own.client().unwrap().get("batch.size"), None);
        own.shrink_batches();
        assert_eq!(own.client().unwrap().get("batch.size"), Some("500000"));
        let properties = [("batch.size".to_owned(), "40000".to_owned())].into();
        let mut given = settings(Config { properties, ..Config::default() });
        (0..9).for_each(|_| given.shrink_batches());
        assert_eq!(given.client().unwrap().get("batch.size"), Some("16384"));
    }

    #[test]
    fn plaintext_to_another_machine_needs_an_option() {
        let mut config = Config { brokers: vec!["kafka:9092".into()], ..Config::default() };
        assert!(settings(config.clone()).client().unwrap_err().to_string().contains("allow_plaintext"));
        config.allow_plaintext = true;
        assert!(settings(config).client().is_ok());
        for broker in ["localhost:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(is_local(broker), "{broker}");
        }
    }

    #[test]
    fn tls_searches_the_certificate_authorities_of_the_system() {
        let config = Config { tls: Some(super::super::Tls::default()), ..Config::default() };
        let client = settings(config).client().unwrap();
        assert_eq!((client.get("security.protocol"), client.get("ssl.ca.location")), (Some("ssl"), Some("probe")));
    }
}
