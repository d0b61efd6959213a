//! Writes dead-letter records to a topic again.
//!
//! Each record is written, then marked as redriven. Before that, the run notes in the dead-letter topic that it writes,
//! where to and since when. So the next run knows where to look for records that were written and not marked because
//! this one was interrupted. What remains: a record is written twice if its delivery report was lost and the next run
//! cannot read the topic, reads more than its limit, or reads it before the broker has appended the record.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use rdkafka::error::RDKafkaErrorCode;
use uuid::Uuid;

use crate::consumer::dead_letter::client::Headers;
use crate::consumer::dead_letter::markers;
use crate::consumer::dead_letter::producer::Producer;
use crate::consumer::dead_letter::provenance::own_headers;
use crate::consumer::dead_letter::record::DeadLetter;
use crate::consumer::record::Record;
use crate::consumer::write_error;
use crate::consumer::write_error::WriteError;

/// The header of a redriven record: `topic[partition]@offset` of the dead-letter record.
pub(super) const REDRIVEN_FROM: &str = "redriven_from";

/// A run notes anew that it writes to a topic after this time, and after this many records. The next run reads the
/// topic from the last note on.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
const NOTE_RECORDS: u32 = 1_000;

/// The partition for the notes of a run: every topic has it.
const NOTES_PARTITION: i32 = 0;

/// A run that redrives records of one dead-letter topic.
#[derive(Debug)]
pub struct Redrive<'p> {
    producer: &'p Producer,
    dead_letter_topic: String,
    id: String,
    /// The topics that it writes to: when that was last noted, and how many records were written since.
    noted: HashMap<String, (Instant, u32)>,
}

impl<'p> Redrive<'p> {
    /// Creates a run. It has written nothing yet.
    #[must_use]
    pub fn new(producer: &'p Producer, dead_letter_topic: &str) -> Self {
        let (dead_letter_topic, id) = (dead_letter_topic.to_owned(), Uuid::now_v7().to_string());
        Self { producer, dead_letter_topic, id, noted: HashMap::new() }
    }

    /// Writes a dead-letter record to a topic again, byte for byte, with the further header `redriven_from`. Then it
    /// marks the record as redriven.
    ///
    /// If the topic is the one it came from, it gets its former partition, even if that was not chosen by the key. If
    /// the topic has got more partitions since, newer events of the key may be in another one.
    pub async fn redrive(&mut self, dead_letter: &DeadLetter, topic: &str) -> Result<(), WriteError> {
        self.note(topic).await?;
        let record = &dead_letter.record;
        let own = own_headers(record).filter(|(name, _)| *name != REDRIVEN_FROM.as_bytes());
        let mut headers: Headers = own.map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        headers.push((REDRIVEN_FROM.as_bytes().to_vec(), Some(record.to_string().into_bytes())));
        let body = (record.key(), record.value());
        let origin = dead_letter.provenance.as_ref().filter(|it| it.topic == topic && it.partition >= 0);
        let mut sent = self.producer.send(topic, origin.map(|it| it.partition), body, &headers).await;
        if matches!(&sent, Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition)) {
            // The topic was recreated with fewer partitions.
            sent = self.producer.send(topic, None, body, &headers).await;
        }
        match sent {
            Err(error) if write_error::is_about_size(&error) => {
                Err(self.producer.too_large(topic, body, &headers).await)
            }
            Err(error) => Err(self.producer.failed(error, topic)),
            Ok(()) => self.mark(record).await,
        }
    }

    /// Marks a record as redriven, because a record of the same event was redriven.
    pub async fn mark(&self, record: &Record) -> Result<(), WriteError> {
        self.mark_at(record.partition(), &record.to_string()).await
    }

    /// Marks what interrupted runs delivered. Then the runs count as ended.
    pub async fn complete(&self, delivered: &[(i32, i64)], runs: &[String]) -> Result<(), WriteError> {
        for (partition, offset) in delivered {
            self.mark_at(*partition, &format!("{}[{partition}]@{offset}", self.dead_letter_topic)).await?;
        }
        for run in runs {
            self.write_note(&markers::run_ended(run, millis()), run).await?;
        }
        Ok(())
    }

    /// Notes that the run has ended and marked what it redrove.
    pub async fn end(self) -> Result<(), WriteError> {
        if self.noted.is_empty() {
            return Ok(());
        }
        self.write_note(&markers::run_ended(&self.id, millis()), &self.id).await
    }

    /// Notes that the run writes to a topic, before the first record and from time to time.
    async fn note(&mut self, topic: &str) -> Result<(), WriteError> {
        if let Some((at, records)) = self.noted.get_mut(topic)
            && at.elapsed() < NOTE_INTERVAL
            && *records < NOTE_RECORDS
        {
            *records += 1;
            return Ok(());
        }
        self.write_note(&markers::run_started(&self.id, topic, millis()), &self.id).await?;
        self.noted.insert(topic.to_owned(), (Instant::now(), 1));
        Ok(())
    }

    async fn write_note(&self, headers: &Headers, run: &str) -> Result<(), WriteError> {
        self.write(NOTES_PARTITION, run, headers).await
    }

    /// A marker record is in the partition of its record.
    async fn mark_at(&self, partition: i32, place: &str) -> Result<(), WriteError> {
        self.write(partition, place, &markers::redriven(place)).await
    }

    /// Each marker record has a key of its own and a value: a compacted topic keeps it, and the records of other keys.
    async fn write(&self, partition: i32, key: &str, headers: &Headers) -> Result<(), WriteError> {
        let topic = self.dead_letter_topic.as_str();
        let body = (Some(key.as_bytes()), Some(&b""[..]));
        let sent = self.producer.send(topic, Some(partition), body, headers).await;
        sent.map_err(|error| self.producer.failed(error, topic))
    }
}

fn millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
