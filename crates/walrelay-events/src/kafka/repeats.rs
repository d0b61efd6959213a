//! Suppresses repeated log lines of librdkafka: while brokers are down it logs the same several times a second.

use std::collections::HashMap;

use rdkafka::config::RDKafkaLogLevel;

/// How long a line is suppressed after one of the same kind.
const PAUSE_MICROS: u64 = 30_000_000;
/// The number of kinds that are distinguished; at the limit further kinds are suppressed.
const MAX_KINDS: usize = 64;
/// The length of the prefix that is a line's kind, in characters.
const MAX_KIND_CHARS: usize = 200;

/// The time of the last line of each kind.
#[derive(Debug, Default)]
pub struct Repeats(HashMap<String, u64>);

impl Repeats {
    /// Returns whether to write a line, and remembers it then.
    pub fn is_news(&mut self, facility: &str, text: &str, now_micros: u64) -> bool {
        let kind = kind(facility, text);
        let is_recent = |at: &u64| now_micros.saturating_sub(*at) < PAUSE_MICROS;
        if self.0.get(&kind).is_some_and(is_recent) {
            return false;
        }
        self.0.retain(|_, at| is_recent(at));
        if self.0.len() >= MAX_KINDS {
            return false;
        }
        self.0.insert(kind, now_micros);
        true
    }
}

/// Lines are of one kind if they differ only in numbers (ports, counts) and durations.
fn kind(facility: &str, text: &str) -> String {
    let words = without_duration(text).chars().filter(|char| !char.is_ascii_digit()).take(MAX_KIND_CHARS);
    facility.chars().chain([' ']).chain(words).collect()
}

/// Removes the duration from a line: it differs each time.
pub fn without_duration(text: &str) -> &str {
    text.split(" (after ").next().unwrap_or(text)
}

/// Returns whether a line of librdkafka is at least a warning.
#[must_use]
pub const fn is_trouble(level: RDKafkaLogLevel) -> bool {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => true,
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "[thrd:b:9092/1]: b:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after \
                           3ms in state CONNECT, 1 identical error(s) suppressed)";
    const UNTRUSTED: &str = "[thrd:b:9092/1]: b:9092/1: SSL handshake failed: certificate verify failed (after 9ms in \
                             state SSL_HANDSHAKE)";

    #[test]
    fn another_kind_is_written_at_once_and_the_same_kind_after_the_pause() {
        let mut repeats = Repeats::default();
        assert!(repeats.is_news("FAIL", REFUSED, 1));
        assert!(!repeats.is_news("FAIL", &REFUSED.replace("3ms", "70ms"), 2));
        assert!(repeats.is_news("FAIL", UNTRUSTED, 3));
        assert!(!repeats.is_news("FAIL", UNTRUSTED, 4));
        assert!(repeats.is_news("FAIL", REFUSED, 1 + PAUSE_MICROS));
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut repeats = Repeats::default();
        let written = (0..1_000).filter(|number| repeats.is_news("FAIL", &"x".repeat(*number), 1)).count();
        assert_eq!((written, repeats.0.len()), (MAX_KINDS, MAX_KINDS));
        assert!(repeats.is_news("FAIL", "later", PAUSE_MICROS + 2));
    }
}
