//! `walrelay_kafka_*`: librdkafka's own view of its queue and of each broker. Only where `kafka.metrics` asks for it.

use crate::relay::metrics::BrokerView;
use crate::relay::metrics::ProducerView;
use crate::relay::metrics::Quantiles;

use super::number::flag;
use super::number::float;
use super::number::seconds;
use super::page::Kind;
use super::page::Kind::Count;
use super::page::Kind::Level;
use super::page::Page;

/// A series for each broker: its kind, name, help and number.
type OfBroker = (Kind, &'static str, &'static str, fn(&BrokerView) -> f64);
/// Two quantiles for each broker: name, help and numbers.
type TimesOfBroker = (&'static str, &'static str, fn(&BrokerView) -> Option<Quantiles>);

const OF_BROKER: [OfBroker; 5] = [
    (Level, "walrelay_kafka_broker_up", "Whether a connection to the broker stands.", |broker| flag(broker.is_up)),
    (Count, "walrelay_kafka_broker_requests_total", "Requests sent to the broker.", |broker| float(broker.requests)),
    (Count, "walrelay_kafka_broker_sent_bytes_total", "Bytes sent to the broker.", |broker| float(broker.bytes)),
    (Count, "walrelay_kafka_broker_errors_total", "Requests that failed to be sent.", |broker| float(broker.errors)),
    (Count, "walrelay_kafka_broker_timeouts_total", "Requests without an answer in time.", |broker| {
        float(broker.timeouts)
    }),
];

const TIMES_OF_BROKER: [TimesOfBroker; 3] = [
    (
        "walrelay_kafka_broker_round_trip_seconds",
        "From a request to its answer, over the last 5 s; absent without one.",
        |broker| broker.round_trip,
    ),
    (
        "walrelay_kafka_broker_queue_seconds",
        "What a record waits in librdkafka's queue, over the last 5 s; absent without one.",
        |broker| broker.queue_wait,
    ),
    (
        "walrelay_kafka_broker_throttle_seconds",
        "For how long the broker's quota holds requests back, over the last 5 s; absent without one.",
        |broker| broker.throttle,
    ),
];

pub(super) fn write(page: &mut Page, producer: &ProducerView) {
    let messages = "Records in librdkafka's queue and on their way.";
    page.level("walrelay_kafka_queue_messages", messages, float(producer.queued_messages));
    page.level("walrelay_kafka_queue_bytes", "Bytes of those records.", float(producer.queued_bytes));
    let brokers: Vec<_> = producer.brokers.iter().map(|broker| (broker.number.to_string(), broker)).collect();
    for (kind, name, help, number) in OF_BROKER {
        let rows = brokers.iter().map(|(label, broker)| (vec![("broker", label.as_str())], number(broker)));
        page.rows(kind, name, help, rows);
    }
    for (name, help, quantiles) in TIMES_OF_BROKER {
        let rows = brokers.iter().filter_map(|(label, broker)| Some((label, quantiles(broker)?)));
        let rows = rows.flat_map(|(label, Quantiles { p50_micros, p99_micros })| {
            let row = |quantile, micros| (vec![("broker", label.as_str()), ("quantile", quantile)], seconds(micros));
            [row("0.5", p50_micros), row("0.99", p99_micros)]
        });
        page.rows(Level, name, help, rows);
    }
}
