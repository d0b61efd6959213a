//! An error code means one thing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Codes that two rooms give for the same thing.
const SHARED: [&str; 13] = [
    // The mapped column, the row: found in the WAL, or in the table that is polled.
    "Mismatch, 10",
    "Poison, 1",
    // The slot is missing or lost: found in the catalog, or said by the server.
    "PositionLost, 1",
    "PositionLost, 2",
    // A row that is too large to be read.
    "Poison, 2",
    // A topic that does not exist: said by the brokers, or seen in what waits.
    "Unavailable, 32",
    // A slot that is in use: said by the server, or seen while the relay waits.
    "Unavailable, 4",
    // A stall, of the stream or of a batch, and its cause.
    "Unavailable, 33",
    // A right that the brokers do not give: said when a record is refused, or seen before.
    "Rights, 30",
    // An error inside another one.
    "Unavailable, 1",
    // An answer that does not come in time: of a query, or of a server that decodes for `peek`.
    "Unavailable, 2",
    // A slot that this relay cannot use: of `run`, and of `teardown`, which does not drop it.
    "Mismatch, 1",
    // A right that PostgreSQL does not give: said by the server, or seen by `teardown` before its first step.
    "Rights, 4",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn wr_6520_and_every_other_code_of_the_relay_is_given_in_one_place() {
    let relay = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/relay");
    let mut found = Vec::new();
    files(&relay.join(".."), &mut found);
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let made = line.split("Code::new(Exit::").skip(1).map(|given| given.split(')').next().unwrap().to_owned());
            let written = line.split("\"WR-69").skip(1).filter_map(|given| given.split('"').next()?.parse::<u8>().ok());
            for given in made.chain(written.map(|number| format!("Unavailable, {number}"))) {
                places.entry(given).or_default().insert(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(places.contains_key("Mismatch, 20"), "{places:?}");
    places.retain(|code, places| {
        let is_ours = places.iter().any(|place| place.contains("src/relay/../relay/"));
        is_ours && places.len() > 1 && !SHARED.contains(&code.as_str())
    });
    assert!(places.is_empty(), "{places:#?}");
}
