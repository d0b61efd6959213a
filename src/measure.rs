//! Counters, gauges and histograms that a room holds as fields.
//!
//! A room's `Metrics` is a struct of these; the room writes them, and only level 3 (`metrics.rs`) knows how they are
//! named and exposed. They are plain atomics behind an `Arc`: a clone is another hand on the same number, and a test
//! reads them without any registry.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Reads the count.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Relaxed);
    }

    /// Replaces the value by 1 or 0.
    pub fn set_flag(&self, value: bool) {
        self.0.store(i64::from(value), Relaxed);
    }

    /// Reads the value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// The upper bounds of every latency histogram, in seconds; the last bucket, +Inf, is not listed.
pub const BUCKETS_SECONDS: [f64; 15] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How long things took, in buckets.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// One count per bound, not cumulative, then +Inf.
    counts: [AtomicU64; BUCKETS_SECONDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Observations per bucket, not cumulative; the last is +Inf.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum_seconds: f64,
}

impl Histogram {
    /// Notes one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS_SECONDS.len());
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Relaxed);
    }

    /// Reads all buckets.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        Distribution {
            counts: self.0.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum_seconds: Duration::from_micros(self.0.sum_micros.load(Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::from_secs(3_600));
        let distribution = histogram.distribution();
        assert_eq!(distribution.counts.first(), Some(&1));
        assert_eq!(distribution.counts.get(1), Some(&1));
        assert_eq!(distribution.counts.last(), Some(&1));
    }
}
