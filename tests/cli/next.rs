//! The last line of the program: a record of the log, and a next step that was tried.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use walrelay::testing::Broker;
use walrelay::testing::Options;
use walrelay::testing::Postgres;
use walrelay::testing::StopMode;

use crate::support::program::Program;
use crate::support::source::Sql;

/// Runs the relay to its end; gives the exit code and the last record.
fn last(program: &mut Program) -> (Option<i32>, Value) {
    program.start();
    let code = program.wait();
    let log = program.log();
    let line = log.lines().last().unwrap_or_default();
    let record = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    (code, record)
}

fn next(record: &Value) -> &str {
    record["next"].as_str().unwrap()
}

/// Gives the first command in a text that begins with this word.
fn command(text: &str, word: &str) -> String {
    text.split('`').find(|part| part.starts_with(word)).unwrap_or_else(|| panic!("no {word} in {text}")).to_owned()
}

#[test]
fn the_error_that_ends_the_program_is_a_record_of_each_format_with_code_and_next() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    for (format, parts) in [
        ("json", ["\"level\":\"ERROR\"", "\"code\":\"WR-6504\"", "\"next\":\"create it (`walrelay --config /"]),
        ("logfmt", ["level=error", "code=WR-6504", "next=\"create it (`walrelay --config /"]),
        ("pretty", ["ERROR", "code=WR-6504", "\n  next: create it (`walrelay --config /"]),
    ] {
        let more = format!("[log]\nformat = \"{format}\"\n");
        let mut program = Program::new(&postgres.url(), &broker.bootstrap(), &more);
        program.start();
        assert_eq!(program.wait(), Some(65), "{}", program.log());
        let log = program.log();
        // The pretty one has its next step on a line of its own.
        let last: Vec<&str> = log.lines().rev().take(2).collect();
        let record = format!("{}\n{}", last[1], last[0]).to_lowercase();
        assert!(parts.iter().all(|part| record.contains(&part.to_lowercase())), "{format}: {record}");
        assert!(!log.contains("error[WR"), "{log}");
    }
}

#[test]
fn a_next_step_about_the_server_the_database_or_its_rights_does_fix_it() {
    let options = Options {
        settings: vec!["wal_level = replica".into(), "max_replication_slots = 1".into()],
        hba: vec!["host all relay 127.0.0.1/32 scram-sha-256".into()],
        ..Options::default()
    };
    let postgres = Postgres::start(options).unwrap();
    let broker = Broker::start(1).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE relay LOGIN REPLICATION PASSWORD 'right'");

    let admin = Program::new(&postgres.url_of("shop"), &broker.bootstrap(), "");
    let setup = |words: &[&str]| admin.verb(&[&["setup", "--apply", "--with-outbox"], words].concat());
    let ended = setup(&[]);
    assert!(ended.code == Some(65) && ended.notes.contains("create the database"), "{}", ended.notes);
    sql.run("CREATE DATABASE shop");

    let ended = setup(&[]);
    assert_eq!(ended.code, Some(65), "{}", ended.notes);
    sql.run(&command(&ended.notes, "ALTER SYSTEM SET wal_level"));
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();

    let sql = Sql::connect(&postgres.url_of("shop"));
    sql.run("SELECT pg_create_physical_replication_slot('other')");
    let ended = setup(&[]);
    assert!(ended.notes.contains("SQLSTATE 53400"), "{}", ended.notes);
    sql.run(&command(&ended.notes, "ALTER SYSTEM SET max_replication_slots"));
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();

    let sql = Sql::connect(&postgres.url_of("shop"));
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'test_decoding')");
    let ended = setup(&[]);
    assert!(ended.code == Some(65) && ended.notes.contains("test_decoding"), "{}", ended.notes);
    sql.run(&command(&ended.notes, "SELECT pg_drop_replication_slot"));
    let ended = setup(&[]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);

    let url = format!("postgres://relay@127.0.0.1:{}/shop", postgres.port());
    let mut program = Program::new(&url, &broker.bootstrap(), "[log]\nformat = \"json\"\n");
    let secret = program.folder().join("secret");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let config = program.folder().join("config.toml");
    let text =
        fs::read_to_string(&config).unwrap().replace("[postgres]\n", "[postgres]\npassword = { file = \"secret\" }\n");
    fs::write(&config, text).unwrap();
    let (code, record) = last(&mut program);
    assert_eq!((code, record["code"].as_str()), (Some(67), Some("WR-6705")), "{record}");
    assert_eq!(next(&record), format!("write the secret into the file {}", secret.display()));
    fs::write(&secret, "right\n").unwrap();

    let (code, record) = last(&mut program);
    assert_eq!(code, Some(71), "{record}");
    sql.run(&command(next(&record), "GRANT USAGE ON SCHEMA walrelay TO \"relay\""));
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
