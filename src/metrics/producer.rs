//! `walrelay_kafka_*`: librdkafka's statistics of its queue and of each broker, with `kafka.metrics = true`.

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

/// A series per broker: kind, name, help and value.
type OfBroker = (Kind, &'static str, &'static str, fn(&BrokerView) -> f64);
/// Two quantiles per broker: name, help and values.
type TimesOfBroker = (&'static str, &'static str, fn(&BrokerView) -> Option<Quantiles>);

const OF_BROKER: [OfBroker; 5] = [
    (
        Level,
        "walrelay_kafka_broker_connected",
        "1 while a connection to the broker is up, 0 while it is not.",
        |broker| flag(broker.is_up),
    ),
    (Count, "walrelay_kafka_broker_requests_total", "Requests sent to the broker.", |broker| float(broker.requests)),
    (Count, "walrelay_kafka_broker_sent_bytes_total", "Bytes sent to the broker.", |broker| float(broker.bytes)),
    (Count, "walrelay_kafka_broker_errors_total", "Requests that could not be sent.", |broker| float(broker.errors)),
    (Count, "walrelay_kafka_broker_timeouts_total", "Requests that timed out.", |broker| float(broker.timeouts)),
];

const TIMES_OF_BROKER: [TimesOfBroker; 3] = [
    (
        "walrelay_kafka_broker_round_trip_seconds",
        "From a request to its response, over the last 5 s; absent without one.",
        |broker| broker.round_trip,
    ),
    (
        "walrelay_kafka_broker_queue_seconds",
        "Time of a record in librdkafka's queue, over the last 5 s; absent without one.",
        |broker| broker.queue_wait,
    ),
    (
        "walrelay_kafka_broker_throttle_seconds",
        "Throttling by the broker's quota, over the last 5 s; absent without one.",
        |broker| broker.throttle,
    ),
];

pub(super) fn write(page: &mut Page, producer: &ProducerView) {
    let records = "Records in librdkafka's queue and in flight.";
    page.level("walrelay_kafka_queue_records", records, float(producer.queued_records));
    page.level(
        "walrelay_kafka_queue_bytes",
        "Bytes of the records in librdkafka's queue.",
        float(producer.queued_bytes),
    );
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
