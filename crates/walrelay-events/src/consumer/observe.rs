//! What a consumer tells about itself, for metrics and alarms.
//!
//! An [`Observer`] is called from the consumer's own thread and must not wait. [`Prometheus`] is one that counts.

use std::time::Duration;

use prometheus::Gauge;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;

use crate::consumer::lanes::Partition;
use crate::consumer::record::Record;

/// Something that happened in a consumer.
#[derive(Clone, Debug)]
pub enum Observed<'a> {
    /// A handler has returned.
    Handled {
        /// What it was given.
        record: &'a Record,
        /// What it decided.
        fate: Fate,
        /// How long it took.
        took: Duration,
    },
    /// A record is in the dead-letter topic.
    DeadLettered {
        /// The record.
        record: &'a Record,
        /// Why.
        reason: &'a str,
    },
    /// A record cannot be brought to the dead-letter topic: its key waits, and nothing behind it is committed, until it can.
    DeadLetterBlocked {
        /// The record.
        record: &'a Record,
        /// What Kafka says.
        error: &'a str,
    },
    /// Partitions were given up while some of their records were in handlers; their new owner gets them again.
    Revoked {
        /// How many records.
        unfinished: usize,
    },
    /// How far a partition is behind its end.
    Lag {
        /// The partition.
        partition: &'a Partition,
        /// How many records.
        records: u64,
    },
    /// A partition is not ours any more: its lag is somebody else's.
    GivenUp {
        /// The partition.
        partition: &'a Partition,
    },
    /// No broker can be reached.
    Away,
    /// A broker can be reached again.
    Back {
        /// After how long.
        after: Duration,
    },
    /// The client reached no broker any more, and another one joins the group in its place.
    Renewed,
    /// What is held.
    Held {
        /// Records in handlers.
        running: usize,
        /// For how long the one has been in its handler that has been for longest.
        longest: Duration,
        /// Bytes of all records held.
        bytes: u64,
    },
}

/// What a handler decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Dealt with.
    Done,
    /// Tried again later.
    Retried,
    /// To the dead-letter topic.
    Rejected,
}

impl Fate {
    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Rejected => "rejected",
        }
    }
}

/// Is told what happens in a consumer.
pub trait Observer: Send + Sync + 'static {
    /// Takes note. Must not wait.
    fn observe(&self, observed: &Observed<'_>);
}

impl Observer for () {
    fn observe(&self, _: &Observed<'_>) {}
}

/// Counts for Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    handled: HistogramVec,
    dead_lettered: IntCounterVec,
    dead_letter_errors: IntCounter,
    revoked: IntCounter,
    lag: IntGaugeVec,
    away: IntGauge,
    renewed: IntCounter,
    running: IntGauge,
    longest: Gauge,
    held_bytes: Gauge,
}

impl Prometheus {
    /// Registers the series. A registry takes them once.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let handled = HistogramVec::new(
            HistogramOpts::new("walrelay_consumer_handling_seconds", "How long handlers took, by what they decided")
                .buckets(vec![0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            &["topic", "outcome"],
        )?;
        let dead_lettered = IntCounterVec::new(
            Opts::new("walrelay_consumer_dead_letters_total", "Records brought to the dead-letter topic"),
            &["topic"],
        )?;
        let dead_letter_errors = IntCounter::new(
            "walrelay_consumer_dead_letter_errors_total",
            "Attempts to bring a record to the dead-letter topic that failed; nothing behind it is committed meanwhile",
        )?;
        let revoked = IntCounter::new(
            "walrelay_consumer_revoked_inflight_total",
            "Records that were in handlers when their partition was given up",
        )?;
        let lag = IntGaugeVec::new(
            Opts::new("walrelay_consumer_lag_records", "Records between what is done and the end of the partition"),
            &["topic", "partition"],
        )?;
        let away = IntGauge::new("walrelay_consumer_kafka_away", "1 while no broker can be reached")?;
        let renewed = IntCounter::new(
            "walrelay_consumer_client_renewals_total",
            "Clients that reached no broker any more, and in whose place another one joined the group",
        )?;
        let running = IntGauge::new("walrelay_consumer_running", "Records in handlers")?;
        let longest = Gauge::new(
            "walrelay_consumer_longest_running_seconds",
            "For how long the record has been in its handler that has been for longest",
        )?;
        let held_bytes = Gauge::new("walrelay_consumer_held_bytes", "Memory of the records held")?;
        registry.register(Box::new(handled.clone()))?;
        registry.register(Box::new(dead_lettered.clone()))?;
        registry.register(Box::new(dead_letter_errors.clone()))?;
        registry.register(Box::new(revoked.clone()))?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(away.clone()))?;
        registry.register(Box::new(renewed.clone()))?;
        registry.register(Box::new(running.clone()))?;
        registry.register(Box::new(longest.clone()))?;
        registry.register(Box::new(held_bytes.clone()))?;
        Ok(Self {
            handled,
            dead_lettered,
            dead_letter_errors,
            revoked,
            lag,
            away,
            renewed,
            running,
            longest,
            held_bytes,
        })
    }
}

impl Observer for Prometheus {
    fn observe(&self, observed: &Observed<'_>) {
        match observed {
            Observed::Handled { record, fate, took } => {
                self.handled.with_label_values(&[record.topic(), fate.word()]).observe(took.as_secs_f64());
            }
            Observed::DeadLettered { record, .. } => {
                self.dead_lettered.with_label_values(&[record.topic()]).inc();
            }
            Observed::DeadLetterBlocked { .. } => self.dead_letter_errors.inc(),
            Observed::Revoked { unfinished } => self.revoked.inc_by(*unfinished as u64),
            Observed::Lag { partition, records } => {
                let number = partition.number.to_string();
                let lag = i64::try_from(*records).unwrap_or(i64::MAX);
                self.lag.with_label_values(&[&*partition.topic, &number]).set(lag);
            }
            Observed::GivenUp { partition } => {
                // There is none before the first lag.
                let _ = self.lag.remove_label_values(&[&*partition.topic, &partition.number.to_string()]);
            }
            Observed::Away => self.away.set(1),
            Observed::Back { .. } => self.away.set(0),
            Observed::Renewed => self.renewed.inc(),
            Observed::Held { running, longest, bytes } => {
                self.longest.set(longest.as_secs_f64());
                self.running.set(i64::try_from(*running).unwrap_or(i64::MAX));
                #[expect(clippy::cast_precision_loss, reason = "a gauge of bytes")]
                self.held_bytes.set(*bytes as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_partition_goes_with_it() {
        let registry = Registry::new();
        let series = Prometheus::register(&registry).unwrap();
        let partition = Partition { topic: "t".into(), number: 3 };
        let lags = || registry.gather().iter().filter(|it| it.name() == "walrelay_consumer_lag_records").count();
        series.observe(&Observed::Lag { partition: &partition, records: 7 });
        assert_eq!(lags(), 1);
        series.observe(&Observed::GivenUp { partition: &partition });
        assert_eq!(lags(), 0);
    }
}
