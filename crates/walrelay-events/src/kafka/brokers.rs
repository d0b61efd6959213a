//! When a client must be replaced because it cannot reach its brokers again.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rdkafka::ClientConfig;
use rdkafka::statistics::Statistics;

use super::credentials::Credentials;

/// The states of a broker that needs nothing: connected, or not asked for yet.
const SOUND: [&str; 2] = ["UP", "INIT"];

/// Whether a client must be replaced.
///
/// Since librdkafka 2.10 a client drops every broker that a metadata response does not contain, the bootstrap servers
/// included. A response without brokers, as brokers send it after they lost their controller, can leave the client
/// without any broker for good: the bootstrap that should follow is cancelled at the end of the same response
/// (<https://github.com/confluentinc/librdkafka/issues/5301>). Only a new client helps.
///
/// A client whose certificate has expired cannot connect either, and does not read the new one.
#[derive(Debug)]
pub struct Brokers {
    had_none: AtomicBool,
    had_trouble: AtomicBool,
    lost: OnceLock<&'static str>,
    credentials: Credentials,
}

impl Brokers {
    /// Takes the credentials of a client that is about to be created.
    pub fn new(credentials: Credentials) -> Self {
        let (had_none, had_trouble) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { had_none, had_trouble, lost: OnceLock::new(), credentials }
    }

    /// Takes the properties of a client that is about to be created, and would be created again with the same ones.
    pub fn of(config: &ClientConfig) -> Self {
        let properties: BTreeMap<_, _> =
            config.config_map().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::new(Credentials::new(move || Some(properties.clone())))
    }

    /// Takes the brokers of the statistics. While brokers change there can be none for a moment, and one can be down
    /// for a moment, so two consecutive statistics must agree.
    pub fn note(&self, statistics: &Statistics) {
        let known: Vec<_> = statistics
            .brokers
            .values()
            .filter(|broker| matches!(broker.source.as_str(), "learned" | "configured"))
            .collect();
        if self.had_none.swap(known.is_empty(), Relaxed) && known.is_empty() {
            self.set_lost();
        }
        let is_in_trouble = known.iter().any(|broker| !SOUND.contains(&broker.state.as_str()));
        // Credentials are read in trouble only.
        if self.had_trouble.swap(is_in_trouble, Relaxed) && is_in_trouble && self.credentials.have_changed() {
            self.lost.get_or_init(|| "its certificates, keys or passwords have changed");
        }
    }

    /// Counts all brokers as lost, because requests timed out.
    pub fn set_lost(&self) {
        self.lost.get_or_init(|| "it has no broker left");
    }

    /// Returns why the client cannot recover, if it cannot.
    pub fn lost(&self) -> Option<&'static str> {
        self.lost.get().copied()
    }

    /// Returns whether the client cannot recover.
    pub fn are_lost(&self) -> bool {
        self.lost().is_some()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    fn statistics(brokers: &[(&str, &str)]) -> Statistics {
        let broker = |(source, state): &(&str, &str)| {
            let broker = Broker { source: (*source).to_owned(), state: (*state).to_owned(), ..Broker::default() };
            (format!("{source} {state}"), broker)
        };
        Statistics { brokers: brokers.iter().map(broker).collect(), ..Statistics::default() }
    }

    #[test]
    fn brokers_are_lost_when_two_consecutive_statistics_have_none() {
        let brokers = Brokers::of(&ClientConfig::new());
        let noted = |sources: &[&str]| {
            let sources: Vec<_> = sources.iter().map(|source| (*source, "UP")).collect();
            brokers.note(&statistics(&sources));
            brokers.are_lost()
        };
        assert!(!noted(&["configured", "internal"]));
        assert!(!noted(&["internal"]), "for a moment, perhaps");
        assert!(!noted(&["learned", "logical"]));
        assert!(!noted(&["logical", "internal"]));
        assert!(noted(&["logical", "internal"]));
    }

    #[test]
    fn changed_credentials_replace_a_client_only_while_a_broker_is_down() {
        let reads = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = std::sync::Arc::clone(&reads);
        let credentials = Credentials::new(move || {
            let is_first = count.fetch_add(1, Relaxed) == 0;
            let password = if is_first { "old" } else { "new" };
            Some(BTreeMap::from([("sasl.password".to_owned(), password.to_owned())]))
        });
        let brokers = Brokers::new(credentials);
        for _ in 0..3 {
            brokers.note(&statistics(&[("learned", "UP"), ("learned", "INIT"), ("logical", "DOWN")]));
        }
        assert_eq!(reads.load(Relaxed), 1, "nothing is read while brokers are up");
        for expected in [false, false, true] {
            brokers.note(&statistics(&[("learned", "UP"), ("learned", "DOWN")]));
            assert_eq!(brokers.are_lost(), expected);
        }
        assert_eq!(brokers.lost(), Some("its certificates, keys or passwords have changed"));
    }
}
