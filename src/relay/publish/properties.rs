//! What may stand under `[kafka.properties]`, checked without a connection.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use walrelay_events::internal;

use super::Config;

/// Properties that are set elsewhere or carry a guarantee, and what to do instead.
const GUARDED: [(&str, &str); 33] = [
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
    ("delivery.report.only.error", "only a report of its own tells that a record was delivered"),
    ("partitioner", "keys must stay on the partitions where Java's clients put them"),
    ("allow.auto.create.topics", "walrelay never creates topics"),
    ("transactional.id", "walrelay does not use Kafka's transactions"),
    ("queue.buffering.max.kbytes", "set delivery.max_in_flight_bytes"),
    ("queue.buffering.max.messages", "set delivery.max_in_flight_bytes"),
    ("topic.metadata.propagation.max.ms", "a missing topic is waited for long enough to survive a broker's restart"),
    ("statistics.interval.ms", "from them walrelay learns whether a broker is there"),
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("client.id", "set relay.name"),
    ("compression.type", "set kafka.compression"),
    ("compression.codec", "set kafka.compression"),
    ("security.protocol", "it follows from [kafka.tls] and [kafka.sasl]"),
    ("sasl.mechanism", "set kafka.sasl.mechanism"),
    ("sasl.mechanisms", "set kafka.sasl.mechanism"),
    ("sasl.username", "set kafka.sasl.username"),
    ("sasl.password", "set kafka.sasl.password"),
    ("ssl.ca.location", "set kafka.tls.root_cert"),
    ("ssl.certificate.location", "set kafka.tls.cert"),
    ("ssl.key.location", "set kafka.tls.key"),
    ("ssl.key.password", "set kafka.tls.key_password"),
];
const ORDER: &str = "it carries the guarantee that nothing is lost, doubled or put out of order";
const TIME: &str = "a record that gives up after a time leaves a gap behind it";

/// Gives each property that cannot be used, and why.
#[must_use]
pub fn check_properties(config: &Config) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (name, value) in &config.properties {
        let guarded = GUARDED.iter().find(|(guarded, _)| guarded == name).map(|(_, why)| *why);
        if let Some(why) = guarded.or_else(|| internal::refusal(name)) {
            wrong.push((name.clone(), format!("cannot be set here: {why}")));
        } else if name == "debug" && value.contains("all") {
            wrong.push((name.clone(), "all of librdkafka's debugging prints secrets and payloads".to_owned()));
        } else if name == "message.max.bytes" && !is_plain(value) {
            // librdkafka also reads hexadecimal and octal; we read the number too, and must read the same one.
            wrong.push((name.clone(), "must be a plain number of bytes".to_owned()));
        } else if let Err(error) = offline(name, value) {
            wrong.push((name.clone(), error));
        }
    }
    wrong
}

fn is_plain(number: &str) -> bool {
    !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lets librdkafka look at one property, without brokers.
fn offline(name: &str, value: &str) -> Result<(), String> {
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
    fn a_property_that_carries_a_guarantee_is_refused_with_the_reason() {
        assert_eq!(check("acks", "1")[0].1, format!("cannot be set here: {ORDER}"));
        assert_eq!(check("client.id", "x")[0].1, "cannot be set here: set relay.name");
    }

    #[test]
    fn g1_what_takes_away_the_reports_or_the_brokers_is_refused() {
        for name in ["delivery.report.only.error", "test.mock.num.brokers", "topic.blacklist", "enabled_events"] {
            assert!(check(name, "1")[0].1.starts_with("cannot be set here"), "{name}");
        }
    }

    #[test]
    fn librdkafka_itself_judges_the_rest() {
        assert_eq!(check("linger.ms", "5"), []);
        assert!(check("linger.msx", "5")[0].1.contains("linger.msx"));
        assert!(!check("linger.ms", "never").is_empty());
        assert_eq!(check("message.max.bytes", "2000000"), []);
        for number in ["0x1000000", "0100000000", " 2000000", "-1", ""] {
            assert!(!check("message.max.bytes", number).is_empty(), "{number:?}");
        }
    }
}
