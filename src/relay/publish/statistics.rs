//! Reads librdkafka's statistics.

use rdkafka::statistics::Broker;
use rdkafka::statistics::Statistics;
use rdkafka::statistics::Window;

use crate::relay::metrics::BrokerView;
use crate::relay::metrics::ProducerView;
use crate::relay::metrics::Quantiles;

/// Reads what is exposed, with brokers ordered by number.
pub(super) fn view(statistics: &Statistics) -> ProducerView {
    let mut brokers: Vec<_> = statistics.brokers.values().filter(|it| it.nodeid >= 0).map(broker).collect();
    brokers.sort_by_key(|broker| broker.number);
    ProducerView { queued_records: statistics.msg_cnt, queued_bytes: statistics.msg_size, brokers }
}

fn broker(broker: &Broker) -> BrokerView {
    BrokerView {
        number: broker.nodeid,
        is_up: broker.state == "UP",
        requests: broker.tx,
        bytes: broker.txbytes,
        errors: broker.txerrs,
        timeouts: broker.req_timeouts,
        round_trip: quantiles(broker.rtt.as_ref(), 1),
        queue_wait: quantiles(broker.int_latency.as_ref(), 1),
        throttle: quantiles(broker.throttle.as_ref(), 1_000),
    }
}

/// An empty window has no value; it is not 0.
fn quantiles(window: Option<&Window>, unit_micros: u64) -> Option<Quantiles> {
    let window = window.filter(|window| window.cnt > 0)?;
    let micros = |value: i64| u64::try_from(value).unwrap_or_default() * unit_micros;
    Some(Quantiles { p50_micros: micros(window.p50), p99_micros: micros(window.p99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_ordered_and_an_empty_window_has_no_value() {
        let window = |cnt| Some(Window { cnt, p50: 2, p99: 9, ..Window::default() });
        let learned =
            |nodeid| Broker { nodeid, state: "UP".into(), rtt: window(3), throttle: window(1), ..Broker::default() };
        let brokers = [("b", learned(2)), ("a", learned(1)), ("bootstrap", learned(-1))];
        let brokers = brokers.map(|(name, broker)| (name.to_owned(), broker)).into();
        let view = view(&Statistics { msg_cnt: 7, brokers, ..Statistics::default() });
        assert_eq!((view.queued_records, view.brokers.len()), (7, 2));
        let first = view.brokers.first().unwrap();
        assert_eq!((first.number, first.is_up, first.queue_wait), (1, true, None));
        assert_eq!(first.round_trip, Some(Quantiles { p50_micros: 2, p99_micros: 9 }));
        assert_eq!(first.throttle, Some(Quantiles { p50_micros: 2_000, p99_micros: 9_000 }));
    }
}
