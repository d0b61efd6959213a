//! The arrows between rooms, as a test: the table below and the drawing in ARCHITECTURE.md are the same thing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Each room, and the rooms it may look into. A room may always look into itself, and into a room of the half "consumer" or
/// "relay" only by its own name. A room's files are those below its path that are in no other room.
const MAY_USE: &[(&str, &[&str])] = &[
    // Level 0: vocabulary.
    ("lsn", &[]),
    ("cursor", &[]),
    ("fault", &[]),
    ("units", &[]),
    ("measure", &[]),
    ("kafka", &[]),
    ("event/names", &[]),
    ("event/time", &[]),
    ("event/reason", &["event/names"]),
    ("event/decode", &["fault", "event/names", "event/reason"]),
    ("event/encode", &["fault"]),
    ("event/trace", &["event/names"]),
    ("event", &["event/trace"]),
    // Level 1a: pure, each after what stands before it in the data flow.
    ("relay/decode", &["lsn", "cursor"]),
    ("relay/record", &["cursor", "relay/decode"]),
    ("relay/ledger", &["lsn"]),
    ("relay/pipeline", &["lsn", "cursor", "fault", "relay/decode", "relay/record", "relay/ledger"]),
    ("relay/stream/feedback", &["lsn", "relay/ledger"]),
    ("relay/stream/resume", &["lsn"]),
    ("relay/stream/coalesce", &[]),
    ("relay/stream/silence", &["lsn"]),
    ("relay/stream/synchronous", &[]),
    ("relay/catalog/coverage", &[]),
    ("relay/retry/backoff", &[]),
    ("relay/retry/stalls", &[]),
    ("relay/retry/recurrence", &[]),
    ("relay/poll/sweep", &[]),
    ("relay/poll/choice", &[]),
    ("relay/poll/tempo", &[]),
    ("consumer/prefix", &[]),
    ("consumer/lanes", &["consumer/prefix"]),
    ("consumer/retry", &[]),
    ("consumer/budget", &[]),
    ("consumer/outcome", &["fault"]),
    ("consumer/verdict", &["consumer/retry", "consumer/outcome"]),
    // Level 1b: rooms with I/O.
    ("relay/postgres", &["lsn", "cursor", "fault", "units", "relay/stream/feedback"]),
    ("relay/metrics", &["lsn", "fault", "measure"]),
    ("relay/publish", &["fault", "kafka", "units", "relay/record", "relay/ledger", "relay/pipeline", "relay/metrics"]),
    ("relay/catalog", &["lsn", "fault", "relay/postgres", "relay/record"]),
    ("relay/stream/position", &["lsn", "fault", "relay/postgres", "relay/stream/feedback", "relay/stream/resume"]),
    ("relay/stream/slot_monitor", &["fault", "relay/metrics", "relay/postgres"]),
    ("relay/stream/noting", &["lsn", "relay/metrics", "relay/pipeline"]),
    ("relay/stream/stall_report", &["fault", "relay/metrics", "relay/pipeline", "relay/publish"]),
    ("relay/poll/numbers", &["relay/catalog", "relay/poll/sql", "relay/poll/error"]),
    ("relay/poll/sql", &["relay/catalog", "relay/record", "relay/poll/sweep"]),
    ("relay/poll/outlet", &["lsn", "relay/ledger", "relay/pipeline", "relay/record"]),
    ("relay/poll/error", &["fault", "relay/catalog", "relay/postgres", "relay/record", "relay/retry/recurrence"]),
    ("outbox", &["fault", "event"]),
    (
        "consumer",
        &[
            "fault",
            "event",
            "event/trace",
            "kafka",
            "consumer/lanes",
            "consumer/retry",
            "consumer/budget",
            "consumer/outcome",
            "consumer/verdict",
        ],
    ),
    // Level 2: they know the rooms of their half.
    (
        "relay/error",
        &[
            "lsn",
            "fault",
            "relay/catalog",
            "relay/metrics",
            "relay/pipeline",
            "relay/poll/error",
            "relay/postgres",
            "relay/publish",
            "relay/record",
            "relay/retry/recurrence",
            "relay/stream/position",
            "relay/stream/resume",
        ],
    ),
    ("relay/settings", &["units", "relay/error", "relay/postgres", "relay/publish", "relay/record"]),
    (
        "relay/retry/patience",
        &["fault", "relay/error", "relay/metrics", "relay/publish", "relay/retry/backoff", "relay/retry/recurrence"],
    ),
    // It weighs what the catalog says and what is kept beside the position.
    (
        "relay/stream/catalog_watch",
        &[
            "lsn",
            "fault",
            "relay/catalog",
            "relay/catalog/coverage",
            "relay/error",
            "relay/record",
            "relay/stream/position",
        ],
    ),
    ("relay/stream/holder", &["relay/error", "relay/postgres"]),
    (
        "relay/stream/advance",
        &["lsn", "fault", "relay/error", "relay/postgres", "relay/settings", "relay/stream/catalog_watch"],
    ),
    (
        "relay/stream/examine",
        &[
            "fault",
            "relay/catalog",
            "relay/error",
            "relay/postgres",
            "relay/record",
            "relay/settings",
            "relay/stream/catalog_watch",
            "relay/stream/position",
            "relay/stream/resume",
            "relay/stream/slot_monitor",
            "relay/stream/synchronous",
        ],
    ),
    (
        "relay/stream/keeper",
        &[
            "fault",
            "relay/error",
            "relay/metrics",
            "relay/postgres",
            "relay/stream/catalog_watch",
            "relay/stream/feedback",
            "relay/stream/position",
            "relay/stream/resume",
            "relay/stream/slot_monitor",
            "relay/stream/synchronous",
        ],
    ),
    (
        "relay/stream/follow",
        &[
            "fault",
            "relay/error",
            "relay/metrics",
            "relay/pipeline",
            "relay/postgres",
            "relay/publish",
            "relay/stream/coalesce",
            "relay/stream/feedback",
            "relay/stream/keeper",
            "relay/stream/noting",
            "relay/stream/stall_report",
        ],
    ),
    (
        "relay/stream/supervise",
        &[
            "lsn",
            "fault",
            "relay/error",
            "relay/metrics",
            "relay/pipeline",
            "relay/postgres",
            "relay/publish",
            "relay/record",
            "relay/retry/patience",
            "relay/settings",
            "relay/stream/advance",
            "relay/stream/catalog_watch",
            "relay/stream/examine",
            "relay/stream/feedback",
            "relay/stream/follow",
            "relay/stream/holder",
            "relay/stream/keeper",
            "relay/stream/noting",
            "relay/stream/resume",
            "relay/stream/silence",
            "relay/stream/slot_monitor",
            "relay/stream/stall_report",
        ],
    ),
    (
        "relay/poll",
        &[
            "lsn",
            "fault",
            "relay/catalog",
            "relay/decode",
            "relay/error",
            "relay/ledger",
            "relay/metrics",
            "relay/pipeline",
            "relay/postgres",
            "relay/publish",
            "relay/record",
            "relay/retry/patience",
            "relay/retry/recurrence",
            "relay/retry/stalls",
            "relay/settings",
            "relay/poll/sweep",
            "relay/poll/choice",
            "relay/poll/tempo",
            "relay/poll/numbers",
            "relay/poll/sql",
            "relay/poll/outlet",
            "relay/poll/error",
        ],
    ),
    (
        "relay/setup",
        &[
            "lsn",
            "fault",
            "relay/catalog",
            "relay/error",
            "relay/poll",
            "relay/postgres",
            "relay/record",
            "relay/settings",
            "relay/stream/catalog_watch",
            "relay/stream/examine",
            "relay/stream/position",
            "relay/stream/resume",
        ],
    ),
    // What a half shows to level 3.
    ("relay", &["relay/poll", "relay/stream/supervise"]),
    // Level 3: they know everybody.
    ("log", &["fault", "measure"]),
    ("metrics", &["measure", "relay", "relay/metrics"]),
    ("admin", &["lsn", "fault", "measure", "relay", "relay/metrics", "metrics"]),
    ("testing", &["fault"]),
    ("testing/harness", &["event", "consumer", "consumer/lanes", "consumer/retry", "consumer/verdict"]),
    ("config", &["fault", "units", "log", "admin", "relay", "relay/postgres", "relay/publish", "relay/record"]),
    (
        "cli",
        &[
            "event",
            "consumer",
            "fault",
            "log",
            "relay",
            "relay/metrics",
            "relay/publish",
            "relay/setup",
            "metrics",
            "admin",
            "config",
            "testing",
        ],
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
    "relay/decode",
    "relay/record",
    "relay/ledger",
    "relay/pipeline",
    "relay/stream/feedback",
    "relay/stream/resume",
    "relay/stream/coalesce",
    "relay/stream/silence",
    "relay/stream/synchronous",
    "relay/catalog/coverage",
    "relay/retry/backoff",
    "relay/retry/stalls",
    "relay/retry/recurrence",
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
    /// The module: its names below the crate.
    module: Vec<String>,
    room: String,
    /// Without comments and without `mod tests`.
    code: String,
}

/// Where the program's rooms are, and the library's. Cargo sees to it that the library never uses the program.
const ROOTS: [&str; 2] = ["src", "crates/walrelay-events/src"];

fn sources() -> Vec<Source> {
    ROOTS.into_iter().flat_map(|root| sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root))).collect()
}

fn sources_below(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root).unwrap().with_extension("");
                let mut module: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                if module.iter().any(|part| part == "tests") || module == ["lib"] || module == ["main"] {
                    continue;
                }
                module.pop_if(|last| last == "mod");
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push(Source {
                    room: room(&module),
                    module,
                    code: lines.collect::<Vec<_>>().join("\n"),
                    path: path.strip_prefix(root).unwrap().to_owned(),
                });
            }
        }
    }
    found
}

/// The room of a path: as many of its first parts, up to three, as the table knows, else the first.
fn room(parts: &[String]) -> String {
    let first = |count| parts.iter().take(count).map(String::as_str).collect::<Vec<_>>().join("/");
    let known = [3, 2].map(first).into_iter().find(|known| MAY_USE.iter().any(|(room, _)| room == known));
    known.unwrap_or_else(|| parts[0].clone())
}

/// The rooms that a file looks into, by its crate, by the library, by `super::` and by the name of a room below it. What says who may see an
/// item is no arrow, and what only shows an item to others uses nothing.
fn arrows(Source { module, code, .. }: &Source) -> BTreeSet<String> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("pub use ")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    let here = module.join("/");
    for (below, _) in MAY_USE {
        let Some(name) = below.strip_prefix(&here).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let path = format!("{}::", name.replace('/', "::"));
        let is_start = |at: usize| !code[..at].ends_with(|char: char| char.is_alphanumeric() || "_:.".contains(char));
        if code.match_indices(&path).any(|(at, _)| is_start(at)) {
            found.insert((*below).to_owned());
        }
    }
    for (start, word) in ["crate", "walrelay_events", "super"].into_iter().flat_map(|word| code.match_indices(word)) {
        let before = &code[..start];
        let after = &code[start + word.len()..];
        let is_part = before.ends_with("::") || before.ends_with(|char: char| char.is_alphanumeric() || char == '_');
        if is_part || before.ends_with("(in ") || !after.starts_with("::") {
            continue;
        }
        let path = after.split(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':')).next().unwrap();
        let mut parts: Vec<String> = Vec::new();
        if word == "super" {
            parts.extend_from_slice(&module[..module.len() - 1]);
        }
        for part in path.split("::").filter(|part| !part.is_empty()) {
            if part == "super" {
                parts.pop();
            } else {
                parts.push(part.to_owned());
            }
        }
        if !parts.is_empty() {
            found.insert(room(&parts));
        }
    }
    found
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
        for target in arrows(&source) {
            if target != source.room && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} must not use {target} ({})", source.room, source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_arrow_of_the_table_leads_back_to_where_it_came_from() {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut settled = BTreeSet::new();
    // A room is settled when all that it uses is: what never settles is on a circle, or uses one.
    loop {
        let next: Vec<&str> = table
            .iter()
            .filter(|(room, uses)| !settled.contains(*room) && uses.iter().all(|used| settled.contains(used)))
            .map(|(room, _)| *room)
            .collect();
        if next.is_empty() {
            break;
        }
        settled.extend(next);
    }
    let circling: Vec<&&str> = table.keys().filter(|room| !settled.contains(*room)).collect();
    assert!(circling.is_empty(), "on a circle of the table, or above one: {circling:?}");
}

#[test]
fn every_arrow_of_the_table_is_used() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        used.entry(source.room.clone()).or_default().extend(arrows(&source));
    }
    let mut idle = Vec::new();
    for (room, allowed) in MAY_USE {
        let used = used.get(*room).unwrap_or_else(|| panic!("no file is in the room {room}"));
        idle.extend(
            allowed.iter().filter(|target| !used.contains(**target)).map(|target| format!("{room} -> {target}")),
        );
    }
    assert!(idle.is_empty(), "nobody goes these ways: take them out of the table\n{}", idle.join("\n"));
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
