//! A real Prometheus scrapes a real relay: the alerts fire and end, and each panel of the dashboard shows something.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::panels;
use super::promql::names;
use super::read;
use super::rules;
use super::text;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::prometheus::Prometheus;
use crate::support::source::Sql;

/// What a relay that reads the WAL lacks, or has only after its first minute.
const LATE: [&str; 3] = [
    "walrelay_unpublished_events",
    "walrelay_slot_time_to_invalidation_seconds",
    "walrelay_slot_retained_wal_growth_bytes_per_second",
];

/// The rules with minutes made seconds.
fn fast_rules() -> String {
    let mut fast = String::new();
    for line in read("deploy/prometheus/alerts.yml").lines() {
        let line = if line.trim_start().starts_with("for: ") { "        for: 1s" } else { line };
        let line = ["[5m]", "[10m]", "[15m]"].iter().fold(line.to_owned(), |line, range| line.replace(range, "[10s]"));
        let line = line.replace("[3m:15s]", "[12s:1s]").replace("offset 10m", "offset 10s");
        fast.push_str(&line);
        fast.push('\n');
    }
    fast
}

/// Each value that a label is compared with is one that the relay gives.
fn check_label_values(page: &str) {
    let alerts = rules().iter().map(|rule| text(rule, "expr")).collect::<Vec<_>>();
    for expression in alerts.into_iter().chain(panels().into_iter().map(|(_, expression)| expression)) {
        for selector in names(&expression).selectors {
            for (label, values) in selector.matchers.iter().filter(|(label, _)| label != "relay") {
                for value in values.split('|') {
                    let pair = format!("{label}=\"{value}\"");
                    let is_it = |line: &str| line.starts_with(&selector.name) && line.contains(&pair);
                    assert!(page.lines().any(is_it), "{expression}: no {} with {pair}", selector.name);
                }
            }
        }
    }
}

fn check_panels(prometheus: &Prometheus) {
    for (title, expression) in panels() {
        let is_late = names(&expression).selectors.iter().any(|selector| LATE.contains(&selector.name.as_str()));
        let expression = expression.replace("$relay", ".*");
        let samples = prometheus.query(&expression);
        assert!(is_late || !samples.is_empty(), "{title}: {expression} gives nothing");
    }
}

fn await_alert(prometheus: &Prometheus, alert: &str, is_firing: bool) {
    let is_so = |prometheus: &Prometheus| prometheus.firing().iter().any(|each| each == alert) == is_firing;
    prometheus.await_that(&format!("{alert} to be {is_firing}"), is_so);
}

#[test]
fn prometheus_raises_the_alerts_of_a_stalled_slot_and_of_a_relay_that_is_down_and_feeds_every_panel() {
    let options = Options::default().with_settings(vec!["max_slot_wal_keep_size = '160MB'".into()]);
    let (postgres, kafka) = (Postgres::start(options).unwrap(), Kafka::start(1));
    kafka.create_topic("watched", 1);
    let more = "[source]\ndisconnect_on_stall_after = \"2s\"\n[[outbox]]\ntable = \"public.outbox_events\"\n\
                topic = \"watched\"\n";
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    program.start_streaming();
    let prometheus = Prometheus::start(program.port(), &fast_rules());
    sql.run("SELECT emit('k1')");
    prometheus.await_that("an acknowledged event", |prometheus| {
        !prometheus.query("walrelay_events_published_total{topic=\"watched\"} == 1").is_empty()
    });
    // Its first look found no relay yet.
    prometheus.await_that("the absence of alerts", |prometheus| prometheus.firing().is_empty());

    kafka.freeze(0);
    sql.run("SELECT emit('k1')");
    program.await_state("sink_blocked");
    sql.run("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1 << 20)) FROM generate_series(1, 148)");
    for alert in ["WalrelayStalled", "WalrelayWalBudgetLow", "WalrelayWalBudgetHalfUsed"] {
        await_alert(&prometheus, alert, true);
    }
    check_label_values(&program.get("/metrics").unwrap().1);
    check_panels(&prometheus);

    kafka.thaw(0);
    sql.run("SELECT emit('k1')");
    await_alert(&prometheus, "WalrelayStalled", false);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    await_alert(&prometheus, "WalrelayDown", true);
    for rule in prometheus.rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}
