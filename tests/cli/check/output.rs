//! How the result reads, for people and programs, and what follows from it.

use std::process::Command;

use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program;
use crate::support::program::Program;
use crate::support::source::Sql;

use super::report;

#[test]
fn each_check_is_a_line_that_fits_80_and_40_columns_and_a_command_is_never_broken() {
    let (postgres, broker) = (Postgres::start(Options::default()).unwrap(), Broker::start(1).unwrap());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    for columns in [80, 40] {
        let output = program.command(&["check"]).env("COLUMNS", columns.to_string()).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{out}");
        assert!(out.contains("\n  FAILED   table public.outbox_events\n           WR-6504: "), "{out}");
        assert!(out.contains("  ok       wal_level: logical\n"), "{out}");
        assert!(out.contains("setup --apply --with-outbox`"), "{out}");
        assert!(!out.contains('\x1b'), "{out}");
        let long = |line: &&str| line.chars().count() > columns && line.trim().contains(' ') && !line.contains('`');
        let long: Vec<&str> = out.lines().filter(long).collect();
        // A status and a name without a space stay on one line.
        assert!(long.iter().all(|line| line.starts_with("  ") && columns == 40), "{long:#?}");
    }
    let colored = program.verb(&["--color", "always", "check"]);
    assert!(colored.out.contains("\x1b[31mFAILED\x1b[0m"), "{}", colored.out);
    let script = format!(
        "set -o pipefail; '{}' --config '{}' check | head -1",
        program::path().display(),
        program.folder().join("config.toml").display()
    );
    let piped = Command::new("bash").args(["-c", &script]).output().unwrap();
    let notes = String::from_utf8_lossy(&piped.stderr);
    assert!(!notes.contains("panicked"), "{notes}");
}

#[test]
fn a_warning_fails_only_with_strict_and_a_check_can_wait_for_what_is_missing() {
    let (postgres, broker) = (Postgres::start(Options::default()).unwrap(), Broker::start(1).unwrap());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let mut waiting = program.command(&["check", "--wait", "60s", "-o", "json"]).spawn().unwrap();
    program.setup();
    assert_eq!(waiting.wait().unwrap().code(), Some(0), "it passes as soon as the set-up is complete");
    assert_eq!(program.verb(&["check"]).code, Some(0));
    assert_eq!(report(&program, &[])["counts"]["warning"], 2);
    assert_eq!(program.verb(&["check", "--strict"]).code, Some(1), "no limit of retained WAL, and a superuser");
    assert_eq!(program.verb(&["check", "--wait", "soon"]).code, Some(2));
    program.edit("[kafka]", "[kafak]");
    assert_eq!(program.verb(&["check"]).code, Some(64));
}

#[test]
fn run_with_check_refuses_to_start_with_the_code_of_the_first_failure() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "[log]\nformat = \"json\"\n");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.run("ALTER PUBLICATION walrelay SET (publish = 'update')");
    let ended = program.verb(&["run", "--check"]);
    assert_eq!(ended.code, Some(65), "{}", ended.notes);
    let last = ended.notes.lines().last().unwrap();
    assert!(last.contains("WR-6503") && last.contains("checks failed"), "{last}");
    assert!(ended.notes.contains("\"check\":\"publication walrelay\""), "{}", ended.notes);
    assert!(!ended.notes.contains("walrelay starts"), "{}", ended.notes);
}
