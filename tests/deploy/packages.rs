//! The unit of systemd, the manifests of Kubernetes and the compose file, as far as they can be checked without a
//! cluster.

use std::fs;
use std::process::Command;
use std::process::Output;

use serde_json::Value;

use super::file;
use super::read;
use super::text;
use crate::support::program;

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn analyze(arguments: &[&str]) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).output();
    output.unwrap_or_else(|error| {
        panic!("run systemd-analyze: {error}; scripts/setup test installs it: sudo apt-get install systemd")
    })
}

#[test]
fn systemd_accepts_the_unit_and_rates_its_exposure_as_low() {
    let folder = std::env::temp_dir().join(format!("walrelay-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = program::path().into_string().unwrap();
    let unit = read("deploy/systemd/walrelay.service").replace("/usr/bin/walrelay", &program);
    let path = folder.join("walrelay.service");
    fs::write(&path, unit).unwrap();
    let path = path.to_str().unwrap();
    let verified = analyze(&["verify", path]);
    let about_it = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !about_it.contains("walrelay"), "{verified:?}");
    // A failure of ExecStartPre restarts for ever, and without /proc/stat the start time of the process is unknown.
    let unit = read("deploy/systemd/walrelay.service");
    assert!(!unit.contains("ExecStartPre") && !unit.contains("ProcSubset"), "{unit}");
    // On systemd's scale from 0 to 100.
    let rated = analyze(&["security", "--offline=yes", "--threshold=20", path]);
    assert!(rated.status.success(), "{rated:?}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_unit_and_the_manifests_leave_room_for_the_drain() {
    let config: toml::Table = toml::from_str(&read("config.toml")).unwrap();
    assert_eq!(config["shutdown"]["drain"].as_str(), Some("20s"));
    assert!(read("deploy/systemd/walrelay.service").contains("TimeoutStopSec=40s"));
    let deployment = &documents("deploy/kubernetes/walrelay.yaml")[1];
    assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(documents("deploy/compose.yaml")[0]["services"]["relay"]["stop_grace_period"], "30s");
}

#[test]
fn the_configurations_in_the_manifests_are_valid() {
    let folder = std::env::temp_dir().join(format!("walrelay-manifests-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let of_kubernetes = text(&documents("deploy/kubernetes/walrelay.yaml")[0]["data"], "config.toml");
    for (name, config) in [("kubernetes", of_kubernetes), ("compose", read("deploy/compose/config.toml"))] {
        let name_of_relay =
            config.lines().skip_while(|line| *line != "[relay]").find(|line| line.starts_with("name = "));
        assert!(name_of_relay.is_some_and(|line| line != "name = \"walrelay\""), "{name} has a name of its own");
        let path = folder.join(name);
        fs::write(&path, config).unwrap();
        let path = path.to_str().unwrap();
        let mut validate = program::command(&["--config", path, "config", "validate", "--without-files"]);
        let output = validate.env("DB_PASSWORD", "walrelay").output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_relay_in_kubernetes_is_replaced_and_not_doubled_and_a_sidecar_has_no_readiness() {
    let deployment = &documents("deploy/kubernetes/walrelay.yaml")[1];
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
    let pod = &documents("deploy/kubernetes/sidecar.yaml")[0];
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!((&sidecar["readinessProbe"], &sidecar["startupProbe"]), (&Value::Null, &Value::Null));
    let monitor = &documents("deploy/kubernetes/podmonitor.yaml")[0];
    for labels in [&deployment["spec"]["template"]["metadata"]["labels"], &pod["metadata"]["labels"]] {
        assert_eq!(labels, &monitor["spec"]["selector"]["matchLabels"]);
    }
    for container in [sidecar, &deployment["spec"]["template"]["spec"]["containers"][0]] {
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        assert_eq!(container["ports"][0]["name"], monitor["spec"]["podMetricsEndpoints"][0]["port"]);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    }
}

#[test]
fn the_prometheus_rule_is_the_alerts_file() {
    let output = Command::new(file("scripts/kubernetes")).arg("--print").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = read("deploy/kubernetes/prometheusrule.yaml");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), written, "run scripts/kubernetes");
    let rule = &documents("deploy/kubernetes/prometheusrule.yaml")[0];
    assert_eq!(rule["spec"]["groups"], documents("deploy/prometheus/alerts.yml")[0]["groups"]);
}

#[test]
fn the_compose_file_mounts_files_that_exist_and_waits_for_services_that_it_has() {
    let compose = &documents("deploy/compose.yaml")[0];
    let services = compose["services"].as_object().unwrap();
    let mut mounts = 0;
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(file("deploy").join(source).is_file(), "{name}: {source}");
            mounts += 1;
        }
        for needed in service["depends_on"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            assert!(services.contains_key(needed), "{name}: {needed}");
        }
    }
    assert_eq!(mounts, 8);
    for path in ["prometheus.yml", "datasource.yml", "dashboards.yml"] {
        documents(&format!("deploy/compose/{path}"));
    }
    let url = services["setup"]["command"].as_array().unwrap();
    assert!(url.iter().any(|word| word == "postgres.url=postgres://postgres:postgres@postgres/shop?sslmode=disable"));
}
