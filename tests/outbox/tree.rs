//! What an application builds with the library.

use std::process::Command;

/// The names of the crates that an application builds with these features, without those of tests and build scripts.
fn crates(features: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "walrelay-events", "--features", features, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut crates: Vec<String> = text.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    crates.sort();
    crates.dedup();
    crates
}

#[test]
fn a_writer_builds_neither_librdkafka_nor_openssl_nor_clap_and_little_at_all() {
    for (features, expected, most) in [("", "uuid", 30), ("outbox", "tokio-postgres", 80), ("sqlx", "sqlx", 130)] {
        let crates = crates(features);
        assert!(crates.iter().any(|name| name == expected), "{crates:?}");
        let heavy: Vec<_> = crates
            .iter()
            .filter(|name| ["rdkafka", "openssl", "clap", "jemalloc"].iter().any(|part| name.contains(part)))
            .collect();
        assert!(heavy.is_empty(), "{features:?}: {heavy:?}");
        assert!(crates.len() < most, "{features:?}: {} crates: {crates:?}", crates.len());
    }
}

#[test]
fn the_page_says_how_many_crates_an_application_builds() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/library.md")).unwrap();
    for (row, features) in [
        ("none", ""),
        ("`outbox`", "outbox"),
        ("`sqlx`", "sqlx"),
        ("`publisher`", "publisher"),
        ("`consumer`", "consumer"),
        ("`consumer` and `sqlx`", "consumer,sqlx"),
    ] {
        let row = format!("| {row} | {} |", crates(features).len());
        assert!(page.contains(&row), "docs/library.md has no row {row:?}");
    }
}
