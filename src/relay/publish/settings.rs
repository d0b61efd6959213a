//! From `[kafka]` to librdkafka's properties. What carries a guarantee is set here, and cannot be set elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use walrelay_events::internal::is_of_connections;

use super::Compression;
use super::Config;
use super::Error;
use super::Mechanism;

/// How long an unknown topic is waited for: longer than a broker's restart.
const TOPIC_GRACE_MS: &str = "60000";
/// The default of the brokers for one batch: librdkafka's own would refuse records that they take.
const RECORD_BYTES_MAX: usize = 1_048_588;
const RECORD_BYTES_MAX_TEXT: &str = "1048588";

/// librdkafka's own size of a batch; a topic takes a little more, unless it was told otherwise.
const BATCH_BYTES: usize = 1_000_000;
/// Smaller batches would cost more than they could spare. A record alone may be larger.
const BATCH_BYTES_MIN: usize = 16 * 1_024;

/// A timestamp that is no further from now is hardly ever refused.
const RECENT: Duration = Duration::from_secs(60);

/// Everything a producer is made from. Secrets are read each time one is made.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Config,
    client_id: String,
    in_flight_bytes: u64,
    /// How large a batch may become, once one was refused for its size.
    batch_bytes: Option<usize>,
    /// How far the timestamp of a record may be from now, by topic, once one was refused for it.
    spans: BTreeMap<String, Duration>,
}

impl Settings {
    /// Gathers what a producer needs.
    #[must_use]
    pub const fn new(config: Config, client_id: String, in_flight_bytes: u64) -> Self {
        Self { config, client_id, in_flight_bytes, batch_bytes: None, spans: BTreeMap::new() }
    }

    /// Halves the batches of the producers that are made from here on: a topic may take less than its brokers do.
    pub fn shrink_batches(&mut self) {
        let given = self.config.properties.get("batch.size").and_then(|text| text.parse().ok());
        let now = self.batch_bytes.or(given).unwrap_or(BATCH_BYTES);
        self.batch_bytes = Some((now / 2).max(BATCH_BYTES_MIN));
    }

    /// A topic takes no timestamps that are far from its brokers' clock: records of the producers that are made from here on
    /// have the time of sending instead, if theirs is not recent; and if that was so already, each of them. Says whether this
    /// is news.
    pub fn narrow_timestamps(&mut self, topic: &str) -> bool {
        let span = if self.spans.contains_key(topic) { Duration::ZERO } else { RECENT };
        self.spans.insert(topic.to_owned(), span) != Some(span)
    }

    /// Gives the topics of such records, and how far from now theirs may be.
    pub(super) const fn spans(&self) -> &BTreeMap<String, Duration> {
        &self.spans
    }

    /// Gives the largest record that librdkafka takes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        let given = self.config.properties.get("message.max.bytes");
        given.and_then(|text| text.parse().ok()).unwrap_or(RECORD_BYTES_MAX)
    }

    /// Gives the size of librdkafka's queue. The relay counts more per record than librdkafka does, so its own budget binds
    /// first; but a record alone may be larger than the budget, and must fit.
    fn queue_kib(&self) -> u64 {
        let largest = u64::try_from(self.record_bytes_max()).unwrap_or(u64::MAX);
        self.in_flight_bytes.max(largest).div_ceil(1_024).clamp(1_024, 2_097_151)
    }

    /// Builds the properties of a producer.
    pub fn client(&self) -> Result<ClientConfig, Error> {
        let mut client = ClientConfig::new();
        let mut set = BTreeMap::new();
        set.extend(GUARANTEES.map(|(name, value)| (name, value.to_owned())));
        set.extend(HABITS.map(|(name, value)| (name, value.to_owned())));
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

    /// Builds the properties that say how brokers are reached, for other clients than the relay's producer.
    pub fn connection(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut set = BTreeMap::new();
        set.insert("bootstrap.servers", self.config.brokers.join(","));
        set.insert("client.id", self.client_id.clone());
        self.security(&mut set)?;
        let own = self.config.properties.iter().filter(|(name, _)| is_of_connections(name));
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value));
        Ok(set.chain(own.map(|(name, value)| (name.clone(), value.clone()))).collect())
    }

    fn security(&self, set: &mut BTreeMap<&'static str, String>) -> Result<(), Error> {
        let Config { tls, sasl, .. } = &self.config;
        if let Some(text) = refuses_plaintext(&self.config) {
            return Err(Error::Option(text));
        }
        if let Some(tls) = tls {
            // The compiled-in certificate directory of a vendored OpenSSL does not exist: look in the usual places.
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

/// Without one of these a record can be lost, doubled or put out of order.
const GUARANTEES: [(&str, &str); 10] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("max.in.flight", "5"),
    // A record never fails by time: later ones would be delivered without it.
    ("message.timeout.ms", "0"),
    // A permanent error ends the producer instead of skipping the batch.
    ("enable.gapless.guarantee", "true"),
    // Java's, and so Debezium's and Kafka Connect's: keys stay where they are.
    ("partitioner", "murmur2_random"),
    ("allow.auto.create.topics", "false"),
    ("topic.metadata.propagation.max.ms", TOPIC_GRACE_MS),
    // So that the budget in bytes binds, not a count.
    ("queue.buffering.max.messages", "1000000"),
    // From them it is known that a broker is back.
    ("statistics.interval.ms", "5000"),
];

/// These may be changed under `[kafka.properties]`.
const HABITS: [(&str, &str); 8] = [
    ("message.max.bytes", RECORD_BYTES_MAX_TEXT),
    ("linger.ms", "1"),
    ("batch.num.messages", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    // A broker that is back must be met within two seconds.
    ("reconnect.backoff.max.ms", "1000"),
    ("log.connection.close", "false"),
    // An idle producer meets its brokers this often, and so learns whether they are there.
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

/// Says why brokers may not be reached without TLS, if they would be.
#[must_use]
pub fn refuses_plaintext(config: &Config) -> Option<String> {
    let is_fine = config.tls.is_some() || config.allow_plaintext || config.brokers.iter().all(|broker| is_here(broker));
    let text =
        "brokers that are not on this machine, and [kafka.tls] is missing; add it, or set kafka.allow_plaintext = true";
    (!is_fine).then(|| text.to_owned())
}

/// Says whether a broker is reached without leaving this machine.
fn is_here(broker: &str) -> bool {
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
    fn the_properties_that_carry_a_guarantee_are_set() {
        let client = settings(Config::default()).client().unwrap();
        for (name, value) in GUARANTEES {
            assert_eq!(client.get(name), Some(value));
        }
        assert_eq!(client.get("security.protocol"), Some("plaintext"));
        let producer: Result<rdkafka::producer::BaseProducer, _> = client.create();
        assert!(producer.is_ok(), "librdkafka takes them together");
    }

    #[test]
    fn the_largest_record_fits_into_the_queue_although_the_budget_is_smaller() {
        let properties = [("message.max.bytes".to_owned(), "10485761".to_owned())].into();
        let settings =
            |budget| Settings::new(Config { properties, ..Config::default() }, "test".into(), budget).client().unwrap();
        assert_eq!(settings(8 << 20).get("queue.buffering.max.kbytes"), Some("10241"));
    }

    #[test]
    fn a_record_may_be_as_large_as_the_brokers_default() {
        let own = settings(Config::default());
        assert_eq!(own.client().unwrap().get("message.max.bytes"), Some("1048588"));
        assert_eq!(own.record_bytes_max(), 1_048_588);
    }

    #[test]
    fn f20_batches_shrink_to_a_floor_whatever_was_given() {
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
    fn plaintext_to_another_machine_is_refused_unless_allowed() {
        let mut config = Config { brokers: vec!["kafka:9092".into()], ..Config::default() };
        assert!(settings(config.clone()).client().unwrap_err().to_string().contains("allow_plaintext"));
        config.allow_plaintext = true;
        assert!(settings(config).client().is_ok());
        for broker in ["localhost:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(is_here(broker), "{broker}");
        }
    }

    #[test]
    fn tls_trusts_the_systems_authorities_by_looking_for_them() {
        let config = Config { tls: Some(super::super::Tls::default()), ..Config::default() };
        let client = settings(config).client().unwrap();
        assert_eq!((client.get("security.protocol"), client.get("ssl.ca.location")), (Some("ssl"), Some("probe")));
    }
}
