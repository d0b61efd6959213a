//! Repetitions are held back and counted.
//!
//! With the brokers down librdkafka alone writes the same line many times a second. A warning or error is shown five times
//! in thirty seconds; then its place in the code is silent until the thirty seconds are over, and one line says how many
//! were held back. Two different error codes at one place are two different things.

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

/// How long a line's place in the code is watched from its first appearance.
const WINDOW: Duration = Duration::from_secs(30);

/// The most places that are watched at a time; what is beyond is shown.
const MAX_PLACES: usize = 1_024;

/// What has been shown and held back lately.
#[derive(Debug, Default)]
pub(super) struct Limit {
    places: HashMap<(Identifier, u64), Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    shown: u32,
    held_back: u64,
    level: Level,
    target: &'static str,
    code: Option<String>,
    message: String,
}

/// What to say about one place when its time is over.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Repeated {
    /// The level of the lines held back.
    pub(super) level: Level,
    /// Their target.
    pub(super) target: &'static str,
    /// Their error code.
    pub(super) code: Option<String>,
    /// Their message.
    pub(super) message: String,
    /// How many there were.
    pub(super) count: u64,
}

impl Limit {
    /// Decides whether a line is shown. Its kind is its code, and what else tells it from others of its place.
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
        if !self.places.contains_key(&key) && self.places.len() >= MAX_PLACES {
            return true;
        }
        let place = self.places.entry(key).or_insert_with(|| Place {
            since: now,
            shown: 0,
            held_back: 0,
            level: *metadata.level(),
            target: metadata.target(),
            code: code.map(str::to_owned),
            message: message.to_owned(),
        });
        if place.shown < MAX_SHOWN {
            place.shown += 1;
            return true;
        }
        place.held_back += 1;
        false
    }

    /// Forgets the places whose time is over, and gives those that held lines back.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Repeated> {
        let expired = self.places.extract_if(|_, place| now.duration_since(place.since) >= WINDOW);
        expired
            .map(|(_, place)| place)
            .filter(|place| place.held_back > 0)
            .map(|Place { level, target, code, message, held_back, .. }| Repeated {
                level,
                target,
                code,
                message,
                count: held_back,
            })
            .collect()
    }

    /// Forgets everything, and gives the places that held lines back.
    pub(super) fn finish(&mut self) -> Vec<Repeated> {
        let latest = self.places.values().map(|place| place.since).max();
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
    fn the_sixth_repetition_is_held_back_and_told_when_the_time_is_over() {
        let mut limit = Limit::default();
        let start = Instant::now();
        let shown = (0..1_000).filter(|_| limit.admits(metadata(0), [None, None], "brokers down", start)).count();
        assert_eq!(shown, 5);
        assert_eq!(limit.expired(start + Duration::from_secs(29)), []);
        let told = limit.expired(start + Duration::from_secs(30));
        assert_eq!(
            told.iter().map(|each| (each.message.as_str(), each.count)).collect::<Vec<_>>(),
            [("brokers down", 995)]
        );
        assert!(limit.admits(metadata(0), [None, None], "brokers down", start + Duration::from_secs(31)));
    }

    #[test]
    fn another_place_and_another_code_have_their_own_count() {
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
    fn the_number_of_places_is_bounded() {
        let mut limit = Limit::default();
        let now = Instant::now();
        for number in 0..5_000 {
            assert!(limit.admits(metadata(0), [Some(&number.to_string()), None], "failed", now));
        }
        assert_eq!(limit.places.len(), MAX_PLACES);
        limit.finish();
        assert_eq!(limit.places.len(), 0);
    }
}
