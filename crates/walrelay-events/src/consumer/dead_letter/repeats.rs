//! Finds dead-letter records of the same event.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::hash::RandomState;

use crate::consumer::dead_letter::record::DeadLetter;
use crate::event;

/// How many events are remembered: about 24 MiB. A consumer that ends before its commit dead-letters an event again
/// soon after the first time.
const MAX_EVENTS: usize = 500_000;

/// Which events the last 500,000 dead-letter records were about. An event is identified by its id and its original
/// topic; without an id by its original place.
#[derive(Debug, Default)]
pub struct Repeats {
    hashers: (RandomState, RandomState),
    known: HashSet<u128>,
    oldest: VecDeque<u128>,
}

impl Repeats {
    /// Returns whether a record is about an event that was noted before.
    #[must_use]
    pub fn contains(&self, dead_letter: &DeadLetter) -> bool {
        self.hash(dead_letter).is_some_and(|hash| self.known.contains(&hash))
    }

    /// Notes the event of a record. A record without event id and origin is never repeated.
    pub fn note(&mut self, dead_letter: &DeadLetter) {
        let Some(hash) = self.hash(dead_letter) else { return };
        if !self.known.insert(hash) {
            return;
        }
        self.oldest.push_back(hash);
        if self.oldest.len() > MAX_EVENTS
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// 128 bits: two events with the same hash would hide one of them.
    fn hash(&self, dead_letter: &DeadLetter) -> Option<u128> {
        let origin = dead_letter.provenance.as_ref();
        let topic = origin.map(|origin| origin.topic.as_str());
        let id = dead_letter.record.header(event::EVENT_ID);
        let place = if id.is_some() { None } else { Some(origin.map(|it| (it.partition, it.offset))?) };
        let event = (topic, id, place);
        let (high, low) = (self.hashers.0.hash_one(event), self.hashers.1.hash_one(event));
        Some(u128::from(high) << 64 | u128::from(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::consumer::dead_letter::provenance::Provenance;
    use crate::consumer::record::Record;

    fn dead_letter(id: Option<&str>, origin: Option<(&str, i64, &str)>) -> DeadLetter {
        let headers: Vec<(&str, Option<&[u8]>)> = id.iter().map(|id| (event::EVENT_ID, Some(id.as_bytes()))).collect();
        let mut dead_letter = DeadLetter::new(Record::new("t.dlq", 0, 0, None, None, &headers));
        dead_letter.provenance = origin.map(|(topic, offset, group)| {
            Provenance::of(&Record::new(topic, 0, offset, None, None, &[]), group, "", 1)
        });
        dead_letter
    }

    #[test]
    fn an_event_is_its_id_and_topic_or_its_place() {
        let rows = [
            (dead_letter(Some("e"), Some(("t", 1, "g"))), dead_letter(Some("e"), Some(("t", 1, "g"))), true),
            (dead_letter(Some("e"), Some(("t", 1, "g"))), dead_letter(Some("e"), Some(("t", 9, "h"))), true),
            (dead_letter(Some("e"), Some(("t", 1, "g"))), dead_letter(Some("e"), Some(("u", 1, "g"))), false),
            (dead_letter(Some("e"), Some(("t", 1, "g"))), dead_letter(Some("f"), Some(("t", 1, "g"))), false),
            (dead_letter(None, Some(("t", 1, "g"))), dead_letter(None, Some(("t", 1, "h"))), true),
            (dead_letter(None, Some(("t", 1, "g"))), dead_letter(None, Some(("t", 2, "g"))), false),
            (dead_letter(None, None), dead_letter(None, None), false),
        ];
        for (first, second, expected) in rows {
            let mut repeats = Repeats::default();
            repeats.note(&first);
            assert_eq!(repeats.contains(&second), expected, "{first:?} {second:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_event_is_forgotten_first() {
        let mut repeats = Repeats::default();
        for number in 0..=MAX_EVENTS {
            repeats.note(&dead_letter(None, Some(("t", i64::try_from(number).unwrap(), "g"))));
        }
        assert_eq!((repeats.known.len(), repeats.oldest.len()), (MAX_EVENTS, MAX_EVENTS));
        assert!(!repeats.contains(&dead_letter(None, Some(("t", 0, "g")))));
        assert!(repeats.contains(&dead_letter(None, Some(("t", 1, "g")))));
    }
}
