//! Marker records: what a redrive writes into the dead-letter topic itself.
//!
//! | headers | partition | means |
//! |---|---|---|
//! | `dlq_redriven: topic[partition]@offset` | that of the record | the record was redriven |
//! | `dlq_redrive_run`, `dlq_redrive_to`, `dlq_redrive_at` | 0 | from this time on the run writes to this topic |
//! | `dlq_redrive_run`, `dlq_redrive_ended` | 0 | the run marked all that it redrove |
//!
//! A run that wrote to a topic and did not end was interrupted, or is still running: records that it redrove may lack
//! their marker.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::consumer::dead_letter::client::Headers;
use crate::consumer::dead_letter::offsets::Offsets;
use crate::consumer::dead_letter::provenance::Provenance;
use crate::consumer::record::Record;

const REDRIVEN: &str = "dlq_redriven";
const RUN: &str = "dlq_redrive_run";
const TO: &str = "dlq_redrive_to";
const AT: &str = "dlq_redrive_at";
const ENDED: &str = "dlq_redrive_ended";

/// What the marker records of a dead-letter topic say. In memory: about a bit for each dead-letter record, and the runs
/// that did not end.
#[derive(Debug, Default)]
pub(super) struct Markers {
    redriven: HashMap<i32, Offsets>,
    /// The topics that each run wrote to, with the time of its last marker record about it.
    open_runs: BTreeMap<String, BTreeMap<String, i64>>,
}

impl Markers {
    /// Takes a record of the topic. Returns false if it is no marker record.
    pub(super) fn take(&mut self, record: &Record) -> bool {
        if !is_marker(record) {
            return false;
        }
        if let Some((partition, offset)) = record.header(REDRIVEN).and_then(|place| parse(record.topic(), place)) {
            self.add(partition, offset);
        }
        if let Some(run) = record.header(RUN) {
            let started = record.header(TO).zip(record.header(AT).and_then(|at| at.parse().ok()));
            if record.header(ENDED).is_some() {
                self.open_runs.remove(run);
            } else if let Some((topic, at)) = started {
                self.open_runs.entry(run.to_owned()).or_default().insert(topic.to_owned(), at);
            }
        }
        true
    }

    /// Notes that a record was redriven. Returns whether that is new.
    pub(super) fn add(&mut self, partition: i32, offset: i64) -> bool {
        self.redriven.entry(partition).or_default().insert(offset)
    }

    pub(super) fn is_redriven(&self, record: &Record) -> bool {
        self.redriven.get(&record.partition()).is_some_and(|offsets| offsets.contains(record.offset()))
    }

    /// Returns the runs that did not end.
    pub(super) const fn open_runs(&self) -> &BTreeMap<String, BTreeMap<String, i64>> {
        &self.open_runs
    }
}

/// Returns whether a record is a marker record. One that a consumer dead-lettered has a provenance and is none.
pub(super) fn is_marker(record: &Record) -> bool {
    let is_named = record.header(REDRIVEN).is_some() || record.header(RUN).is_some();
    is_named && Provenance::read(record).is_none()
}

/// Returns the headers of the marker record of a redriven record.
pub(super) fn redriven(place: &str) -> Headers {
    headers([(REDRIVEN, place.to_owned())])
}

pub(super) fn run_started(run: &str, to: &str, at_millis: i64) -> Headers {
    headers([(RUN, run.to_owned()), (TO, to.to_owned()), (AT, at_millis.to_string())])
}

pub(super) fn run_ended(run: &str, at_millis: i64) -> Headers {
    headers([(RUN, run.to_owned()), (ENDED, at_millis.to_string())])
}

fn headers<const N: usize>(pairs: [(&str, String); N]) -> Headers {
    pairs.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), Some(value.into_bytes()))).collect()
}

/// Parses `topic[partition]@offset`. None if it names another topic: the record was copied from there.
pub(super) fn parse(topic: &str, place: &str) -> Option<(i32, i64)> {
    let (partition, offset) = place.strip_prefix(topic)?.strip_prefix('[')?.split_once("]@")?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &Headers) -> Record {
        let borrowed: Vec<_> =
            headers.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap(), value.as_deref())).collect();
        Record::new("t.dlq", 0, 5, None, None, &borrowed)
    }

    #[test]
    fn a_marker_record_of_another_topic_marks_nothing() {
        let mut markers = Markers::default();
        assert!(markers.take(&record(&redriven("u.dlq[0]@5"))));
        assert!(!markers.is_redriven(&record(&Vec::new())));
        assert!(markers.take(&record(&redriven("t.dlq[0]@5"))));
        assert!(markers.is_redriven(&record(&Vec::new())));
    }

    #[test]
    fn a_marker_record_that_was_dead_lettered_is_a_dead_letter_record() {
        let mut headers = redriven("t.dlq[0]@5");
        for (name, value) in [("dlq_topic", "t.dlq"), ("dlq_partition", "0"), ("dlq_offset", "6")] {
            headers.push((name.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
        }
        let mut markers = Markers::default();
        assert!(!markers.take(&record(&headers)) && !markers.is_redriven(&record(&Vec::new())));
    }

    #[test]
    fn a_run_is_open_until_its_end_and_again_when_it_continues() {
        let mut markers = Markers::default();
        for (headers, expected) in [
            (run_started("r", "t", 7), vec![("r", 7)]),
            (run_started("r", "t", 9), vec![("r", 9)]),
            (run_started("s", "t", 8), vec![("r", 9), ("s", 8)]),
            (run_ended("r", 10), vec![("s", 8)]),
            (run_started("r", "t", 11), vec![("r", 11), ("s", 8)]),
        ] {
            markers.take(&record(&headers));
            let open = markers.open_runs().iter().map(|(run, topics)| (run.as_str(), topics["t"]));
            assert_eq!(open.collect::<Vec<_>>(), expected);
        }
    }
}
