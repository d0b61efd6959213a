//! What an application has to build that only writes events.

use std::process::Command;

/// The names of everything a feature brings, and nothing else does.
fn crates(feature: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--no-default-features", "--features", feature, "--edges", "normal"])
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
fn a_writer_builds_neither_librdkafka_nor_openssl_and_little_at_all() {
    for feature in ["outbox", "sqlx"] {
        let crates = crates(feature);
        let expected = if feature == "outbox" { "tokio-postgres" } else { "sqlx" };
        assert!(crates.iter().any(|name| name == expected), "{crates:?}");
        let heavy: Vec<_> = crates.iter().filter(|name| name.contains("rdkafka") || name.contains("openssl")).collect();
        assert!(heavy.is_empty(), "{feature}: {heavy:?}");
        if feature == "outbox" {
            assert!(crates.len() < 80, "{} crates: {crates:?}", crates.len());
        }
    }
}
