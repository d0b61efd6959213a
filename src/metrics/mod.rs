//! The names under which the rooms' numbers are exposed to Prometheus.
//!
//! The rooms know nothing of names, units and labels; this module reads their numbers at each scrape. Every `walrelay_`
//! series carries the relay's name as `relay`. Labels come from enums, with two exceptions that are both bounded by their
//! room: topic and error code. A series whose value is not known is absent rather than 0.

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
    /// The slot it reads; none where it polls.
    pub slot: Option<String>,
    /// The publication it reads; none where it polls.
    pub publication: Option<String>,
    /// What was built into this program.
    pub build: Build,
    /// What the relay measures.
    pub relay: relay::Metrics,
    /// Whether librdkafka's own numbers are exposed.
    pub with_producer: bool,
    /// Log lines that standard error did not take in time.
    pub log_dropped: Counter,
    /// Log lines that were held back as repetitions.
    pub log_suppressed: Counter,
    /// Completes the commands in a next step, so that they can be run as they stand.
    pub complete_help: fn(&str) -> String,
}

/// What was built into this program.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// The version of walrelay.
    pub version: &'static str,
    /// The source revision; empty if the build did not say.
    pub revision: &'static str,
    /// The version of librdkafka.
    pub librdkafka: String,
    /// The version of OpenSSL.
    pub openssl: &'static str,
}

impl Sources {
    /// Gathers what the relay of these names measures; nothing is known of the log yet.
    #[must_use]
    pub fn new(name: &str, slot: &str, publication: &str, relay: relay::Metrics) -> Self {
        Self {
            name: name.to_owned(),
            slot: Some(slot.to_owned()),
            publication: Some(publication.to_owned()),
            build: Build::of_this_program(),
            relay,
            with_producer: false,
            log_dropped: Counter::default(),
            log_suppressed: Counter::default(),
            complete_help: str::to_owned,
        }
    }

    /// Gathers what a relay measures that polls its outbox: it has no slot and no publication.
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
    page.rows(Level, "walrelay_build_info", "What this program was built from.", [(build.to_vec(), 1.0)]);

    let state = sources.relay.state.load();
    let states = State::ALL.map(|each| (vec![("state", each.word())], flag(each == state)));
    page.rows(Level, "walrelay_state", "1 for what the relay is doing now, 0 for all other states.", states);
    let roles = Role::ALL.map(|each| (vec![("role", each.word())], flag(Some(each) == state.role())));
    page.rows(Level, "walrelay_role", "1 for the role of this relay among those of its slot; all 0 if unknown.", roles);

    let peers = [("postgres", &sources.relay.postgres), ("kafka", &sources.relay.kafka)];
    let up = peers.map(|(peer, link)| (vec![("peer", peer)], flag(link.is_up())));
    page.rows(Level, "walrelay_connected", "Whether the peer is connected.", up);
    let again = peers.iter().flat_map(|(peer, link)| {
        Loss::ALL.map(|loss| (vec![("peer", *peer), ("reason", loss.word())], float(link.reconnects(loss))))
    });
    page.rows(Count, "walrelay_reconnects_total", "Times the peer was found again, by what it was lost to.", again);

    let counts = sources.relay.failures.counts();
    let counts: Vec<_> = counts.iter().map(|each| (each, each.code.to_string(), each.retryable.to_string())).collect();
    let rows = counts.iter().map(|(each, code, retryable)| {
        let labels = vec![("component", each.component.word()), ("code", code), ("retryable", retryable)];
        (labels, float(each.count))
    });
    page.rows(Count, "walrelay_errors_total", "Failures by room and code, and whether trying again may help.", rows);

    let dropped = float(sources.log_dropped.value());
    page.count("walrelay_log_lines_dropped_total", "Log lines that standard error did not take in time.", dropped);
    let suppressed = float(sources.log_suppressed.value());
    page.count("walrelay_log_lines_suppressed_total", "Log lines held back as repetitions.", suppressed);
}

fn position(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        ("walrelay_received_lsn_bytes", "Up to where the log has been received.", &relay.received_lsn),
        ("walrelay_flushed_lsn_bytes", "Up to where the log has been confirmed to the server.", &relay.flushed_lsn),
        ("walrelay_server_wal_end_lsn_bytes", "The end of the server's log, as last heard.", &relay.server_wal_end_lsn),
    ] {
        let position = lsn(gauge);
        page.level_if(name, help, (!position.is_zero()).then(|| float(position.to_wire())));
    }
    let lag = relay.lag(now_micros());
    let stages = [("receive", lag.receive_bytes), ("deliver", lag.deliver_bytes)];
    page.rows(
        Level,
        "walrelay_lag_bytes",
        "Log that the server has and the relay has not received, or not confirmed.",
        stages.iter().filter_map(|(stage, bytes)| Some((vec![("stage", *stage)], float((*bytes)?)))),
    );
    let stages = [("receive", lag.receive_seconds), ("deliver", lag.deliver_seconds)];
    page.rows(
        Level,
        "walrelay_lag_seconds",
        "How late the last transaction arrived, or how long the oldest undelivered event has waited, by the server's clock.",
        stages.iter().filter_map(|(stage, seconds)| Some((vec![("stage", *stage)], (*seconds)?))),
    );
}

fn times(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        (
            "walrelay_oldest_inflight_timestamp_seconds",
            "When the oldest event on its way to Kafka was committed; absent if none is.",
            &relay.oldest_inflight_micros,
        ),
        (
            "walrelay_last_event_commit_timestamp_seconds",
            "When the last event received was committed.",
            &relay.last_event_commit_micros,
        ),
        (
            "walrelay_last_delivery_timestamp_seconds",
            "When a broker last acknowledged an event.",
            &relay.last_delivery_micros,
        ),
        (
            "walrelay_last_server_message_timestamp_seconds",
            "When PostgreSQL's last message arrived.",
            &relay.last_server_message_micros,
        ),
        (
            "walrelay_state_since_timestamp_seconds",
            "When the relay began to do what it is doing.",
            &relay.state_since_micros,
        ),
    ] {
        let micros = unsigned(gauge);
        page.level_if(name, help, (micros != 0).then(|| seconds(micros)));
    }
}

fn slot(page: &mut Page, relay: &relay::Metrics) {
    let errors = float(relay.slot_poll_errors.value());
    page.count("walrelay_slot_poll_errors_total", "Polls of the slot that failed.", errors);
    let Some(slot) = relay.slot.load() else { return };
    page.level("walrelay_slot_active", "Whether a walsender uses the slot.", flag(slot.active));
    page.level("walrelay_slot_polled_timestamp_seconds", "When the slot was polled.", seconds(slot.polled_micros));
    let retained = float(slot.retained_wal_bytes);
    page.level("walrelay_slot_retained_wal_bytes", "Log that the server keeps because of the slot.", retained);
    page.level_if(
        "walrelay_slot_safe_wal_bytes",
        "Log that may still be written before the slot is in danger; absent without a limit.",
        slot.safe_wal_bytes.map(signed_float),
    );
    page.level_if(
        "walrelay_slot_wal_limit_used_ratio",
        "How much of max_slot_wal_keep_size is used; absent without a limit.",
        slot.limit_used_ratio(),
    );
    page.level_if(
        "walrelay_slot_catalog_xmin_age_transactions",
        "For how many transactions the slot has kept rows of the catalogue from vacuum.",
        slot.catalog_xmin_age.map(float),
    );
    page.rows(
        Count,
        "walrelay_slot_spilled_bytes_total",
        "Bytes that decoding has written to the server's disk beyond logical_decoding_work_mem.",
        slot.spilled_bytes.map(|bytes| (Vec::new(), float(bytes))),
    );
    let status = WalStatus::ALL.map(|each| (vec![("status", each.word())], flag(Some(each) == slot.wal_status)));
    page.rows(Level, "walrelay_slot_wal_status", "1 for how safe the log is that the slot needs.", status);
}

fn backlog(page: &mut Page, relay: &relay::Metrics) {
    let is_known = unsigned(&relay.unpublished_counted_micros) != 0;
    page.level_if(
        "walrelay_unpublished_events",
        "Rows of the outbox that are not published, counted up to 10000 a table; absent unless it is polled.",
        is_known.then(|| float(unsigned(&relay.unpublished))),
    );
}

fn flow(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, counter) in [
        ("walrelay_events_received_total", "Events read from the source.", &relay.events_received),
        ("walrelay_transactions_total", "Transactions with events, read to their end.", &relay.transactions),
        ("walrelay_keepalives_total", "Keepalives received from PostgreSQL.", &relay.keepalives),
        ("walrelay_messages_skipped_total", "Irrelevant messages of PostgreSQL passed over.", &relay.messages_skipped),
        (
            "walrelay_produce_retries_total",
            "Requests to brokers that librdkafka has sent again.",
            &relay.produce_retries,
        ),
        (
            "walrelay_timestamps_replaced_total",
            "Records sent with the time of sending, because their topic refuses timestamps like theirs.",
            &relay.timestamps_replaced,
        ),
        (
            "walrelay_position_store_errors_total",
            "Failed reads and writes of the stored position.",
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
        "From the hand-over of a transaction's last event to the acknowledgement that completes it.",
        &relay.publish_duration.distribution(),
    );
}

fn replayed(page: &mut Page, relay: &relay::Metrics) {
    page.count(
        "walrelay_events_replayed_total",
        "Events of transactions that had been handed over whole to a producer that was given up.",
        float(relay.events_replayed.value()),
    );
    let ages = relay.outbox_age.distribution();
    if ages.counts.iter().any(|count| *count > 0) {
        page.histogram(
            "walrelay_outbox_age_seconds",
            "From the making of a row to its arrival here, by the server's clock; only with timestamp = \"created_at\".",
            &ages,
        );
    }
}

fn throttle(page: &mut Page, relay: &relay::Metrics) {
    for (name, help, gauge) in [
        ("walrelay_inflight_messages", "Events on their way to Kafka.", &relay.inflight_messages),
        ("walrelay_inflight_bytes", "Bytes on their way to Kafka.", &relay.inflight_bytes),
        ("walrelay_inflight_limit_bytes", "The most bytes that may be on their way.", &relay.inflight_limit_bytes),
    ] {
        page.level(name, help, float(unsigned(gauge)));
    }
    let limit = unsigned(&relay.inflight_limit_messages);
    page.level_if(
        "walrelay_inflight_limit_messages",
        "The most events that may be on their way; absent if only bytes are limited.",
        (limit != 0).then(|| float(limit)),
    );
    let causes = [("kafka", &relay.backpressure_kafka_micros), ("inflight", &relay.backpressure_inflight_micros)];
    page.rows(
        Count,
        "walrelay_backpressure_seconds_total",
        "Time in which the log was not read, by cause.",
        causes.map(|(cause, micros)| (vec![("cause", cause)], seconds(micros.value()))),
    );
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Prometheus knows no other number; above 2^53 the last digits are rounded.
const fn float(value: u64) -> f64 {
    value as f64
}

const fn signed_float(value: i64) -> f64 {
    value as f64
}

/// Parts first, so that the microseconds of a date survive as well as they can.
fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
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

    fn busy() -> Sources {
        let sources = sources();
        let relay = &sources.relay;
        relay.postgres.connected();
        relay.postgres.lost(Loss::ServerLeft);
        relay.postgres.connected();
        relay.enter(State::Streaming);
        relay.heard(Lsn::from_wire(100), Lsn::from_wire(150), 3, 4);
        relay.begun(1, 3);
        relay.in_flight(2, 64, Some(1));
        relay.delivered(relay.topics.index("orders-events").index, 10, 1, 2_000_001);
        relay.held_back(relay::metrics::Cause::Kafka, Duration::from_millis(1_500));
        relay.failed(Component::Wal, &Refused);
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
            catalog_xmin_age: Some(12),
            spilled_bytes: Some(4_096),
        }));
        sources
    }

    #[test]
    fn numbers_stand_under_their_names() {
        let text = exposition(&busy());
        let relay = "relay=\"or\\\"de\\nrs\\\\\"";
        for line in [
            format!("walrelay_state{{{relay},state=\"streaming\"}} 1"),
            format!("walrelay_state{{{relay},state=\"draining\"}} 0"),
            format!("walrelay_role{{{relay},role=\"active\"}} 1"),
            format!("walrelay_lag_bytes{{{relay},stage=\"receive\"}} 50"),
            format!("walrelay_connected{{{relay},peer=\"postgres\"}} 1"),
            format!("walrelay_reconnects_total{{{relay},peer=\"postgres\",reason=\"server_left\"}} 1"),
            format!("walrelay_reconnects_total{{{relay},peer=\"kafka\",reason=\"failed\"}} 0"),
            format!("walrelay_errors_total{{{relay},component=\"wal\",code=\"WR-6901\",retryable=\"true\"}} 1"),
            format!("walrelay_events_published_total{{{relay},topic=\"orders-events\"}} 1"),
            format!("walrelay_backpressure_seconds_total{{{relay},cause=\"kafka\"}} 1.5"),
            format!("walrelay_slot_wal_limit_used_ratio{{{relay}}} 0.25"),
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
    fn the_producers_numbers_are_there_where_they_are_asked_for() {
        let mut sources = sources();
        let quantiles = relay::metrics::Quantiles { p50_micros: 1_500, p99_micros: 2_000_000 };
        let broker =
            relay::metrics::BrokerView { number: 3, is_up: true, round_trip: Some(quantiles), ..Default::default() };
        let view = relay::metrics::ProducerView { queued_messages: 9, queued_bytes: 900, brokers: vec![broker] };
        sources.relay.producer.set(Some(view));
        assert!(!exposition(&sources).contains("walrelay_kafka_"), "nobody asked");
        sources.with_producer = true;
        let text = exposition(&sources);
        let relay = "relay=\"or\\\"de\\nrs\\\\\"";
        for line in [
            format!("walrelay_kafka_queue_messages{{{relay}}} 9"),
            format!("walrelay_kafka_broker_up{{{relay},broker=\"3\"}} 1"),
            format!("walrelay_kafka_broker_requests_total{{{relay},broker=\"3\"}} 0"),
            format!("walrelay_kafka_broker_round_trip_seconds{{{relay},broker=\"3\",quantile=\"0.99\"}} 2"),
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("walrelay_kafka_broker_throttle"), "{text}");
    }

    #[test]
    fn where_it_polls_there_is_a_backlog_and_no_slot() {
        let relay = relay::Metrics::default();
        relay.unpublished.set(7);
        relay.unpublished_counted_micros.set(1);
        let text = exposition(&Sources::of_polling("r", relay));
        assert!(text.contains("walrelay_unpublished_events{relay=\"r\"} 7\n"), "{text}");
        assert!(!text.contains("walrelay_slot"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let text = exposition(&sources());
        for name in [
            "walrelay_slot_active",
            "walrelay_unpublished",
            "walrelay_lag_",
            "walrelay_oldest_inflight",
            "walrelay_errors_total",
            "walrelay_outbox_age",
        ] {
            assert!(!text.contains(name), "{name} is in\n{text}");
        }
    }
}
