//! The files of `deploy/`: what they name exists, and they work with the programs that they are for.

mod alerts;
mod monitored;
mod packages;
mod pages;
mod promql;
mod runbooks;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// A file of this repository.
fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules of `alerts.yml`.
fn rules() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/alerts.yml")).unwrap();
    rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The queries of the dashboard, by the title of their panel, for a short time between two scrapes.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/walrelay.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((text(panel, "title"), text(target, "expr").replace("$__rate_interval", "10s")));
        }
    }
    assert!(queries.len() > 20, "{queries:?}");
    queries
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned()
}

/// The series of docs/metrics.md with their labels. A histogram has three, of which one has the label `le`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut series = BTreeMap::new();
    for line in read("docs/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        // Prometheus adds the labels of the target.
        let mut labels: BTreeSet<String> = ["job", "instance", "namespace"].map(str::to_owned).into();
        labels.extend(cells[3].split(", ").map(|label| label.trim_matches('`').to_owned()));
        if name.starts_with("walrelay_") {
            labels.insert("relay".to_owned());
        }
        if cells[2] == "histogram" {
            series.insert(format!("{name}_sum"), labels.clone());
            series.insert(format!("{name}_count"), labels.clone());
            labels.insert("le".to_owned());
            series.insert(format!("{name}_bucket"), labels);
        } else {
            series.insert(name.to_owned(), labels);
        }
    }
    assert!(series.len() > 50, "{series:?}");
    series
}
