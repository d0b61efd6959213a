//! What both halves know of librdkafka. Of its properties: which ones say how brokers are reached, and so are for any client;
//! and which ones no client may have, since they take away what its reports and its records mean. Of its clients: when one is
//! done for, although it never says so.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rdkafka::statistics::Statistics;

/// How such properties begin.
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

/// No client may have these, and why.
const REFUSED: [(&str, &str); 7] = [
    ("plugin.library.paths", "foreign code would stand between records and what is reported of them"),
    ("topic.blacklist", "a topic that is ignored looks like one that is missing"),
    ("enabled_events", "walrelay must hear everything that librdkafka reports"),
    ("internal.termination.signal", "walrelay handles the signals of its process"),
    ("api.version.request", OLD),
    ("api.version.fallback.ms", OLD),
    ("broker.version.fallback", OLD),
];
const OLD: &str = "brokers taken for older than they are get records without headers, or none";

/// Says why no client may have this property, if so.
pub fn refusal(name: &str) -> Option<&'static str> {
    if name.starts_with("test.") {
        return Some("a mock inside this process would take the place of the brokers");
    }
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
}

/// Says whether a property concerns how brokers are reached, not what is produced or consumed.
pub fn is_of_connections(name: &str) -> bool {
    CONNECTION.iter().any(|start| name.starts_with(start))
}

/// Whom a client knows.
///
/// Since librdkafka 2.10 a client drops every broker that an answer about metadata does not name, those it started from too. An
/// answer that names none, as brokers give it that have just lost their controller, may leave it with nobody to ask, for ever:
/// it means to start again from where it started, and the end of that very answer calls it off
/// (<https://github.com/confluentinc/librdkafka/issues/5301>). Only another client helps.
#[derive(Debug, Default)]
pub struct Brokers {
    had_none: AtomicBool,
    are_forgotten: AtomicBool,
}

impl Brokers {
    /// Takes note of whom the client knows. For a moment that is nobody whenever brokers change: two statistics in a row must
    /// show it.
    pub fn note(&self, statistics: &Statistics) {
        let knows = |source: &str| matches!(source, "learned" | "configured");
        let has_none = !statistics.brokers.values().any(|broker| knows(&broker.source));
        if self.had_none.swap(has_none, Relaxed) && has_none {
            self.forget();
        }
    }

    /// Counts them as forgotten: none has answered for long.
    pub fn forget(&self) {
        self.are_forgotten.store(true, Relaxed);
    }

    /// Says whether the client has forgotten them all. It never hears of one again.
    pub fn are_forgotten(&self) -> bool {
        self.are_forgotten.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    #[test]
    fn brokers_are_forgotten_when_two_statistics_in_a_row_know_none() {
        let statistics = |sources: &[&str]| Statistics {
            brokers: sources
                .iter()
                .map(|source| ((*source).to_owned(), Broker { source: (*source).to_owned(), ..Broker::default() }))
                .collect(),
            ..Statistics::default()
        };
        let brokers = Brokers::default();
        let noted = |sources: &[&str]| {
            brokers.note(&statistics(sources));
            brokers.are_forgotten()
        };
        assert!(!noted(&["configured", "internal"]));
        assert!(!noted(&["internal"]), "for a moment, perhaps");
        assert!(!noted(&["learned", "logical"]));
        assert!(!noted(&["logical", "internal"]));
        assert!(noted(&["logical", "internal"]));
    }

    #[test]
    fn what_replaces_the_brokers_or_hides_their_reports_is_for_no_client() {
        for name in ["test.mock.num.brokers", "test.mock.broker.rtt", "plugin.library.paths", "api.version.request"] {
            assert!(refusal(name).is_some(), "{name}");
        }
        for name in ["linger.ms", "isolation.level", "ssl.ca.location", "debug"] {
            assert_eq!(refusal(name), None, "{name}");
        }
    }

    #[test]
    fn what_only_producers_or_consumers_know_is_not_for_any_client() {
        for name in ["bootstrap.servers", "ssl.ca.location", "sasl.password", "security.protocol", "client.id"] {
            assert!(is_of_connections(name), "{name}");
        }
        for name in ["group.id", "fetch.min.bytes", "client.rack", "linger.ms", "acks", "enable.idempotence", "debug"] {
            assert!(!is_of_connections(name), "{name}");
        }
    }
}
