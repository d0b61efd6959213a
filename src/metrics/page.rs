//! Builds one exposition; the only file that uses the Prometheus crate.

use prometheus::TextEncoder;
use prometheus::proto;

use crate::measure::BUCKETS_SECONDS;
use crate::measure::Distribution;

/// What kind of number a series is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A counter.
    Count,
    /// A gauge.
    Level,
}

/// The labels of one series and its value.
pub(super) type Row<'a> = (Vec<(&'static str, &'a str)>, f64);

/// All families written so far.
#[derive(Debug)]
pub(super) struct Page {
    relay: String,
    families: Vec<proto::MetricFamily>,
}

impl Page {
    /// Starts a page for the relay of this name.
    pub(super) fn new(relay: &str) -> Self {
        Self { relay: relay.to_owned(), families: Vec::new() }
    }

    /// Writes a counter without labels of its own.
    pub(super) fn count(&mut self, name: &str, help: &str, value: f64) {
        self.rows(Kind::Count, name, help, [(Vec::new(), value)]);
    }

    /// Writes a gauge without labels of its own.
    pub(super) fn level(&mut self, name: &str, help: &str, value: f64) {
        self.rows(Kind::Level, name, help, [(Vec::new(), value)]);
    }

    /// Writes a gauge if it has a value.
    pub(super) fn level_if(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.rows(Kind::Level, name, help, value.map(|value| (Vec::new(), value)));
    }

    /// Writes one series per row; without rows, not even the name and the help.
    pub(super) fn rows<'a>(&mut self, kind: Kind, name: &str, help: &str, rows: impl IntoIterator<Item = Row<'a>>) {
        let mut metrics = Vec::new();
        for (labels, value) in rows {
            let mut metric = proto::Metric::from_label(self.labels(name, &labels));
            match kind {
                Kind::Count => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                Kind::Level => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            metrics.push(metric);
        }
        let field_type = match kind {
            Kind::Count => proto::MetricType::COUNTER,
            Kind::Level => proto::MetricType::GAUGE,
        };
        self.family(field_type, name, help, metrics);
    }

    /// Writes a histogram of seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, distribution: &Distribution) {
        let mut count = 0;
        let mut buckets = Vec::new();
        let bounds = BUCKETS_SECONDS.into_iter().chain([f64::INFINITY]);
        for (bound, own) in bounds.zip(&distribution.counts) {
            count += own;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        // The encoder writes the last bucket itself, as `+Inf`.
        buckets.pop();
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(distribution.sum_seconds);
        let mut metric = proto::Metric::from_label(self.labels(name, &[]));
        metric.set_histogram(histogram);
        self.family(proto::MetricType::HISTOGRAM, name, help, vec![metric]);
    }

    /// Encodes the page. The encoder rejects only an empty family or an empty name, and `family` writes neither.
    pub(super) fn into_text(self) -> String {
        TextEncoder::new().encode_to_string(&self.families).unwrap_or_default()
    }

    fn family(&mut self, kind: proto::MetricType, name: &str, help: &str, metrics: Vec<proto::Metric>) {
        debug_assert!(!name.is_empty(), "a family without a name");
        if metrics.is_empty() {
            return;
        }
        let mut family = proto::MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }

    /// Series of the process have no label `relay`: every exporter has them under the same labels.
    fn labels(&self, name: &str, labels: &[(&'static str, &str)]) -> Vec<proto::LabelPair> {
        let relay = name.starts_with("walrelay_").then_some(("relay", self.relay.as_str()));
        relay.into_iter().chain(labels.iter().copied()).map(|(name, value)| label(name, value)).collect()
    }
}

fn label(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
