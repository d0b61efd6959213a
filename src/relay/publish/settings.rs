//! From `[kafka]` to librdkafka's properties. What carries a guarantee is set here, and cannot be set elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use walrelay_events::internal::DEFAULTS;
use walrelay_events::internal::GUARANTEES;
use walrelay_events::internal::MAX_RECORD_BYTES;
use walrelay_events::internal::Tokens;
use walrelay_events::internal::is_connection_property;
use walrelay_events::internal::queue_kib;
use walrelay_events::internal::smaller_batch;

use super::config::Compression;
use super::config::Config;
use super::error::Error;
use super::token_command;

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
    /// What fetches tokens, started for the first client.
    tokens: Arc<OnceLock<Tokens>>,
}

impl Settings {
    /// Creates the settings for a client with this id; the queue has room for `in_flight_bytes`.
    #[must_use]
    pub fn new(config: Config, client_id: String, in_flight_bytes: u64) -> Self {
        let (spans, tokens) = (BTreeMap::new(), Arc::default());
        Self { config, client_id, in_flight_bytes, batch_bytes: None, spans, tokens }
    }

    /// Gives the tokens for clients, if there is a command that prints them.
    pub(super) fn tokens(&self) -> Result<Option<Tokens>, Error> {
        let Some(oauth) = &self.config.oauth else { return Ok(None) };
        if let Some(tokens) = self.tokens.get() {
            return Ok(Some(tokens.clone()));
        }
        let command = oauth.token_command.clone();
        let started = Tokens::start(move || token_command::fetch(&command));
        let started = started.map_err(|error| Error::Token { reason: format!("cannot start a thread: {error}") })?;
        Ok(Some(self.tokens.get_or_init(|| started).clone()))
    }

    /// Halves the batch size of later producers: a topic may have a lower limit than its brokers.
    pub fn shrink_batches(&mut self) {
        let given = self.config.properties.get("batch.size").and_then(|text| text.parse().ok());
        self.batch_bytes = Some(smaller_batch(self.batch_bytes.or(given)));
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

    /// Builds the properties of a producer.
    pub fn client(&self) -> Result<ClientConfig, Error> {
        let mut client = ClientConfig::new();
        let mut set = BTreeMap::new();
        set.extend(GUARANTEES.map(|(name, value)| (name, value.to_owned())));
        set.extend(DEFAULTS.map(|(name, value)| (name, value.to_owned())));
        set.insert("bootstrap.servers", self.config.brokers.join(","));
        set.insert("client.id", self.client_id.clone());
        // The relay counts more per record than librdkafka, so its own limit is reached first.
        let queue = queue_kib(self.in_flight_bytes, self.max_record_bytes());
        set.insert("queue.buffering.max.kbytes", queue.to_string());
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
        if self.config.oauth.is_some() {
            let text = "this verb cannot use [kafka.oauth]: give it a configuration with [kafka.sasl] or a client \
                        certificate";
            return Err(Error::Option(text.to_owned()));
        }
        let mut set = BTreeMap::new();
        set.insert("bootstrap.servers", self.config.brokers.join(","));
        set.insert("client.id", self.client_id.clone());
        self.security(&mut set)?;
        let own = self.config.properties.iter().filter(|(name, _)| is_connection_property(name));
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value));
        Ok(set.chain(own.map(|(name, value)| (name.clone(), value.clone()))).collect())
    }

    fn security(&self, set: &mut BTreeMap<&'static str, String>) -> Result<(), Error> {
        let Config { tls, sasl, oauth, .. } = &self.config;
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
            set.insert("sasl.mechanism", sasl.mechanism.name().to_owned());
            set.insert("sasl.username", sasl.username.clone());
            set.insert("sasl.password", sasl.password.read()?.expose().to_owned());
        }
        if oauth.is_some() {
            set.insert("sasl.mechanism", "OAUTHBEARER".to_owned());
        }
        let protocol = match (tls.is_some(), sasl.is_some() || oauth.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        set.insert("security.protocol", protocol.to_owned());
        Ok(())
    }
}

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

/// Gives the error of tokens that would be sent in clear text to another machine.
#[must_use]
pub fn clear_token_error(config: &Config) -> Option<String> {
    let is_fine =
        config.oauth.is_none() || config.tls.is_some() || config.brokers.iter().all(|broker| is_local(broker));
    (!is_fine).then(|| "tokens would be sent in clear text: they need [kafka.tls]".to_owned())
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
    fn a_token_command_means_oauthbearer_and_its_tokens_do_not_leave_the_machine_in_clear_text() {
        let oauth = Some(super::super::Oauth { token_command: vec!["print-token".to_owned()] });
        let mut config = Config { oauth, ..Config::default() };
        let client = settings(config.clone()).client().unwrap();
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(client.get("sasl.mechanism"), Some("OAUTHBEARER"));
        assert_eq!(clear_token_error(&config), None);
        config.brokers = vec!["kafka:9092".to_owned()];
        config.allow_plaintext = true;
        assert!(clear_token_error(&config).is_some());
        config.tls = Some(super::super::Tls::default());
        assert_eq!(clear_token_error(&config), None);
        let client = settings(config).client().unwrap();
        assert_eq!(client.get("security.protocol"), Some("sasl_ssl"));
    }

    #[test]
    fn tls_searches_the_certificate_authorities_of_the_system() {
        let config = Config { tls: Some(super::super::Tls::default()), ..Config::default() };
        let client = settings(config).client().unwrap();
        assert_eq!((client.get("security.protocol"), client.get("ssl.ca.location")), (Some("ssl"), Some("probe")));
    }
}
