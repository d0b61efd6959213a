//! Events by topic, in a table of fixed size.
//!
//! A topic name comes from a row, so a writer can create any number of them. The first 200 have an index
//! of their own, all others share index 0. Counting takes no lock; assigning an index and reading the names does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::measure::Counter;

/// The most topics that are counted one by one.
const MAX_NAMED: usize = 200;

/// The name under which all further topics are counted.
const OTHER: &str = "__other__";

/// Counters by topic.
#[derive(Clone, Debug)]
pub struct Topics(Arc<Table>);

#[derive(Debug)]
struct Table {
    cells: Box<[Cell]>,
    names: Mutex<TopicNames>,
}

#[derive(Debug, Default)]
struct Cell {
    events: Counter,
    bytes: Counter,
}

#[derive(Debug, Default)]
struct TopicNames {
    indexes: HashMap<String, u16>,
    overflowed: bool,
}

/// The index of a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Indexed {
    /// The argument of [`Topics::published`].
    pub index: u16,
    /// Whether this is the first topic that got no index of its own: one warning is due.
    pub is_first_overflow: bool,
}

/// What was published to one topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// The topic, or `__other__`.
    pub topic: String,
    /// Events acknowledged by a broker.
    pub events: u64,
    /// The bytes of their keys, values and headers.
    pub bytes: u64,
}

impl Default for Topics {
    fn default() -> Self {
        let cells = (0..=MAX_NAMED).map(|_| Cell::default()).collect();
        Self(Arc::new(Table { cells, names: Mutex::default() }))
    }
}

impl Topics {
    /// Gives the index of a topic, and assigns one to a new topic while there are any.
    #[must_use]
    pub fn index(&self, topic: &str) -> Indexed {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.indexes.get(topic) {
            return Indexed { index: *index, is_first_overflow: false };
        }
        let next = names.indexes.len() + 1;
        if next > MAX_NAMED {
            let is_first_overflow = !names.overflowed;
            names.overflowed = true;
            return Indexed { index: 0, is_first_overflow };
        }
        let index = u16::try_from(next).unwrap_or(0);
        names.indexes.insert(topic.to_owned(), index);
        Indexed { index, is_first_overflow: false }
    }

    /// Counts an event acknowledged by a broker.
    pub fn published(&self, index: u16, bytes: u64) {
        if let Some(cell) = self.0.cells.get(usize::from(index)) {
            cell.events.increment();
            cell.bytes.add(bytes);
        }
    }

    /// Reads all topics by name; `__other__` comes last, and only if it was needed.
    #[must_use]
    pub fn published_by_topic(&self) -> Vec<Published> {
        let (mut named, overflowed): (Vec<(String, u16)>, bool) = {
            let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
            (names.indexes.iter().map(|(name, index)| (name.clone(), *index)).collect(), names.overflowed)
        };
        named.sort();
        if overflowed {
            named.push((OTHER.to_owned(), 0));
        }
        let read = |(topic, index): (String, u16)| {
            let cell = self.0.cells.get(usize::from(index))?;
            Some(Published { topic, events: cell.events.value(), bytes: cell.bytes.value() })
        };
        named.into_iter().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_keeps_its_index() {
        let topics = Topics::default();
        let (orders, users) = (topics.index("orders").index, topics.index("users").index);
        assert_eq!(topics.index("orders").index, orders);
        topics.published(orders, 10);
        topics.published(orders, 5);
        topics.published(users, 1);
        let published = topics.published_by_topic();
        let rows: Vec<_> = published.iter().map(|row| (row.topic.as_str(), row.events, row.bytes)).collect();
        assert_eq!(rows, [("orders", 2, 15), ("users", 1, 1)]);
    }

    #[test]
    fn a_million_topics_take_two_hundred_indexes_and_one_warning() {
        let topics = Topics::default();
        let mut warnings = 0;
        for number in 0..1_000_000 {
            let indexed = topics.index(&format!("topic-{number}"));
            warnings += u32::from(indexed.is_first_overflow);
            topics.published(indexed.index, 1);
        }
        let published = topics.published_by_topic();
        assert_eq!((published.len(), warnings), (MAX_NAMED + 1, 1));
        let last = published.last().unwrap();
        assert_eq!((last.topic.as_str(), last.events), (OTHER, 1_000_000 - 200));
    }
}
