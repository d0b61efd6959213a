//! What `status` found, for people and for programs. The field names of the JSON are stable.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::admin;
use crate::relay::inspect::Inspection;
use crate::relay::inspect::Position;
use crate::relay::inspect::Problem;
use crate::relay::inspect::Slot;

use super::daemon::Daemon;
use super::daemon::SlotView;

/// The first reason of a relay that does not run.
pub(super) const NOT_RUNNING: &str = "not running";

/// What was found at one moment.
#[derive(Debug)]
pub(super) struct Report {
    /// RFC 3339.
    pub(super) at: String,
    /// The configured name of the relay.
    pub(super) name: String,
    /// The configured slot; none in mode `poll`.
    pub(super) slot: Option<String>,
    /// The configured publication; none in mode `poll`.
    pub(super) publication: Option<String>,
    pub(super) address: String,
    pub(super) found: Found,
    /// Why all is not well; empty if it is.
    pub(super) reasons: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Found {
    /// The relay runs. Its answer stands beside it.
    Running(Box<Daemon>, Value),
    /// It does not answer. What PostgreSQL knows, or why it cannot be asked.
    Stopped { why: String, postgres: Result<Box<Inspection>, Problem> },
}

/// What the configuration expects of a relay that runs.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    pub(super) name: &'a str,
    /// None in mode `poll`.
    pub(super) slot: Option<&'a str>,
    pub(super) warn_before_invalidation: Duration,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    text: &'a str,
    help: Option<&'a str>,
}

impl Report {
    pub(super) const fn is_well(&self) -> bool {
        self.reasons.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        let (relay, postgres) = match &self.found {
            Found::Running(_, answer) => {
                (json!({ "address": self.address, "running": true, "error": null, "status": answer }), Value::Null)
            }
            Found::Stopped { why, postgres } => (
                json!({ "address": self.address, "running": false, "error": why, "status": null }),
                postgres_json(postgres),
            ),
        };
        json!({
            "at": self.at,
            "name": self.name,
            "slot": self.slot,
            "publication": self.publication,
            "well": self.is_well(),
            "reasons": self.reasons,
            "relay": relay,
            "postgres": postgres,
        })
    }
}

/// Says why a relay that runs is not well.
pub(super) fn reasons(daemon: &Daemon, expected: &Expected<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if daemon.name != expected.name || daemon.slot.as_deref() != expected.slot {
        let slot = daemon.slot.as_deref().map(|slot| format!(" of slot {slot}")).unwrap_or_default();
        reasons.push(format!("this is the relay {}{slot}, not the one of this configuration", daemon.name));
    }
    if !daemon.ready {
        reasons.push(format!("not ready: {}", daemon.state.replace('_', " ")));
    }
    if let Some(seconds) = daemon.since_tick_seconds.filter(|seconds| *seconds >= admin::MAX_STANDSTILL.as_secs_f64()) {
        reasons.push(format!("the relay thread has not moved for {seconds:.0} s"));
    }
    reasons.extend(daemon.slot_view.as_ref().and_then(|slot| of_slot(slot, expected)));
    reasons
}

/// Says why a relay that does not run is not well. What cannot be read has its own error.
pub(super) fn reasons_of_stopped(postgres: &Result<Box<Inspection>, Problem>, expected: &Expected<'_>) -> Vec<String> {
    let slot = postgres.as_ref().ok().and_then(|inspection| inspection.slot.as_ref()?.as_ref().ok());
    let of_slot = slot.and_then(slot_view).and_then(|slot| of_slot(&slot, expected));
    [NOT_RUNNING.to_owned()].into_iter().chain(of_slot).collect()
}

fn of_slot(slot: &SlotView, expected: &Expected<'_>) -> Option<String> {
    if let Some(word) = slot.wal_status.as_deref().filter(|word| matches!(*word, "unreserved" | "lost")) {
        return Some(format!("the wal_status of the slot is {word}"));
    }
    let is_soon = slot.seconds_to_invalidation? < expected.warn_before_invalidation.as_secs_f64();
    is_soon.then(|| "the slot may be invalidated soon".to_owned())
}

fn postgres_json(postgres: &Result<Box<Inspection>, Problem>) -> Value {
    let inspection = match postgres {
        Ok(inspection) => inspection,
        Err(problem) => return json!({ "connected": false, "error": Failure::of(problem) }),
    };
    json!({
        "connected": true,
        "error": null,
        "host": inspection.server.host,
        "version": inspection.server.version,
        "in_recovery": inspection.server.is_in_recovery,
        "slot": inspection.slot.as_ref().map(|slot| part(slot, slot_json)),
        "position": inspection.position.as_ref().map(|position| part(position, position_json)),
        "unpublished": inspection.unpublished.as_ref().map(|events| {
            part(events, |events| json!({ "events": events, "error": null }))
        }),
        "publication": inspection.publication.as_ref().map(|tables| {
            part(tables, |tables| json!({ "tables": tables, "error": null }))
        }),
    })
}

fn part<T>(read: &Result<T, Problem>, shown: impl FnOnce(&T) -> Value) -> Value {
    match read {
        Ok(value) => shown(value),
        Err(problem) => json!({ "error": Failure::of(problem) }),
    }
}

/// The fields of `slot_view` in `/status`, and who uses the slot.
fn slot_json(slot: &Slot) -> Value {
    let mut shown = serde_json::to_value(admin::Slot::of(&slot.view)).unwrap_or_default();
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("holder".to_owned(), json!(slot.holder));
        fields.insert("error".to_owned(), json!(slot.problem.as_ref().map(Failure::of)));
    }
    shown
}

/// The slot as the screen shows it, from `/status` or from PostgreSQL.
pub(super) fn slot_view(slot: &Slot) -> Option<SlotView> {
    serde_json::from_value(slot_json(slot)).ok()
}

fn position_json(position: &Position) -> Value {
    json!({
        "lsn": position.lsn,
        "stored_seconds_ago": position.stored_seconds_ago,
        "stopped_in_order": position.is_released,
        "error": null,
    })
}

impl<'a> Failure<'a> {
    fn of(problem: &'a Problem) -> Self {
        Self { code: &problem.code, text: &problem.text, help: problem.help.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sources;
    use crate::relay::Metrics;
    use crate::relay::State;

    /// As a relay answers.
    fn daemon(change: impl FnOnce(&mut Value)) -> Daemon {
        let metrics = Metrics::default();
        metrics.enter(State::Streaming);
        metrics.kafka.connected();
        let sources = Sources::new("orders", "slot", "publication", metrics);
        let mut answer = serde_json::to_value(admin::View::status(&sources)).unwrap();
        change(&mut answer);
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn a_relay_is_well_if_it_is_ready_moves_is_the_right_one_and_its_slot_is_safe() {
        let limit = Duration::from_secs(60);
        let expected = Expected { name: "orders", slot: Some("slot"), warn_before_invalidation: limit };
        let slot = |word: &str, left: Value| {
            let mut view = json!({ "active": true, "retained_wal_bytes": 5, "wal_status": word });
            view["seconds_to_invalidation"] = left;
            view
        };
        assert_eq!(reasons(&daemon(|_| {}), &expected), Vec::<String>::new());
        for (field, value, expected_reason) in [
            ("name", json!("stock"), "this is the relay stock of slot slot"),
            ("slot", json!("other"), "this is the relay orders of slot other"),
            ("ready", json!(false), "not ready: streaming"),
            ("since_tick_seconds", json!(31.0), "has not moved for 31 s"),
            ("slot_view", slot("lost", Value::Null), "wal_status of the slot is lost"),
            ("slot_view", slot("unreserved", json!(0.0)), "wal_status of the slot is unreserved"),
            ("slot_view", slot("extended", json!(59.0)), "may be invalidated soon"),
        ] {
            let found = reasons(&daemon(|answer| answer[field] = value), &expected);
            assert!(found.len() == 1 && found[0].contains(expected_reason), "{expected_reason}: {found:?}");
        }
        let fine = daemon(|answer| answer["slot_view"] = slot("extended", json!(61.0)));
        assert!(reasons(&fine, &expected).is_empty());
    }
}
