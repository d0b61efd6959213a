//! Checks `[kafka.properties]` without a connection.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use walrelay_events::internal;

use super::config::Config;

/// Properties that have an option of their own, and what to do instead.
const OWN: [(&str, &str); 19] = [
    ("queue.buffering.max.kbytes", "set delivery.max_in_flight_bytes"),
    ("queue.buffering.max.messages", "set delivery.max_in_flight_bytes"),
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("client.id", "set relay.name"),
    ("compression.type", "set kafka.compression"),
    ("compression.codec", "set kafka.compression"),
    ("security.protocol", "it follows from [kafka.tls], [kafka.sasl] and [kafka.oauth]"),
    ("sasl.mechanism", "set kafka.sasl.mechanism"),
    ("sasl.mechanisms", "set kafka.sasl.mechanism"),
    ("sasl.username", "set kafka.sasl.username"),
    ("sasl.password", "set kafka.sasl.password"),
    ("sasl.oauthbearer.method", "set kafka.oauth.token_command"),
    ("sasl.oauthbearer.config", "set kafka.oauth.token_command"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "set kafka.oauth.token_command"),
    ("ssl.ca.location", "set kafka.tls.root_cert"),
    ("ssl.certificate.location", "set kafka.tls.cert"),
    ("ssl.key.location", "set kafka.tls.key"),
    ("ssl.key.password", "set kafka.tls.key_password"),
];

/// Gives each property that is wrong, and why.
#[must_use]
pub fn check_properties(config: &Config) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (name, value) in &config.properties {
        let guarded = internal::GUARDED.iter().chain(&OWN).find(|(guarded, _)| guarded == name).map(|(_, why)| *why);
        if let Some(why) = guarded.or_else(|| internal::refusal(name)) {
            wrong.push((name.clone(), format!("cannot be set here: {why}")));
        } else if name == "debug" && value.contains("all") {
            wrong.push((name.clone(), "debug = all logs secrets and payloads".to_owned()));
        } else if name == "message.max.bytes" && !is_plain(value) {
            // librdkafka also accepts hexadecimal and octal, but both must read the same number.
            wrong.push((name.clone(), "must be a plain number of bytes".to_owned()));
        } else if let Err(error) = validate(name, value) {
            wrong.push((name.clone(), error));
        }
    }
    wrong
}

fn is_plain(number: &str) -> bool {
    !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Validates one property with librdkafka.
fn validate(name: &str, value: &str) -> Result<(), String> {
    let made: Result<BaseProducer, KafkaError> = ClientConfig::new().set(name, value).create();
    match made {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, text, ..)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Vec<(String, String)> {
        let properties = [(name.to_owned(), value.to_owned())].into();
        check_properties(&Config { properties, ..Config::default() })
    }

    #[test]
    fn a_property_that_a_guarantee_depends_on_is_rejected_with_the_reason() {
        assert_eq!(check("acks", "1")[0].1, format!("cannot be set here: {}", internal::ORDER));
        assert_eq!(check("client.id", "x")[0].1, "cannot be set here: set relay.name");
    }

    #[test]
    fn g1_properties_that_disable_reports_or_brokers_are_rejected() {
        for name in ["delivery.report.only.error", "test.mock.num.brokers", "topic.blacklist", "enabled_events"] {
            assert!(check(name, "1")[0].1.starts_with("cannot be set here"), "{name}");
        }
    }

    #[test]
    fn librdkafka_validates_the_other_properties() {
        assert_eq!(check("linger.ms", "5"), []);
        assert!(check("linger.msx", "5")[0].1.contains("linger.msx"));
        assert!(!check("linger.ms", "never").is_empty());
        assert_eq!(check("message.max.bytes", "2000000"), []);
        for number in ["0x1000000", "0100000000", " 2000000", "-1", ""] {
            assert!(!check("message.max.bytes", number).is_empty(), "{number:?}");
        }
    }
}
