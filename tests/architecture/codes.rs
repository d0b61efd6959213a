//! Every error code of the sources has an explanation, and no explanation is of a code that nothing gives.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walrelay::explain;
use walrelay_events::fault::Exit;

use super::sources::sources;

const EXITS: [(&str, Exit); 10] = [
    ("CheckFailed", Exit::CheckFailed),
    ("Configuration", Exit::Configuration),
    ("Mismatch", Exit::Mismatch),
    ("PositionLost", Exit::PositionLost),
    ("Rights", Exit::Rights),
    ("Poison", Exit::Poison),
    ("Unavailable", Exit::Unavailable),
    ("Internal", Exit::Internal),
    ("PositionStore", Exit::PositionStore),
    ("DrainTimeout", Exit::DrainTimeout),
];

/// Finds the codes that a source gives: as `Code::new(Exit::Poison, 1)`, or as text in a warning.
fn codes(source: &str) -> BTreeSet<String> {
    let made = source.split("Code::new(Exit::").skip(1).map(|rest| {
        let (exit, number) = rest.split(')').next().unwrap().split_once(", ").unwrap();
        let (_, exit) = EXITS.iter().find(|(name, _)| *name == exit).unwrap_or_else(|| panic!("Exit::{exit}"));
        format!("WR-{:02}{:02}", *exit as u8, number.parse::<u8>().unwrap())
    });
    let written = source.split("\"WR-").skip(1).map(|rest| format!("WR-{}", rest.split('"').next().unwrap()));
    made.chain(written).filter(|code| code.len() == 7 && code[3..].parse::<u16>().is_ok()).collect()
}

#[test]
fn every_code_is_explained_and_every_explanation_is_of_a_code() {
    let given: BTreeSet<String> = sources().iter().flat_map(|source| codes(&source.code)).collect();
    let explained: BTreeSet<String> = explain::all().iter().map(explain::Explanation::code).collect();
    assert!(given.len() > 100, "{given:?}");
    let missing: Vec<_> = given.difference(&explained).collect();
    assert!(missing.is_empty(), "write an entry in src/explain, and docs/errors.md again, for {missing:?}");
    let unused: Vec<_> = explained.difference(&given).collect();
    assert!(unused.is_empty(), "src/explain has entries for codes that nothing gives: {unused:?}");
}

#[test]
fn the_page_of_all_codes_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(written == explain::page(), "run `cargo run -- explain -o markdown > docs/errors.md`");
}
