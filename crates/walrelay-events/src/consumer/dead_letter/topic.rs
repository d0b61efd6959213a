//! A dead-letter topic, read from its beginning to its end at the time of the call.
//!
//! The topic is read twice: first for the marker records, then for the dead-letter records. In memory are about a bit
//! for each redriven record, and at most 24 MiB to find records of the same event.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rdkafka::error::KafkaError as ClientError;
use rdkafka::error::KafkaResult;
use rdkafka::error::RDKafkaErrorCode;

use crate::consumer::dead_letter::markers;
use crate::consumer::dead_letter::markers::Markers;
use crate::consumer::dead_letter::reader::Reader;
use crate::consumer::dead_letter::record::DeadLetter;
use crate::consumer::dead_letter::redrive::REDRIVEN_FROM;
use crate::consumer::dead_letter::repeats::Repeats;
use crate::consumer::record::Record;
use crate::kafka_error::KafkaError;

/// How much earlier than the clock of an interrupted run a broker's clock may be.
const CLOCK_MARGIN_MILLIS: i64 = 60_000;
/// How many records of each topic are read to find out what an interrupted run delivered.
const MAX_EXAMINED: u64 = 1_000_000;

/// A dead-letter topic up to its end when it was opened.
pub struct DeadLetterTopic<'p> {
    properties: &'p BTreeMap<String, String>,
    name: String,
    reader: Reader,
    markers: Markers,
}

/// What redrive runs that did not end had delivered.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Interrupted {
    /// The dead-letter records that they redrove and did not mark: partition and offset.
    pub delivered: Vec<(i32, i64)>,
    /// The ids of the runs.
    pub runs: Vec<String>,
    /// Topics that could not be examined completely, and why. Records that were delivered there may be repeated.
    pub unknown: Vec<(String, String)>,
}

impl<'p> DeadLetterTopic<'p> {
    /// Reads the marker records. `properties` are librdkafka's. Blocks.
    pub fn open(properties: &'p BTreeMap<String, String>, name: &str) -> Result<Self, KafkaError> {
        let reader = Reader::open(properties, name).map_err(KafkaError::new)?;
        let mut markers = Markers::default();
        let mut take = |record: Record| {
            markers.take(&record);
            ControlFlow::Continue(())
        };
        reader.pass(&mut take).map_err(KafkaError::new)?;
        Ok(Self { properties, name: name.to_owned(), reader, markers })
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether a redrive did not end: it was interrupted, or is still running.
    #[must_use]
    pub fn has_open_runs(&self) -> bool {
        !self.markers.open_runs().is_empty()
    }

    /// Finds out what runs that did not end had delivered, in the topics that they wrote to. These records count as
    /// redriven from now on. Reads at most 1,000,000 records per topic, from a minute before the last time that the
    /// run noted. Blocks.
    pub fn examine_open_runs(&mut self) -> Result<Interrupted, KafkaError> {
        let mut topics: BTreeMap<&str, i64> = BTreeMap::new();
        let runs = self.markers.open_runs();
        for (topic, at) in runs.values().flatten() {
            let since = topics.entry(topic).or_insert(*at);
            *since = (*at).min(*since);
        }
        let mut interrupted = Interrupted { runs: runs.keys().cloned().collect(), ..Interrupted::default() };
        let mut found = BTreeSet::new();
        for (topic, since) in topics {
            match self.delivered_to(topic, since, &mut found) {
                Ok(true) => {}
                Ok(false) => {
                    interrupted
                        .unknown
                        .push((topic.to_owned(), format!("more than {MAX_EXAMINED} records since then")));
                }
                Err(error) if is_lasting(&error) => interrupted.unknown.push((topic.to_owned(), error.to_string())),
                Err(error) => return Err(KafkaError::new(error)),
            }
        }
        found.retain(|(partition, offset)| self.markers.add(*partition, *offset));
        interrupted.delivered = found.into_iter().collect();
        Ok(interrupted)
    }

    /// Visits each dead-letter record, partition by partition, in the order of their offsets, until a visit breaks.
    /// Blocks.
    pub fn visit(&self, visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>) -> Result<(), KafkaError> {
        let mut waiting = Repeats::default();
        self.reader
            .pass(&mut |record| {
                if markers::is_marker(&record) {
                    return ControlFlow::Continue(());
                }
                let mut dead_letter = DeadLetter::new(record);
                dead_letter.is_redriven = self.markers.is_redriven(&dead_letter.record);
                if !dead_letter.is_redriven {
                    dead_letter.is_repeated = waiting.contains(&dead_letter);
                    waiting.note(&dead_letter);
                }
                visit(dead_letter)
            })
            .map_err(KafkaError::new)
    }

    /// Collects the dead-letter records that a topic names as redriven. Returns false if it has too many records.
    fn delivered_to(&self, topic: &str, since: i64, found: &mut BTreeSet<(i32, i64)>) -> KafkaResult<bool> {
        let mut reader = Reader::open(self.properties, topic)?;
        reader.skip_until(since - CLOCK_MARGIN_MILLIS)?;
        let mut examined = 0;
        let mut take = |record: Record| {
            found.extend(record.header(REDRIVEN_FROM).and_then(|place| markers::parse(&self.name, place)));
            examined += 1;
            if examined > MAX_EXAMINED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reader.pass(&mut take)?;
        Ok(examined <= MAX_EXAMINED)
    }
}

/// Returns whether a topic cannot be read whenever it is tried: it was deleted, or the permission is missing.
fn is_lasting(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

impl std::fmt::Debug for DeadLetterTopic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterTopic").field("name", &self.name).finish_non_exhaustive()
    }
}
