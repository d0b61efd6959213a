//! What every client of librdkafka shares: which properties concern connections, which are refused because they break
//! a guarantee, and when a client must be replaced. For producers also: the properties of the guarantees, what
//! errors mean, why records wait, and how a producer is replaced.

mod brokers;
mod credentials;
mod producer;
mod repeats;
mod retired;
mod tokens;
mod waiting;

pub use brokers::Brokers;
pub use credentials::Credentials;
pub use producer::DEFAULTS;
pub use producer::GUARANTEES;
pub use producer::GUARDED;
pub use producer::MAX_RECORD_BYTES;
pub use producer::ORDER;
pub use producer::Verdict;
pub use producer::is_about_size;
pub use producer::is_consequence;
pub use producer::is_lack_of_rights;
pub use producer::queue_kib;
pub use producer::smaller_batch;
pub use repeats::Repeats;
pub use repeats::is_trouble;
pub use repeats::without_duration;
pub use retired::Retired;
pub use tokens::Tokens;
pub use waiting::Cause;
pub use waiting::Waiting;

/// Prefixes of properties that concern connections.
const CONNECTION: [&str; 12] = [
    "bootstrap.",
    "client.dns.",
    "client.id",
    "security.",
    "ssl.",
    "sasl.",
    "socket.",
    "broker.",
    "reconnect.",
    "enable.ssl",
    "https.",
    "resolve.",
];

/// Properties that are refused, and why.
const REFUSED: [(&str, &str); 7] = [
    ("plugin.library.paths", "a plugin can change records and delivery reports"),
    ("topic.blacklist", "an ignored topic looks like a missing one"),
    ("enabled_events", "walrelay needs every event of librdkafka"),
    ("internal.termination.signal", "walrelay handles the signals of its process"),
    ("api.version.request", OLD),
    ("api.version.fallback.ms", OLD),
    ("broker.version.fallback", OLD),
];
const OLD: &str = "for brokers of an older version records lose their headers, or are refused";

/// Returns why a property is refused, if it is.
pub fn refusal(name: &str) -> Option<&'static str> {
    if name.starts_with("test.") {
        return Some("a mock cluster would replace the brokers");
    }
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
}

/// Returns whether a property concerns connections, and not producing or consuming.
pub fn is_connection_property(name: &str) -> bool {
    CONNECTION.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_replace_brokers_or_hide_their_reports_are_refused() {
        for name in ["test.mock.num.brokers", "test.mock.broker.rtt", "plugin.library.paths", "api.version.request"] {
            assert!(refusal(name).is_some(), "{name}");
        }
        for name in ["linger.ms", "isolation.level", "ssl.ca.location", "debug"] {
            assert_eq!(refusal(name), None, "{name}");
        }
    }

    #[test]
    fn properties_of_producers_and_consumers_do_not_concern_connections() {
        for name in ["bootstrap.servers", "ssl.ca.location", "sasl.password", "security.protocol", "client.id"] {
            assert!(is_connection_property(name), "{name}");
        }
        for name in ["group.id", "fetch.min.bytes", "client.rack", "linger.ms", "acks", "enable.idempotence", "debug"] {
            assert!(!is_connection_property(name), "{name}");
        }
    }
}
