//! The arrows between rooms, as a test: the table below and the drawing in ARCHITECTURE.md are the same thing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Each room, and the rooms it may look into. A room may always look into itself.
const MAY_USE: &[(&str, &[&str])] = &[
    // Level 0: vocabulary.
    ("lsn", &[]),
    ("cursor", &[]),
    ("fault", &[]),
    ("units", &[]),
    ("measure", &[]),
    ("kafka", &[]),
    ("event", &["fault"]),
    ("event/decode", &["fault", "event"]),
    ("event/encode", &["fault"]),
    ("event/reason", &[]),
    ("event/time", &[]),
    ("event/trace", &[]),
    // Level 1a: pure, each after what stands before it in the data flow.
    ("relay/frame", &["lsn", "cursor"]),
    ("relay/pgoutput", &["lsn", "cursor"]),
    ("relay/transaction", &["lsn", "relay/pgoutput"]),
    ("relay/row", &["cursor", "relay/pgoutput"]),
    ("relay/route", &["relay/pgoutput", "relay/row"]),
    ("relay/ledger", &["lsn"]),
    (
        "relay/pipeline",
        &[
            "lsn",
            "measure",
            "cursor",
            "fault",
            "relay/frame",
            "relay/pgoutput",
            "relay/transaction",
            "relay/row",
            "relay/route",
            "relay/ledger",
        ],
    ),
    ("relay/feedback", &["lsn", "relay/ledger"]),
    ("relay/resume", &["lsn"]),
    ("relay/coverage", &[]),
    ("relay/backoff", &[]),
    ("relay/coalesce", &[]),
    ("relay/stalls", &["lsn"]),
    ("relay/recurrence", &[]),
    ("relay/silence", &["lsn"]),
    ("relay/synchronous", &[]),
    ("relay/config", &["units"]),
    // Level 1b: rooms with I/O.
    ("relay/wal", &["lsn", "cursor", "fault", "units", "relay/ledger"]),
    ("relay/metrics", &["lsn", "fault", "measure"]),
    ("relay/publish", &["fault", "kafka", "units", "relay/route", "relay/ledger", "relay/pipeline", "relay/metrics"]),
    ("relay/contract", &["lsn", "fault", "relay/wal", "relay/route", "relay/row"]),
    ("relay/position", &["lsn", "fault", "relay/wal", "relay/feedback", "relay/resume"]),
    ("outbox", &["fault", "event"]),
    ("consumer/prefix", &[]),
    ("consumer/lanes", &["consumer/prefix"]),
    ("consumer/retry", &[]),
    ("consumer/budget", &[]),
    ("consumer/verdict", &["consumer/retry", "consumer"]),
    ("consumer", &["fault", "event", "kafka", "consumer"]),
    // Level 2: they know the rooms of their half.
    ("relay/error", &["lsn", "fault", "relay"]),
    ("relay/patience", &["fault", "relay"]),
    ("relay/lookout", &["fault", "relay"]),
    ("relay/keeper", &["fault", "relay"]),
    ("relay/holder", &["relay"]),
    ("relay/stall_report", &["fault", "relay"]),
    ("relay/advance", &["lsn", "fault", "relay"]),
    ("relay/examine", &["fault", "relay"]),
    // It weighs the contract and what is kept beside the position.
    ("relay/catalog_watch", &["lsn", "fault", "relay"]),
    ("relay/noting", &["lsn", "relay"]),
    ("relay/follow", &["fault", "relay"]),
    ("relay/supervise", &["lsn", "fault", "relay"]),
    ("relay/setup", &["lsn", "fault", "relay"]),
    ("relay/poll/sweep", &[]),
    ("relay/poll/choice", &[]),
    ("relay/poll/tempo", &[]),
    ("relay/poll/numbers", &["relay/contract"]),
    ("relay/poll/sql", &["relay/contract", "relay/route"]),
    ("relay/poll/outlet", &["lsn", "relay/ledger", "relay/pipeline", "relay/route"]),
    ("relay/poll", &["lsn", "fault", "relay"]),
    ("relay", &["relay"]),
    // Level 3: they know everybody.
    ("metrics", &["lsn", "fault", "measure", "relay"]),
    ("admin", &["lsn", "fault", "measure", "relay", "metrics"]),
    ("testing", &["fault"]),
    ("testing/harness", &["event", "consumer"]),
    ("config", &["fault", "units", "relay", "admin", "cli"]),
    (
        "cli",
        &["lsn", "event", "consumer", "fault", "measure", "units", "relay", "metrics", "admin", "config", "testing"],
    ),
];

/// Rooms that decide and never wait.
const PURE: &[&str] = &[
    "consumer/prefix",
    "consumer/lanes",
    "consumer/retry",
    "consumer/budget",
    "consumer/verdict",
    "event/decode",
    "event/encode",
    "event/reason",
    "event/time",
    "relay/frame",
    "relay/pgoutput",
    "relay/transaction",
    "relay/row",
    "relay/route",
    "relay/ledger",
    "relay/pipeline",
    "relay/feedback",
    "relay/resume",
    "relay/coverage",
    "relay/backoff",
    "relay/coalesce",
    "relay/stalls",
    "relay/recurrence",
    "relay/silence",
    "relay/synchronous",
    "relay/poll/sweep",
    "relay/poll/choice",
    "relay/poll/numbers",
    "relay/poll/sql",
    "relay/poll/outlet",
];
const BANNED_IN_PURE: &[&str] = &["async ", "tokio", "rdkafka", "Instant::now", "SystemTime::now", "tracing"];

/// A file longer than this, its tests apart, is looking for its second noun.
const LINES_MAX: usize = 400;

struct Source {
    path: PathBuf,
    room: String,
    /// Without comments and without `mod tests`.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).unwrap().with_extension("");
                let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
                if parts.contains(&"tests") || parts == ["lib"] || parts == ["main"] {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push(Source {
                    room: room(&parts),
                    code: lines.collect::<Vec<_>>().join("\n"),
                    path: path.strip_prefix(&root).unwrap().to_owned(),
                });
            }
        }
    }
    found
}

/// The room of a path: as many of its first parts, up to three, as the table knows, else the first.
fn room(parts: &[&str]) -> String {
    let first = |count| parts.iter().take(count).copied().collect::<Vec<_>>().join("/");
    let known = [3, 2].map(first).into_iter().find(|known| MAY_USE.iter().any(|(room, _)| room == known));
    known.unwrap_or_else(|| parts[0].to_owned())
}

fn arrows(code: &str) -> Vec<String> {
    let mut arrows: Vec<String> = code
        .split("crate::")
        .skip(1)
        .map(|after| {
            let path =
                after.split(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':')).next().unwrap();
            let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
            room(&parts)
        })
        .collect();
    arrows.sort();
    arrows.dedup();
    arrows
}

#[test]
fn a_room_uses_only_what_stands_below_it() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(allowed) = allowed.get(source.room.as_str()) else {
            wrong.push(format!("{} is in no room of the table", source.path.display()));
            continue;
        };
        for target in arrows(&source.code) {
            let half = target.split('/').next().unwrap();
            let is_allowed = target == source.room
                || allowed.contains(&target.as_str())
                || allowed.contains(&half) && half != source.room;
            let is_own_half = allowed.contains(&half) && source.room.starts_with(half);
            if !is_allowed && !is_own_half {
                wrong.push(format!("{} must not use {target} ({})", source.room, source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_pure_room_does_not_wait_and_does_not_look_at_the_clock() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.room.as_str())) {
        for word in BANNED_IN_PURE.iter().filter(|word| source.code.contains(**word)) {
            wrong.push(format!("{} must not say {word:?}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_show_their_arrows_and_files_have_one_noun() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.code.contains("use crate::{") {
            wrong.push(format!("{}: one `use` per path, so that arrows can be read", source.path.display()));
        }
        let lines = source.code.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines of code, more than {LINES_MAX}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
