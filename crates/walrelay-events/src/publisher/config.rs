//! The options of a publisher.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::oauth::TokenProvider;

/// The options of a publisher. [`Config::new`] returns the defaults.
///
/// ```
/// use std::time::Duration;
/// use walrelay_events::publisher::Config;
///
/// let mut config = Config::new("kafka-1:9093,kafka-2:9093", "orders");
/// config.properties.insert("security.protocol".to_owned(), "ssl".to_owned());
/// config.delivery_timeout = Duration::from_secs(5);
/// ```
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The bootstrap servers: `host:port`, separated by commas.
    pub brokers: String,
    /// The name under which brokers log the client: `client.id`.
    pub name: String,
    /// Further librdkafka properties, for example for TLS and SASL. Properties that carry a guarantee are refused.
    pub properties: BTreeMap<String, String>,
    /// Fetches tokens for SASL OAUTHBEARER. Without a provider, the properties decide how the client logs in.
    pub token_provider: Option<TokenProvider>,
    /// The maximum number of bytes that are accepted and not acknowledged. When it is reached, calls wait for room. The
    /// process needs about twice as much, because librdkafka copies each record.
    pub max_in_flight_bytes: u64,
    /// How long a call waits for room and for the acknowledgment, together.
    pub delivery_timeout: Duration,
    /// How long [`Publisher::close`](crate::publisher::Publisher::close) waits for acknowledgments.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// Returns the defaults for these brokers and this name.
    #[must_use]
    pub fn new(brokers: &str, name: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            name: name.to_owned(),
            properties: BTreeMap::new(),
            token_provider: None,
            max_in_flight_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for Config {
    /// Without the values of properties: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("brokers", &self.brokers)
            .field("name", &self.name)
            .field("properties", &self.properties.keys())
            .field("token_provider", &self.token_provider)
            .field("max_in_flight_bytes", &self.max_in_flight_bytes)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let mut config = Config::new("k:9093", "orders");
        config.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
        let text = format!("{config:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
