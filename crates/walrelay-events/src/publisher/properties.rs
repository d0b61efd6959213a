//! librdkafka's properties for the publisher.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::kafka;
use crate::publisher::config::Config;
use crate::publisher::error::Error;

/// librdkafka's largest queue.
const MAX_IN_FLIGHT_BYTES: u64 = 2_097_151 << 10;

/// Properties that have an option of their own, and what to do instead.
const OWN: [(&str, &str); 5] = [
    ("bootstrap.servers", "set Config::brokers"),
    ("metadata.broker.list", "set Config::brokers"),
    ("client.id", "set Config::name"),
    ("queue.buffering.max.kbytes", "set Config::max_in_flight_bytes"),
    ("queue.buffering.max.messages", "set Config::max_in_flight_bytes"),
];

/// Returns librdkafka's properties, or the option that is invalid.
pub(super) fn properties(config: &Config) -> Result<ClientConfig, Error> {
    check(config)?;
    let mut client = ClientConfig::new();
    let defaults = kafka::GUARANTEES.into_iter().chain(kafka::DEFAULTS).chain([("compression.type", "lz4")]);
    for (name, value) in defaults {
        client.set(name, value);
    }
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    if config.token_provider.is_some() {
        client.set("sasl.mechanisms", "OAUTHBEARER");
    }
    // Each record counts more here than in librdkafka, so the limit of this publisher is reached first.
    let queue = kafka::queue_kib(config.max_in_flight_bytes, max_record_bytes(config)?);
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", &config.name)
        .set("queue.buffering.max.kbytes", queue.to_string());
    client.set_log_level(RDKafkaLogLevel::Notice);
    Ok(client)
}

/// Returns `message.max.bytes`.
pub(super) fn max_record_bytes(config: &Config) -> Result<usize, Error> {
    let Some(given) = config.properties.get("message.max.bytes") else { return Ok(kafka::MAX_RECORD_BYTES) };
    given.parse().map_err(|_| Error::Option("invalid message.max.bytes: expected a plain number of bytes".to_owned()))
}

fn check(config: &Config) -> Result<(), Error> {
    for name in config.properties.keys() {
        let guarded = kafka::GUARDED.iter().chain(&OWN).find(|(guarded, _)| guarded == name).map(|(_, why)| *why);
        if let Some(why) = guarded.or_else(|| kafka::refusal(name)) {
            return Err(Error::Option(format!("cannot set property {name}: {why}")));
        }
    }
    if !(1..=MAX_IN_FLIGHT_BYTES).contains(&config.max_in_flight_bytes) {
        return Err(Error::Option(format!("invalid max_in_flight_bytes: expected 1 to {MAX_IN_FLIGHT_BYTES}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_of_the_guarantees_are_those_of_the_relay_and_cannot_be_set() {
        let mut config = Config::new("k:9092", "orders");
        let client = properties(&config).unwrap();
        for (name, value) in kafka::GUARANTEES {
            assert_eq!(client.get(name), Some(value));
        }
        let created: Result<rdkafka::producer::BaseProducer, _> = client.create();
        assert!(created.is_ok(), "librdkafka accepts the combination");
        for name in ["acks", "message.timeout.ms", "partitioner", "client.id", "test.mock.num.brokers"] {
            config.properties = [(name.to_owned(), "1".to_owned())].into();
            let error = properties(&config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot set property {name}: ")), "{error}");
        }
        config.properties = [("linger.ms".to_owned(), "50".to_owned())].into();
        assert_eq!(properties(&config).unwrap().get("linger.ms"), Some("50"));
    }

    #[test]
    fn a_limit_that_librdkafka_cannot_have_is_refused() {
        for bytes in [0, MAX_IN_FLIGHT_BYTES + 1] {
            let config = Config { max_in_flight_bytes: bytes, ..Config::new("k:9092", "orders") };
            assert!(matches!(properties(&config), Err(Error::Option(_))), "{bytes}");
        }
    }
}
