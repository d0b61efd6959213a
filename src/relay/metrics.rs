//! What the relay counts, as fields: written by its threads, read by whoever shows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::SystemTime;

use crate::lsn::Lsn;
use crate::measure::Counter;
use crate::measure::Gauge;
use crate::measure::Histogram;
use crate::relay::pipeline::Tally;

/// How many topics are counted by name. Beyond it they count together, as [`OTHER_TOPICS`].
pub const TOPICS_MAX: usize = 200;
/// The name under which further topics are counted.
pub const OTHER_TOPICS: &str = "__other__";

/// What the relay is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// It has not reached both sides yet.
    #[default]
    Starting,
    /// Events flow.
    Streaming,
    /// It is stopping, and delivers what is on the way.
    Draining,
    /// Kafka takes nothing.
    SinkBlocked,
    /// PostgreSQL is away.
    SourceReconnecting,
    /// Somebody else holds the slot.
    Standby,
    /// It has stopped.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Streaming,
        Self::Draining,
        Self::SinkBlocked,
        Self::SourceReconnecting,
        Self::Standby,
        Self::Stopped,
    ];

    /// Gives the name that metrics and `/status` use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Draining => "draining",
            Self::SinkBlocked => "sink_blocked",
            Self::SourceReconnecting => "source_reconnecting",
            Self::Standby => "standby",
            Self::Stopped => "stopped",
        }
    }
}

/// Everything the relay counts. A clone is another hand on the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The position received last.
    pub received_lsn: Gauge,
    /// The position confirmed to PostgreSQL.
    pub flushed_lsn: Gauge,
    /// The end of what the server has sent or announced.
    pub server_lsn: Gauge,
    /// Rows of outbox tables received.
    pub events_received: Counter,
    /// Transactions received whole.
    pub transactions: Counter,
    /// Updates, deletes and truncates, which an outbox does not publish.
    pub unexpected: Counter,
    /// Transactions that came again after a reconnect and were passed over.
    pub skipped_transactions: Counter,
    /// Records delivered, by topic.
    pub topics: Topics,
    /// Records on the way.
    pub in_flight_records: Gauge,
    /// Bytes on the way.
    pub in_flight_bytes: Gauge,
    /// The budget for bytes on the way.
    pub in_flight_bytes_limit: Gauge,
    /// Microseconds in which the log was not read because the budget was used up.
    pub backpressure_micros: Counter,
    /// From the commit in PostgreSQL to the acknowledgement of its last record by Kafka.
    pub commit_to_ack: Histogram,
    /// When the last transaction received had committed, in microseconds of the Unix clock.
    pub last_commit_micros: Gauge,
    /// When the oldest transaction on the way had committed; 0 if nothing is on the way.
    pub oldest_in_flight_micros: Gauge,
    /// When a record was last seen to have arrived.
    pub last_delivery_micros: Gauge,
    /// When the server last said something.
    pub last_message_micros: Gauge,
    /// When the relay thread last went round its loop.
    pub ticked_micros: Gauge,
    /// Whether the replication connection stands.
    pub postgres_connected: Gauge,
    /// Whether Kafka has answered since the producer was made.
    pub kafka_connected: Gauge,
    /// Replication connections opened again.
    pub postgres_reconnects: Counter,
    /// Producers made again.
    pub producer_rebuilds: Counter,
    /// How often the relay let go of PostgreSQL because the other side was away.
    pub parks: Counter,
    /// Failed attempts to store the position.
    pub position_store_errors: Counter,
    /// Failed attempts to look at the slot.
    pub slot_poll_errors: Counter,
    shared: Arc<Mutex<Shared>>,
}

/// What is more than a number.
#[derive(Debug, Default)]
struct Shared {
    state: State,
    slot: Option<SlotView>,
    last_error: Option<LastError>,
    tally: Tally,
}

/// The slot, as seen from an ordinary connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotView {
    /// Somebody streams from it.
    pub is_active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// The log that is kept for it.
    pub retained_bytes: Option<u64>,
    /// What may still be written before the slot is in danger; none without a limit.
    pub safe_bytes: Option<u64>,
    /// What it has confirmed.
    pub confirmed: Lsn,
}

/// The last thing that went wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastError {
    /// Its code.
    pub code: String,
    /// What happened.
    pub text: String,
    /// When, in microseconds of the Unix clock.
    pub at_micros: i64,
}

impl Metrics {
    /// Changes the state.
    pub fn set_state(&self, state: State) {
        self.shared().state = state;
    }

    /// Gives the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared().state
    }

    /// Notes what the pipeline has seen so far.
    pub fn note_tally(&self, tally: Tally, now_micros: u64) {
        let before = std::mem::replace(&mut self.shared().tally, tally);
        // A new pipeline counts from zero again.
        let since = |now: u64, before: u64| if now >= before { now - before } else { now };
        self.events_received.add(since(tally.events, before.events));
        self.transactions.add(since(tally.transactions, before.transactions));
        self.skipped_transactions.add(since(tally.skipped_transactions, before.skipped_transactions));
        self.unexpected.add(since(tally.unexpected, before.unexpected));
        if tally.frames != before.frames {
            self.last_message_micros.set(now_micros);
        }
    }

    /// Notes how the slot looks.
    pub fn note_slot(&self, view: SlotView) {
        self.shared().slot = Some(view);
    }

    /// Gives the slot as it was last seen.
    #[must_use]
    pub fn slot(&self) -> Option<SlotView> {
        self.shared().slot.clone()
    }

    /// Notes what went wrong.
    pub fn note_error(&self, code: String, text: String) {
        self.shared().last_error = Some(LastError { code, text, at_micros: now_micros() });
    }

    /// Gives the last thing that went wrong.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.shared().last_error.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the time in microseconds of the Unix clock.
#[must_use]
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Records and bytes delivered, by topic: a row's value must not make the metrics grow without bound.
#[derive(Clone, Debug)]
pub struct Topics(Arc<TopicTable>);

#[derive(Debug)]
struct TopicTable {
    names: Mutex<HashMap<String, u16>>,
    /// The first counts all topics beyond the limit.
    counts: Vec<(Counter, Counter)>,
}

/// What was delivered to one topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicCount {
    /// The topic.
    pub topic: String,
    /// Records.
    pub records: u64,
    /// Bytes, with what a record costs besides its own.
    pub bytes: u64,
}

impl Default for Topics {
    fn default() -> Self {
        let counts = (0..=TOPICS_MAX).map(|_| (Counter::default(), Counter::default())).collect();
        Self(Arc::new(TopicTable { names: Mutex::default(), counts }))
    }
}

impl Topics {
    /// Gives the index under which a topic is counted; 0 counts all topics beyond the limit.
    #[must_use]
    pub fn index(&self, name: &str) -> u16 {
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.get(name) {
            return *index;
        }
        let Some(index) = u16::try_from(names.len() + 1).ok().filter(|index| usize::from(*index) <= TOPICS_MAX) else {
            return 0;
        };
        if usize::from(index) == TOPICS_MAX {
            tracing::warn!(limit = TOPICS_MAX, "further topics are counted together");
        }
        names.insert(name.to_owned(), index);
        index
    }

    /// Counts a delivered record. Cheap: the thread of the delivery reports calls it for each.
    pub fn published(&self, index: u16, bytes: u64) {
        if let Some((records, total)) = self.0.counts.get(usize::from(index)) {
            records.increment();
            total.add(bytes);
        }
    }

    /// Gives every topic's count, by name.
    #[must_use]
    pub fn counts(&self) -> Vec<TopicCount> {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<(String, u16)> = names.iter().map(|(name, index)| (name.clone(), *index)).collect();
        drop(names);
        named.push((OTHER_TOPICS.to_owned(), 0));
        named.sort();
        let count = |(topic, index): (String, u16)| {
            let (records, bytes) = self.0.counts.get(usize::from(index))?;
            Some(TopicCount { topic, records: records.value(), bytes: bytes.value() })
        };
        named.into_iter().filter_map(count).filter(|count| count.topic != OTHER_TOPICS || count.records > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j6_a_million_topics_do_not_grow_the_metrics() {
        let topics = Topics::default();
        for number in 0..1_000 {
            topics.published(topics.index(&format!("t{number}")), 10);
        }
        let counts = topics.counts();
        assert_eq!(counts.len(), TOPICS_MAX + 1);
        let other = counts.iter().find(|count| count.topic == OTHER_TOPICS).unwrap();
        assert_eq!((other.records, other.bytes), (800, 8_000));
    }
}
