//! The metrics of a consumer.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector;

use crate::consumer::observe::Observed;
use crate::consumer::observe::Observer;
use crate::consumer::verdict::Verdict;

/// Exports what a consumer reports as Prometheus series. Each has the label `group`.
#[derive(Clone, Debug)]
pub struct Prometheus {
    handler_duration: HistogramVec,
    /// The series of acked records by topic: looking one up by its labels for each record is measurably slower.
    acked: Arc<RwLock<Vec<Acked>>>,
    dead_letters: IntCounterVec,
    dead_letter_errors: IntCounter,
    revoked_in_flight: IntCounter,
    lag: IntGaugeVec,
    waiting_for_transaction: IntGaugeVec,
    is_connected: IntGauge,
    is_joined: IntGauge,
    is_refused: IntGauge,
    assigned_partitions: IntGauge,
    client_replacements: IntCounter,
    handlers_in_flight: IntGauge,
    longest_handler: Gauge,
    longest_transient: Gauge,
    skipped: IntCounterVec,
    buffered_records: IntGauge,
    buffered_bytes: IntGauge,
}

/// The series of the acked records of a topic.
#[derive(Debug)]
struct Acked {
    topic: Arc<str>,
    series: Histogram,
}

impl Prometheus {
    /// Registers the series of a consumer group. A registry takes each group once.
    pub fn register(registry: &Registry, group: &str) -> Result<Self, prometheus::Error> {
        let register = Register { registry, group };
        let is_connected =
            register.gauge("kafka_connected", "1 while at least one broker is up, 0 while all are down")?;
        is_connected.set(1);
        Ok(Self {
            handler_duration: register.handler_duration()?,
            acked: Arc::default(),
            dead_letters: register.add(IntCounterVec::new(
                register.opts("dead_letters_total", "Records written to the dead-letter topic"),
                &["topic"],
            ))?,
            dead_letter_errors: register.counter(
                "dead_letter_errors_total",
                "Failed writes to the dead-letter topic; each is retried, and no later offset is committed meanwhile",
            )?,
            revoked_in_flight: register.counter(
                "revoked_in_flight_total",
                "Records that were in handlers when their partition was revoked or lost",
            )?,
            lag: register.add(IntGaugeVec::new(
                register.opts("lag_records", "Records between the last acked one and the end of the partition"),
                &["topic", "partition"],
            ))?,
            waiting_for_transaction: register.add(IntGaugeVec::new(
                register.opts("waiting_for_transaction", "1 while the lag is behind an open transaction of a producer"),
                &["topic", "partition"],
            ))?,
            is_connected,
            is_joined: register.gauge("joined", "1 while the member has its partitions, 0 while it joins its group")?,
            is_refused: register.gauge("join_refused", "1 while the group refuses the member")?,
            assigned_partitions: register.gauge("assigned_partitions", "Partitions that this member consumes")?,
            client_replacements: register
                .counter("client_replacements_total", "Kafka clients that had lost every broker and were replaced")?,
            handlers_in_flight: register.gauge("handlers_in_flight", "Records in handlers")?,
            longest_handler: register.add(Gauge::with_opts(
                register.opts("longest_handler_seconds", "How long the oldest running handler has been running"),
            ))?,
            longest_transient: register.add(Gauge::with_opts(register.opts(
                "longest_transient_seconds",
                "How long the record with the oldest transient failure has had nothing but transient failures",
            )))?,
            skipped: register.add(IntCounterVec::new(
                register.opts("skipped_total", "Records that were skipped, for example because their type is unknown"),
                &["topic"],
            ))?,
            buffered_records: register.gauge("buffered_records", "Buffered records of all partitions")?,
            buffered_bytes: register.gauge("buffered_bytes", "Buffered bytes of all partitions")?,
        })
    }
}

impl Prometheus {
    /// Counts a record that was acked after this time in its handler.
    fn acked(&self, topic: &str, seconds: f64) {
        {
            let known = self.acked.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.iter().find(|known| *known.topic == *topic) {
                return known.series.observe(seconds);
            }
        }
        let series = self.handler_duration.with_label_values(&[topic, Verdict::Ack.name()]);
        series.observe(seconds);
        let added = Acked { topic: topic.into(), series };
        self.acked.write().unwrap_or_else(PoisonError::into_inner).push(added);
    }
}

struct Register<'r> {
    registry: &'r Registry,
    group: &'r str,
}

impl Register<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("walrelay_consumer_{name}"), help).const_label("group", self.group)
    }

    fn handler_duration(&self) -> Result<HistogramVec, prometheus::Error> {
        let opts = self.opts("handler_duration_seconds", "How long handlers took, by what the consumer did afterwards");
        let buckets = vec![0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
        self.add(HistogramVec::new(HistogramOpts::from(opts).buckets(buckets), &["topic", "outcome"]))
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(self.opts(name, help)))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(self.opts(name, help)))
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        created: Result<C, prometheus::Error>,
    ) -> Result<C, prometheus::Error> {
        let collector = created?;
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

impl Observer for Prometheus {
    fn observe(&self, observed: &Observed<'_>) {
        match observed {
            Observed::Handled { record, verdict: Verdict::Ack, took } => {
                self.acked(record.topic(), took.as_secs_f64());
            }
            Observed::Handled { record, verdict, took } => {
                let labels = [record.topic(), verdict.name()];
                self.handler_duration.with_label_values(&labels).observe(took.as_secs_f64());
                if matches!(verdict, Verdict::Skip { .. }) {
                    self.skipped.with_label_values(&[record.topic()]).inc();
                }
            }
            Observed::DeadLettered { record, .. } => self.dead_letters.with_label_values(&[record.topic()]).inc(),
            Observed::DeadLetterFailed { .. } => self.dead_letter_errors.inc(),
            Observed::RevokedInFlight { records } => self.revoked_in_flight.inc_by(*records as u64),
            Observed::Lag { partition, records } => {
                let number = partition.partition.to_string();
                self.lag.with_label_values(&[&*partition.topic, &number]).set(gauge(*records));
            }
            Observed::PartitionAssigned { .. } => self.assigned_partitions.inc(),
            Observed::Joined => {
                self.is_joined.set(1);
                self.is_refused.set(0);
            }
            Observed::JoinRefused { .. } => {
                self.is_joined.set(0);
                self.is_refused.set(1);
            }
            Observed::AssignmentLost => self.is_joined.set(0),
            Observed::WaitingForTransaction { partition, .. } => {
                let number = partition.partition.to_string();
                self.waiting_for_transaction.with_label_values(&[&*partition.topic, &number]).set(1);
            }
            Observed::TransactionEnded { partition } => {
                let number = partition.partition.to_string();
                self.waiting_for_transaction.with_label_values(&[&*partition.topic, &number]).set(0);
            }
            Observed::PartitionRevoked { partition } => {
                self.assigned_partitions.dec();
                let labels = [&*partition.topic, &partition.partition.to_string()];
                // They fail if nothing was reported yet.
                let _ = self.lag.remove_label_values(&labels);
                let _ = self.waiting_for_transaction.remove_label_values(&labels);
            }
            Observed::AllBrokersDown => self.is_connected.set(0),
            Observed::BrokersUp { .. } => self.is_connected.set(1),
            Observed::ClientReplaced => {
                self.is_joined.set(0);
                self.client_replacements.inc();
            }
            Observed::Load {
                handlers_in_flight,
                longest_handler,
                longest_transient,
                buffered_records,
                buffered_bytes,
            } => {
                self.handlers_in_flight.set(gauge(*handlers_in_flight as u64));
                self.longest_handler.set(longest_handler.as_secs_f64());
                self.longest_transient.set(longest_transient.as_secs_f64());
                self.buffered_records.set(gauge(*buffered_records as u64));
                self.buffered_bytes.set(gauge(*buffered_bytes));
            }
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::topic_partition::TopicPartition;

    #[test]
    fn the_lag_of_a_revoked_partition_is_no_longer_exported() {
        let registry = Registry::new();
        let series = Prometheus::register(&registry, "g").unwrap();
        let partition = TopicPartition::new("t", 3);
        let lags = || registry.gather().iter().filter(|it| it.name() == "walrelay_consumer_lag_records").count();
        series.observe(&Observed::Lag { partition: &partition, records: 7 });
        assert_eq!(lags(), 1);
        series.observe(&Observed::PartitionRevoked { partition: &partition });
        assert_eq!(lags(), 0);
    }

    #[test]
    fn a_member_that_its_group_refuses_is_a_series() {
        let registry = Registry::new();
        let series = Prometheus::register(&registry, "g").unwrap();
        let value = |name: &str| {
            let name = format!("walrelay_consumer_{name}");
            registry.gather().iter().find(|it| it.name() == name).unwrap().get_metric()[0].get_gauge().get_value()
        };
        let partition = TopicPartition::new("t", 3);
        series.observe(&Observed::PartitionAssigned { partition: &partition });
        series.observe(&Observed::Joined);
        assert_eq!(["joined", "join_refused", "assigned_partitions"].map(value), [1.0, 0.0, 1.0]);
        series.observe(&Observed::PartitionRevoked { partition: &partition });
        series.observe(&Observed::JoinRefused { error: "no", next: "yes" });
        assert_eq!(["joined", "join_refused", "assigned_partitions"].map(value), [0.0, 1.0, 0.0]);
        series.observe(&Observed::Joined);
        assert_eq!(["joined", "join_refused", "assigned_partitions"].map(value), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_registry_takes_two_groups_and_tells_them_apart_by_a_label() {
        let registry = Registry::new();
        let first = Prometheus::register(&registry, "first").unwrap();
        let second = Prometheus::register(&registry, "second").unwrap();
        first.observe(&Observed::AllBrokersDown);
        let families = registry.gather();
        let connected = families.iter().find(|it| it.name() == "walrelay_consumer_kafka_connected").unwrap();
        let values: Vec<(&str, f64)> =
            connected.get_metric().iter().map(|it| (it.get_label()[0].value(), it.get_gauge().get_value())).collect();
        assert_eq!(values, [("first", 0.0), ("second", 1.0)]);
        assert!(Prometheus::register(&registry, "first").is_err());
        drop(second);
    }
}
