//! The names under which the rooms' numbers are exposed to Prometheus.
//!
//! The rooms know no names, units or labels: this module reads their numbers at each scrape. Every `walrelay_` series
//! has the relay's name as the label `relay`. Label values come from enums, with two exceptions whose number the room
//! bounds: topic and error code. A series without a value is absent; it is not 0.

#[cfg(test)]
mod documented;
mod number;
mod page;
mod process;
mod producer;

use serde::Serialize;

use crate::measure::Counter;
use crate::relay;
use crate::relay::State;
use crate::relay::metrics::Loss;
use crate::relay::metrics::Role;
use crate::relay::metrics::WalStatus;
use crate::relay::metrics::lsn;
use crate::relay::metrics::now_micros;
use crate::relay::metrics::unsigned;

use number::flag;
use number::float;
use number::seconds;
use number::signed_float;
use page::Kind::Count;
use page::Kind::Level;
use page::Page;

/// The content type of [`exposition`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is read at a scrape.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The name of the relay.
    pub name: String,
    /// The replication slot; none in mode `poll`.
    pub slot: Option<String>,
    /// The publication; none in mode `poll`.
    pub publication: Option<String>,
    /// The database with its servers, as the configuration names them.
    pub database: Option<String>,
    /// The bootstrap servers of Kafka.
    pub brokers: Vec<String>,
    /// The version of the program and of the libraries in it.
    pub build: Build,
    /// The relay's counters and gauges.
    pub relay: relay::Metrics,
    /// Whether librdkafka's own statistics are exposed.
    pub with_producer: bool,
    /// Log lines dropped because standard error was too slow.
    pub log_dropped: Counter,
    /// Log lines suppressed as repetitions.
    pub log_suppressed: Counter,
    /// Completes the commands in a next step, so that they can be run as they stand.
    pub complete_help: fn(&str) -> String,
}

/// The version of the program and of the libraries in it.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// The version of walrelay.
    pub version: &'static str,
    /// The source revision; empty if the build was not given one.
    pub revision: &'static str,
    /// The version of librdkafka.
    pub librdkafka: String,
    /// The version of OpenSSL.
    pub openssl: &'static str,
}

impl Sources {
    /// Collects the metrics of a relay that reads the WAL. The counters of log lines start at 0.
    #[must_use]
    pub fn new(name: &str, slot: &str, publication: &str, relay: relay::Metrics) -> Self {
        Self {
            name: name.to_owned(),
            slot: Some(slot.to_owned()),
            publication: Some(publication.to_owned()),
            database: None,
            brokers: Vec::new(),
            build: Build::of_this_program(),
            relay,
            with_producer: false,
            log_dropped: Counter::default(),
            log_suppressed: Counter::default(),
            complete_help: str::to_owned,
        }
    }

    /// Collects the metrics of a relay that polls its outbox and has no slot and no publication.
    #[must_use]
    pub fn of_polling(name: &str, relay: relay::Metrics) -> Self {
        Self { slot: None, publication: None, ..Self::new(name, "", "", relay) }
    }
}

impl Build {
    /// Describes the running program.
    #[must_use]
    pub fn of_this_program() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: option_env!("WALRELAY_REVISION").unwrap_or_default(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            openssl: openssl::version::version(),
        }
    }
}

/// Writes all series in Prometheus' text format.
#[must_use]
pub fn exposition(sources: &Sources) -> String {
    let mut page = Page::new(&sources.name);
    about(&mut page, sources);
    position(&mut page, &sources.relay);
    times(&mut page, &sources.relay);
    if sources.slot.is_some() {
        slot(&mut page, &sources.relay);
        replayed(&mut page, &sources.relay);
    }
    backlog(&mut page, &sources.relay);
    flow(&mut page, &sources.relay);
    throttle(&mut page, &sources.relay);
    if sources.with_producer
        && let Some(view) = sources.relay.producer.load()
    {
        producer::write(&mut page, &view);
    }
    process::write(&mut page);
    page.into_text()
}

fn about(page: &mut Page, sources: &Sources) {
    let Build { version, revision, librdkafka, openssl } = &sources.build;
    let build = [("version", *version), ("revision", *revision), ("librdkafka", librdkafka), ("openssl", *openssl)];
    page.rows(
        Level,
        "walrelay_build_info",
        "Versions of this program and of the libraries in it; always 1.",
        [(build.to_vec(), 1.0)],
    );

    let state = sources.relay.state.load();
    let states = State::ALL.map(|each| (vec![("state", each.word())], flag(each == state)));
    page.rows(Level, "walrelay_state", "1 for the current state of the relay, 0 for the others.", states);
    let roles = Role::ALL.map(|each| (vec![("role", each.word())], flag(Some(each) == state.role())));
    page.rows(
        Level,
        "walrelay_role",
        "1 for the role of this relay among the relays of its slot; all 0 while it is unknown.",
        roles,
    );

    let peers = [("postgres", &sources.relay.postgres), ("kafka", &sources.relay.kafka)];
    let up = peers.map(|(peer, link)| (vec![("peer", peer)], flag(link.is_up())));
    page.rows(Level, "walrelay_connected", "1 while the peer is connected, 0 while it is not.", up);
    let reconnects = peers.iter().flat_map(|(peer, link)| {
        Loss::ALL.map(|loss| (vec![("peer", *peer), ("reason", loss.word())], float(link.reconnects(loss))))
    });
    page.rows(
        Count,
        "walrelay_reconnects_total",
        "Connections that were established again, by the reason of the loss.",
        reconnects,
    );

    let counts = sources.relay.failures.counts();
    let counts: Vec<_> = counts.iter().map(|each| (each, each.code.to_string(), each.retryable.to_string())).collect();
    let rows = counts.iter().map(|(each, code, retryable)| {
        let labels = vec![("component", each.component.word()), ("code", code), ("retryable", retryable)];
        (labels, float(each.count))
    });
    page.rows(Count, "walrelay_errors_total", "Errors by component and code, and whether a retry may help.", rows);

    let dropped = float(sources.log_dropped.value());
    page.count("walrelay_log_lines_dropped_total", "Log lines dropped because standard error was too slow.", dropped);
    let suppressed = float(sources.log_suppressed.value());
    page.count("walrelay_log_lines_suppressed_total", "Log lines suppressed as repetitions.", suppressed);
}

fn position(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        ("walrelay_received_lsn_bytes", "The WAL position received so far.", &relay.received_lsn),
        ("walrelay_flushed_lsn_bytes", "The WAL position confirmed to the server (flush).", &relay.flushed_lsn),
        (
            "walrelay_server_wal_end_lsn_bytes",
            "The end of the server's WAL, as last reported.",
            &relay.server_wal_end_lsn,
        ),
    ] {
        let position = lsn(gauge);
        page.level_if(name, help, (!position.is_zero()).then(|| float(position.to_wire())));
    }
    let lag = relay.lag(now_micros());
    let stages = [("receive", lag.receive_bytes), ("deliver", lag.deliver_bytes)];
    page.rows(
        Level,
        "walrelay_lag_bytes",
        "WAL that the server has written and the relay has not received (receive) or not confirmed (deliver).",
        stages.iter().filter_map(|(stage, bytes)| Some((vec![("stage", *stage)], float((*bytes)?)))),
    );
    let stages = [("receive", lag.receive_seconds), ("deliver", lag.deliver_seconds)];
    page.rows(
        Level,
        "walrelay_lag_seconds",
        "Age of the last transaction when it was received (receive), or of the oldest unacknowledged event (deliver), \
         by the server's clock.",
        stages.iter().filter_map(|(stage, seconds)| Some((vec![("stage", *stage)], (*seconds)?))),
    );
}

fn times(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        (
            "walrelay_oldest_in_flight_timestamp_seconds",
            "Commit time of the oldest event in flight; absent if none is.",
            &relay.oldest_in_flight_micros,
        ),
        (
            "walrelay_last_event_commit_timestamp_seconds",
            "Commit time of the last event received.",
            &relay.last_event_commit_micros,
        ),
        (
            "walrelay_last_delivery_timestamp_seconds",
            "Time of the last acknowledgement by a broker.",
            &relay.last_delivery_micros,
        ),
        (
            "walrelay_last_server_message_timestamp_seconds",
            "Time of the last message from PostgreSQL.",
            &relay.last_server_message_micros,
        ),
        (
            "walrelay_state_since_timestamp_seconds",
            "Time at which the relay entered its current state.",
            &relay.state_since_micros,
        ),
    ] {
        let micros = unsigned(gauge);
        page.level_if(name, help, (micros != 0).then(|| seconds(micros)));
    }
}

fn slot(page: &mut Page, relay: &relay::Metrics) {
    let errors = float(relay.slot_poll_errors.value());
    page.count("walrelay_slot_poll_errors_total", "Queries of the slot's state that failed.", errors);
    let Some(slot) = relay.slot.load() else { return };
    page.level("walrelay_slot_active", "1 while a walsender uses the slot.", flag(slot.active));
    page.level(
        "walrelay_slot_polled_timestamp_seconds",
        "Time of the last query of the slot's state.",
        seconds(slot.polled_micros),
    );
    let retained = float(slot.retained_wal_bytes);
    page.level("walrelay_slot_retained_wal_bytes", "WAL that the server retains because of the slot.", retained);
    page.level_if(
        "walrelay_slot_safe_wal_bytes",
        "WAL that can be written before the slot may be lost (safe_wal_size); absent without max_slot_wal_keep_size.",
        slot.safe_wal_bytes.map(signed_float),
    );
    page.level_if(
        "walrelay_slot_wal_limit_used_ratio",
        "Used share of max_slot_wal_keep_size; absent without that setting.",
        slot.limit_used_ratio(),
    );
    page.level_if(
        "walrelay_slot_retained_wal_growth_bytes_per_second",
        "Growth of the retained WAL in bytes, over three minutes, between low points; 0 while it shrinks.",
        slot.growth_bytes_per_second,
    );
    page.level_if(
        "walrelay_slot_time_to_invalidation_seconds",
        "Estimated time until the slot may be invalidated; absent without max_slot_wal_keep_size and without growth.",
        slot.seconds_to_invalidation,
    );
    page.level_if(
        "walrelay_slot_catalog_xmin_age_transactions",
        "Age of the slot's catalog_xmin: VACUUM cannot remove catalog rows deleted later.",
        slot.catalog_xmin_age.map(float),
    );
    page.rows(
        Count,
        "walrelay_slot_spilled_bytes_total",
        "Bytes that decoding has spilled to the server's disk beyond logical_decoding_work_mem.",
        slot.spilled_bytes.map(|bytes| (Vec::new(), float(bytes))),
    );
    let status = WalStatus::ALL.map(|each| (vec![("status", each.word())], flag(Some(each) == slot.wal_status)));
    page.rows(Level, "walrelay_slot_wal_status", "1 for the slot's wal_status, 0 for the others.", status);
}

fn backlog(page: &mut Page, relay: &relay::Metrics) {
    let is_known = unsigned(&relay.unpublished_counted_micros) != 0;
    page.level_if(
        "walrelay_unpublished_events",
        "Unpublished rows of the outbox, counted up to 10000 per table; only in mode poll.",
        is_known.then(|| float(unsigned(&relay.unpublished))),
    );
}

fn flow(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, counter) in [
        ("walrelay_events_received_total", "Events read from the source.", &relay.events_received),
        ("walrelay_transactions_total", "Transactions with events that were read completely.", &relay.transactions),
        ("walrelay_keepalives_total", "Keepalives received from PostgreSQL.", &relay.keepalives),
        ("walrelay_messages_skipped_total", "Messages from PostgreSQL without an event.", &relay.messages_skipped),
        ("walrelay_produce_retries_total", "Requests to brokers that librdkafka has retried.", &relay.produce_retries),
        (
            "walrelay_timestamps_replaced_total",
            "Records sent with the current time because their topic rejects the commit time.",
            &relay.timestamps_replaced,
        ),
        (
            "walrelay_position_store_errors_total",
            "Reads and writes of the stored position that failed.",
            &relay.position_store_errors,
        ),
    ] {
        page.count(name, help, float(counter.value()));
    }
    let topics = relay.topics.published_by_topic();
    let events = topics.iter().map(|each| (vec![("topic", each.topic.as_str())], float(each.events)));
    page.rows(Count, "walrelay_events_published_total", "Events acknowledged by a broker.", events);
    let bytes = topics.iter().map(|each| (vec![("topic", each.topic.as_str())], float(each.bytes)));
    page.rows(Count, "walrelay_published_bytes_total", "Bytes of events acknowledged by a broker.", bytes);
    page.histogram(
        "walrelay_commit_to_ack_seconds",
        "From the commit of a transaction in PostgreSQL to the acknowledgement that completes it.",
        &relay.commit_to_ack.distribution(),
    );
    page.histogram(
        "walrelay_publish_duration_seconds",
        "From the enqueueing of a transaction's last event in librdkafka to the acknowledgement that completes it.",
        &relay.publish_duration.distribution(),
    );
}

fn replayed(page: &mut Page, relay: &relay::Metrics) {
    page.count(
        "walrelay_events_replayed_total",
        "Events read again of transactions that an earlier producer of this process had enqueued completely.",
        float(relay.events_replayed.value()),
    );
    let ages = relay.outbox_age.distribution();
    if ages.counts.iter().any(|count| *count > 0) {
        page.histogram(
            "walrelay_outbox_age_seconds",
            "From a row's created_at to its reception, by the server's clock; only with timestamp = \"created_at\".",
            &ages,
        );
    }
}

fn throttle(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        (
            "walrelay_in_flight_records",
            "Records in flight: enqueued in librdkafka and not acknowledged.",
            &relay.in_flight_records,
        ),
        ("walrelay_in_flight_bytes", "Bytes of the records in flight.", &relay.in_flight_bytes),
        ("walrelay_max_in_flight_bytes", "The limit delivery.max_in_flight_bytes.", &relay.max_in_flight_bytes),
    ] {
        page.level(name, help, float(unsigned(gauge)));
    }

    let causes = [("kafka", &relay.backpressure_kafka_micros), ("in_flight", &relay.backpressure_in_flight_micros)];
    page.rows(
        Count,
        "walrelay_backpressure_seconds_total",
        "Time in which the WAL was not read, by cause.",
        causes.map(|(cause, micros)| (vec![("cause", cause)], seconds(micros.value()))),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::relay::metrics::Component;
    use crate::relay::metrics::SlotView;
    use std::time::Duration;
    use walrelay_events::fault::Code;
    use walrelay_events::fault::Diagnose;
    use walrelay_events::fault::Exit;
    use walrelay_events::fault::Fate;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct Refused;

    impl Diagnose for Refused {
        fn code(&self) -> Code {
            Code::new(Exit::Unavailable, 1)
        }

        fn fate(&self) -> Fate {
            Fate::Transient
        }
    }

    fn sources() -> Sources {
        Sources::new("or\"de\nrs\\", "s", "p", relay::Metrics::default())
    }

    pub(super) fn busy() -> Sources {
        let sources = sources();
        let relay = &sources.relay;
        relay.postgres.connected();
        relay.postgres.lost(Loss::ServerShutdown);
        relay.postgres.connected();
        relay.enter(State::Streaming);
        relay.heard(Lsn::from_wire(100), Lsn::from_wire(150), 3, 4);
        relay.begun(1, 3);
        relay.in_flight(2, 64, Some(1));
        relay.delivered(relay.topics.index("orders-events").index, 10, 1, 2_000_001);
        relay.held_back(relay::metrics::Backpressure::Kafka, Duration::from_millis(1_500));
        relay.failed(Component::Postgres, &Refused);
        relay.produce_retries.add(3);
        relay.outbox_age.observe(Duration::from_millis(7));
        relay.slot.set(Some(SlotView {
            polled_micros: 1_700_000_000_000_000,
            active: true,
            active_pid: Some(7),
            restart: Some(Lsn::from_wire(10)),
            confirmed: Some(Lsn::from_wire(20)),
            retained_wal_bytes: 25,
            safe_wal_bytes: Some(75),
            wal_status: Some(WalStatus::Reserved),
            invalidation: None,
            growth_bytes_per_second: Some(2.5),
            seconds_to_invalidation: Some(30.0),
            catalog_xmin_age: Some(12),
            spilled_bytes: Some(4_096),
        }));
        sources
    }

    #[test]
    fn each_value_has_its_name_and_labels() {
        let text = exposition(&busy());
        let relay = "relay=\"or\\\"de\\nrs\\\\\"";
        for line in [
            format!("walrelay_state{{{relay},state=\"streaming\"}} 1"),
            format!("walrelay_state{{{relay},state=\"draining\"}} 0"),
            format!("walrelay_role{{{relay},role=\"active\"}} 1"),
            format!("walrelay_lag_bytes{{{relay},stage=\"receive\"}} 50"),
            format!("walrelay_connected{{{relay},peer=\"postgres\"}} 1"),
            format!("walrelay_reconnects_total{{{relay},peer=\"postgres\",reason=\"server_shutdown\"}} 1"),
            format!("walrelay_reconnects_total{{{relay},peer=\"kafka\",reason=\"failed\"}} 0"),
            format!("walrelay_errors_total{{{relay},component=\"postgres\",code=\"WR-6901\",retryable=\"true\"}} 1"),
            format!("walrelay_events_published_total{{{relay},topic=\"orders-events\"}} 1"),
            format!("walrelay_backpressure_seconds_total{{{relay},cause=\"kafka\"}} 1.5"),
            format!("walrelay_slot_wal_limit_used_ratio{{{relay}}} 0.25"),
            format!("walrelay_slot_retained_wal_growth_bytes_per_second{{{relay}}} 2.5"),
            format!("walrelay_slot_time_to_invalidation_seconds{{{relay}}} 30"),
            format!("walrelay_slot_wal_status{{{relay},status=\"reserved\"}} 1"),
            format!("walrelay_slot_catalog_xmin_age_transactions{{{relay}}} 12"),
            format!("walrelay_slot_spilled_bytes_total{{{relay}}} 4096"),
            format!("walrelay_produce_retries_total{{{relay}}} 3"),
            format!("walrelay_events_replayed_total{{{relay}}} 0"),
            format!("walrelay_outbox_age_seconds_count{{{relay}}} 1"),
            format!("walrelay_commit_to_ack_seconds_bucket{{{relay},le=\"2.5\"}} 1"),
            format!("walrelay_commit_to_ack_seconds_bucket{{{relay},le=\"1\"}} 0"),
            format!("walrelay_commit_to_ack_seconds_bucket{{{relay},le=\"+Inf\"}} 1"),
            format!("walrelay_commit_to_ack_seconds_sum{{{relay}}} 2"),
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("\nprocess_open_fds "), "{text}");
    }

    #[test]
    fn librdkafka_statistics_are_exposed_by_option() {
        let mut sources = sources();
        let quantiles = relay::metrics::Quantiles { p50_micros: 1_500, p99_micros: 2_000_000 };
        let broker =
            relay::metrics::BrokerView { number: 3, is_up: true, round_trip: Some(quantiles), ..Default::default() };
        let view = relay::metrics::ProducerView { queued_records: 9, queued_bytes: 900, brokers: vec![broker] };
        sources.relay.producer.set(Some(view));
        assert!(!exposition(&sources).contains("walrelay_kafka_"), "off by default");
        sources.with_producer = true;
        let text = exposition(&sources);
        let relay = "relay=\"or\\\"de\\nrs\\\\\"";
        for line in [
            format!("walrelay_kafka_queue_records{{{relay}}} 9"),
            format!("walrelay_kafka_broker_connected{{{relay},broker=\"3\"}} 1"),
            format!("walrelay_kafka_broker_requests_total{{{relay},broker=\"3\"}} 0"),
            format!("walrelay_kafka_broker_round_trip_seconds{{{relay},broker=\"3\",quantile=\"0.99\"}} 2"),
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("walrelay_kafka_broker_throttle"), "{text}");
    }

    #[test]
    fn polling_exposes_unpublished_rows_and_no_slot() {
        let relay = relay::Metrics::default();
        relay.unpublished.set(7);
        relay.unpublished_counted_micros.set(1);
        let text = exposition(&Sources::of_polling("r", relay));
        assert!(text.contains("walrelay_unpublished_events{relay=\"r\"} 7\n"), "{text}");
        assert!(!text.contains("walrelay_slot"), "{text}");
    }

    #[test]
    fn a_series_without_a_value_is_absent() {
        let text = exposition(&sources());
        for name in [
            "walrelay_slot_active",
            "walrelay_unpublished",
            "walrelay_lag_",
            "walrelay_oldest_in_flight",
            "walrelay_errors_total",
            "walrelay_outbox_age",
        ] {
            assert!(!text.contains(name), "{name} is in\n{text}");
        }
    }
}
