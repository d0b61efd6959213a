//! docs/metrics.md and the exposition are the same thing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::*;
use crate::relay::metrics::BrokerView;
use crate::relay::metrics::ProducerView;
use crate::relay::metrics::Quantiles;

const PAGE: &str = include_str!("../../docs/metrics.md");
const CODE: [&str; 3] = [include_str!("mod.rs"), include_str!("producer.rs"), include_str!("process.rs")];

/// A family as its page shows it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// A relay of which every number is known.
fn everything() -> String {
    let mut sources = tests::busy();
    sources.with_producer = true;
    let relay = &sources.relay;
    relay.flushed_lsn.set(90);
    relay.unpublished_counted_micros.set(1);
    let times = Some(Quantiles { p50_micros: 1, p99_micros: 2 });
    let broker = BrokerView {
        number: 1,
        is_up: true,
        round_trip: times,
        queue_wait: times,
        throttle: times,
        ..BrokerView::default()
    };
    relay.producer.set(Some(ProducerView { queued_records: 1, queued_bytes: 1, brokers: vec![broker] }));
    exposition(&sources)
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{')
            && let Some(family) = families.get_mut(name)
        {
            let labels = labels.split("=\"").filter_map(|part| part.rsplit([',', '"']).next());
            family.labels.extend(labels.filter(|label| *label != "relay" && is_name(label)).map(str::to_owned));
        }
    }
    families
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|each| each.is_ascii_lowercase() || each == '_')
}

#[test]
fn every_series_is_in_the_documentation_with_its_kind_labels_and_meaning() {
    let families = families(&everything());
    let mut table = String::from("| name | type | labels | |\n|---|---|---|---|\n");
    for (name, Family { kind, labels, help }) in &families {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    assert!(PAGE.contains(&table), "docs/metrics.md must contain this table:\n{table}");
    // A series that has no value here would be missing from the table.
    for code in CODE {
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
        for name in code.split('"').filter(|text| is_name(text)) {
            let is_metric = name.starts_with("walrelay_") || name.starts_with("process_");
            assert!(!is_metric || families.contains_key(name), "{name} has no value in this test");
        }
    }
}
