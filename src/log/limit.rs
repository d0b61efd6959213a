//! Repeated warnings and errors are suppressed and counted.
//!
//! With the brokers down librdkafka alone writes the same line many times a second. A warning or error is shown five
//! times in thirty seconds. Then its callsite is silent until the thirty seconds are over, and one line reports how
//! many were suppressed. Different error codes at one callsite are counted separately.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::time::Duration;
use std::time::Instant;

use tracing::Level;
use tracing::callsite::Identifier;

/// How often a line is shown within [`WINDOW`].
const MAX_SHOWN: u32 = 5;

/// How long a callsite is watched from its first line on.
const WINDOW: Duration = Duration::from_secs(30);

/// The most callsites that are watched at a time. Lines of others are shown.
const MAX_CALLSITES: usize = 1_024;

/// What was shown and suppressed within the window.
#[derive(Debug, Default)]
pub(super) struct Limit {
    callsites: HashMap<(Identifier, u64), Callsite>,
}

#[derive(Debug)]
struct Callsite {
    since: Instant,
    shown: u32,
    suppressed: u64,
    level: Level,
    target: &'static str,
    code: Option<String>,
    message: String,
}

/// The suppressed lines of one callsite, reported when its window is over.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Repeated {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) count: u64,
}

impl Limit {
    /// Decides whether a line is shown. Its kind is its code, and what else distinguishes lines of one callsite.
    pub(super) fn admits(
        &mut self,
        metadata: &'static tracing::Metadata<'static>,
        kind @ [code, _]: [Option<&str>; 2],
        message: &str,
        now: Instant,
    ) -> bool {
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        let key = (metadata.callsite(), hasher.finish());
        if !self.callsites.contains_key(&key) && self.callsites.len() >= MAX_CALLSITES {
            return true;
        }
        let callsite = self.callsites.entry(key).or_insert_with(|| Callsite {
            since: now,
            shown: 0,
            suppressed: 0,
            level: *metadata.level(),
            target: metadata.target(),
            code: code.map(str::to_owned),
            message: message.to_owned(),
        });
        if callsite.shown < MAX_SHOWN {
            callsite.shown += 1;
            return true;
        }
        callsite.suppressed += 1;
        false
    }

    /// Removes the callsites whose window is over, and returns those with suppressed lines.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Repeated> {
        let expired = self.callsites.extract_if(|_, callsite| now.duration_since(callsite.since) >= WINDOW);
        expired
            .map(|(_, callsite)| callsite)
            .filter(|callsite| callsite.suppressed > 0)
            .map(|Callsite { level, target, code, message, suppressed, .. }| Repeated {
                level,
                target,
                code,
                message,
                count: suppressed,
            })
            .collect()
    }

    /// Removes all callsites, and returns those with suppressed lines.
    pub(super) fn finish(&mut self) -> Vec<Repeated> {
        let latest = self.callsites.values().map(|callsite| callsite.since).max();
        latest.map(|latest| self.expired(latest + WINDOW)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Callsite;

    fn metadata(name: u8) -> &'static tracing::Metadata<'static> {
        let (first, second) = (
            tracing::callsite! { name: "a", kind: tracing::metadata::Kind::EVENT, fields: },
            tracing::callsite! {
                name: "b", kind: tracing::metadata::Kind::EVENT, fields:
            },
        );
        if name == 0 { first.metadata() } else { second.metadata() }
    }

    #[test]
    fn the_sixth_repetition_is_suppressed_and_reported_when_the_window_is_over() {
        let mut limit = Limit::default();
        let start = Instant::now();
        let shown = (0..1_000).filter(|_| limit.admits(metadata(0), [None, None], "brokers down", start)).count();
        assert_eq!(shown, 5);
        assert_eq!(limit.expired(start + Duration::from_secs(29)), []);
        let repeated = limit.expired(start + Duration::from_secs(30));
        assert_eq!(
            repeated.iter().map(|each| (each.message.as_str(), each.count)).collect::<Vec<_>>(),
            [("brokers down", 995)]
        );
        assert!(limit.admits(metadata(0), [None, None], "brokers down", start + Duration::from_secs(31)));
    }

    #[test]
    fn another_callsite_and_another_code_have_their_own_count() {
        let mut limit = Limit::default();
        let now = Instant::now();
        for _ in 0..10 {
            limit.admits(metadata(0), [Some("WR-6901"), None], "failed", now);
        }
        assert!(limit.admits(metadata(0), [Some("WR-6902"), None], "failed", now));
        assert!(limit.admits(metadata(1), [Some("WR-6901"), None], "failed", now));
        assert!(!limit.admits(metadata(0), [Some("WR-6901"), None], "failed", now));
    }

    #[test]
    fn the_number_of_callsites_is_bounded() {
        let mut limit = Limit::default();
        let now = Instant::now();
        for number in 0..5_000 {
            assert!(limit.admits(metadata(0), [Some(&number.to_string()), None], "failed", now));
        }
        assert_eq!(limit.callsites.len(), MAX_CALLSITES);
        limit.finish();
        assert_eq!(limit.callsites.len(), 0);
    }
}
