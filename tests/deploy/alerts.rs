//! The alerts and the dashboard name what exists, and the alerts fire when they should.

use std::collections::BTreeSet;

use super::documented;
use super::file;
use super::panels;
use super::promql::names;
use super::read;
use super::rules;
use super::text;
use crate::support::prometheus::promtool;

#[test]
fn the_alerts_are_valid_and_fire_when_they_should_by_their_unit_tests() {
    let folder = file("deploy/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = promtool(&folder, &arguments);
        assert!(output.status.success(), "{output:?}");
    }
    let tests = read("deploy/prometheus/alerts_test.yml");
    for rule in rules() {
        let name = format!("alertname: {}\n", text(&rule, "alert"));
        assert!(tests.contains(&name), "no unit test of {name}");
    }
}

#[test]
fn every_series_and_label_in_an_alert_or_a_panel_is_a_documented_one() {
    let documented = documented();
    let alerts = rules().iter().map(|rule| (text(rule, "alert"), text(rule, "expr"))).collect::<Vec<_>>();
    for (title, expression) in alerts.into_iter().chain(panels()) {
        let names = names(&expression);
        assert!(!names.selectors.is_empty(), "{title}: {expression}");
        let mut known = BTreeSet::new();
        for selector in &names.selectors {
            let Some(labels) = documented.get(&selector.name) else {
                panic!("{title}: docs/metrics.md has no {}", selector.name)
            };
            for (label, _) in &selector.matchers {
                assert!(labels.contains(label), "{title}: {} has no label {label}", selector.name);
            }
            known.extend(labels);
        }
        for label in &names.groupings {
            assert!(known.contains(label), "{title}: no series of it has the label {label}");
        }
    }
}

#[test]
fn every_panel_is_limited_to_the_chosen_relays() {
    for (title, expression) in panels() {
        assert!(expression.contains("relay=~\"$relay\""), "{title}: {expression}");
    }
}
