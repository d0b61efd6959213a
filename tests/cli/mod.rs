//! The program as a user runs it.

mod check;
mod init;
mod next;
mod page;
mod peek;
mod setup;
mod setup_refusals;
mod signals;
mod status;
mod systemd;
mod tail;
mod teardown;

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program;
use crate::support::program::Program;
use crate::support::source::Sql;

/// A program without Kafka: the verbs end before they need it.
fn program(url: &str, more: &str) -> Program {
    Program::new(url, "127.0.0.1:1", more)
}

fn walrelay(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program::command(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demo_prints_what_a_consumer_reads_and_ends_by_itself() {
    let (code, out, notes) = walrelay(&["demo", "--orders", "4"]);
    assert_eq!(code, Some(0), "{notes}");
    assert_eq!(out.matches("event_type: OrderCreated").count(), 4, "{out}");
    assert_eq!(out.matches("event_type: OrderShipped").count(), 2, "{out}");
    assert!(out.contains("order-events[") && !out.contains('\x1b'), "{out}");

    let (code, out, notes) = walrelay(&["demo", "--orders", "2", "-o", "json"]);
    assert_eq!(code, Some(0), "{notes}");
    let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["key"], "o-1");
    assert_eq!(records[0]["headers"]["event_type"], "OrderCreated");
}

#[test]
fn ctrl_c_ends_the_demo_with_130_and_leaves_nothing_behind() {
    let folder = std::env::temp_dir().join(format!("walrelay-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut demo = program::command(&["demo", "--orders", "100000"])
        .env("TMPDIR", &folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(demo.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(notes.any(|note| note.contains("the relay is running")), "orders are being written from here on");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let rest: Vec<String> = notes.collect();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{rest:?}");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn the_manual_has_a_page_for_each_command_and_the_exit_codes() {
    let (code, page, notes) = walrelay(&["man"]);
    assert_eq!(code, Some(0), "{notes}");
    for expected in [".TH walrelay 1", ".SH \"EXIT STATUS\"", "\\fB66\\fR", "walrelay\\-teardown(1)", "\\-\\-config"] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
    let (_, page, _) = walrelay(&["man", "dlq", "list"]);
    assert!(page.contains(".TH walrelay-dlq-list 1") && page.contains("\\-\\-since"), "{page}");
    let (code, page, notes) = walrelay(&["man", "dlq", "lost"]);
    assert_eq!((code, page.as_str()), (Some(2), ""));
    assert!(notes.contains("there is no command \"dlq lost\""), "{notes}");
}

#[test]
fn a_full_output_is_an_error_with_a_code() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = program::command(&["version"]).stdout(full).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{notes}");
    assert!(notes.contains("error[WR-6942]"), "{notes}");
}

#[test]
fn a_code_is_explained_however_it_is_written_and_an_unknown_one_is_a_mistake_of_usage() {
    for code in ["WR-6611", "wr-6611", "6611"] {
        let (exit, out, notes) = walrelay(&["explain", code]);
        assert_eq!(exit, Some(0), "{notes}");
        for expected in ["WR-6611: slot is ahead of the stored position\n", "\n  next: ", "\n  exit code: 66, "] {
            assert!(out.contains(expected), "{expected} in {out}");
        }
        assert!(out.lines().all(|line| line.contains('`') || line.chars().count() <= 100), "{out}");
    }
    let (exit, out, _) = walrelay(&["explain"]);
    assert!(exit == Some(0) && out.lines().count() > 100 && out.contains("WR-6401  mistakes in the configuration\n"));
    let (_, out, _) = walrelay(&["explain", "6611", "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["code"], &json["exit_code"]), (&"WR-6611".into(), &66.into()));
    let (_, out, _) = walrelay(&["explain", "-o", "json"]);
    assert!(serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len() > 100);
    let (exit, out, notes) = walrelay(&["explain", "WR-6613"]);
    assert_eq!((exit, out.as_str()), (Some(2), ""));
    assert!(notes.contains("unknown code \"WR-6613\"") && notes.contains("WR-6612 ("), "{notes}");
}

#[test]
fn a_closed_output_is_no_error() {
    let program = program::path();
    let program = program.display();
    let script =
        format!("set -o pipefail; '{program}' completions bash | head -1; '{program}' demo --orders 30 | head -1");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !notes.contains("panicked"), "{notes}");
}

#[test]
fn three_mistakes_are_reported_at_once_with_64() {
    let more = "[shutdown]\ndrian = \"20s\"\n\n[source]\ndisconnect_on_stall_after = 30\n\n[log]\nformat = \"jsno\"\n";
    let ended = program("postgres://postgres@127.0.0.1:1/postgres", more).verb(&["run"]);
    assert_eq!(ended.code, Some(64));
    for expected in ["did you mean `drain`?", "a duration with its unit", "did you mean `json`?", "config.toml:12:1"] {
        assert!(ended.notes.contains(expected), "{expected} in {}", ended.notes);
    }
}

#[test]
fn a_missing_object_is_an_error_with_the_next_step() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = walrelay_events::testing::Broker::start(1).unwrap();
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let mut run = |code: i32, expected: &[&str]| {
        program.start();
        assert_eq!(program.wait(), Some(code), "{}", program.log());
        let log = program.log();
        let said = log.lines().last().unwrap();
        expected.iter().for_each(|text| assert!(said.contains(text), "{text} in {said}"));
    };
    let sql = Sql::connect(&postgres.url());
    run(65, &["WR-6504", "table public.outbox_events does not exist", "setup --apply --with-outbox"]);
    sql.run(include_str!("../../sql/outbox.sql"));
    run(65, &["WR-6502", "publication \\\"walrelay\\\" does not exist", "`walrelay --config /"]);
    sql.run("CREATE PUBLICATION walrelay FOR TABLE outbox_events");
    run(65, &["WR-6503", "ALTER PUBLICATION \\\"walrelay\\\" SET (publish = 'insert')"]);
    sql.run("ALTER PUBLICATION walrelay SET (publish = 'insert', publish_via_partition_root = true)");
    run(66, &["WR-6601", "replication slot \\\"walrelay\\\" does not exist", "`walrelay --config /"]);
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput')");
    run(71, &["stored position", "`walrelay --config /"]);
}

#[test]
fn setup_for_a_missing_role_fails_with_the_next_step_before_it_creates_anything() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = Program::new(&postgres.url(), "127.0.0.1:1", "");
    let ended = program.verb(&["setup", "--apply", "--with-outbox", "--role", "relay"]);
    assert_eq!(ended.code, Some(67), "{}", ended.notes);
    assert!(ended.notes.contains("CREATE ROLE \"relay\" LOGIN REPLICATION"), "{}", ended.notes);
    let sql = Sql::connect(&postgres.url());
    assert_eq!(sql.text("SELECT count(*)::text FROM pg_replication_slots"), "0");
    sql.run("CREATE ROLE relay LOGIN REPLICATION");
    let ended = program.verb(&["setup", "--apply", "--with-outbox", "--role", "relay"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
}

#[test]
fn e11_a_wrong_password_ends_with_67_after_three_attempts() {
    let options = Options::default().with_hba(vec!["host all relay 127.0.0.1/32 scram-sha-256".into()]);
    let postgres = Postgres::start(options).unwrap();
    Sql::connect(&postgres.url()).run("CREATE ROLE relay LOGIN REPLICATION PASSWORD 'right'");
    let broker = walrelay_events::testing::Broker::start(1).unwrap();
    let url = format!("postgres://relay:wrong@127.0.0.1:{}/postgres", postgres.port());
    let mut program = Program::new(&url, &broker.bootstrap(), "");
    program.start();
    assert_eq!(program.wait(), Some(67), "{}", program.log());
    assert!(program.log().contains("28P01") && !program.log().contains("wrong@"), "{}", program.log());
}

#[test]
fn a_password_in_the_url_of_the_command_line_has_precedence_over_the_file() {
    let options = Options::default().with_hba(vec!["host all owner 127.0.0.1/32 scram-sha-256".into()]);
    let postgres = Postgres::start(options).unwrap();
    Sql::connect(&postgres.url()).run("CREATE ROLE owner SUPERUSER LOGIN PASSWORD 'right'");
    let url = format!("postgres://owner@127.0.0.1:{}/postgres", postgres.port());
    let program = program(&url, "[postgres.password]\nfile = \"password\"\n");
    std::fs::write(program.folder().join("password"), "wrong\n").unwrap();
    let setup = ["setup", "--apply", "--with-outbox"];
    assert_eq!(program.verb(&setup).code, Some(67));
    let set = format!("postgres.url=postgres://owner:right@127.0.0.1:{}/postgres", postgres.port());
    let ended = program.verb(&[&["--set", &set][..], &setup].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    // The environment is a later layer than the file as well.
    let output =
        program.command(&setup).env("WALRELAY_POSTGRES__URL", set.replace("postgres.url=", "")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn validate_looks_into_the_files_that_run_waits_for() {
    let more = "[postgres.password]\nfile = \"absent\"\n\n[[outbox]]\ntopic = \"order events\"\n";
    let program = program("postgres://app@127.0.0.1:1/shop", more);
    let ended = program.verb(&["config", "validate"]);
    assert_eq!(ended.code, Some(64), "{}", ended.notes);
    for expected in ["error[WR-6401]: 2 mistakes", "/absent: No such file", "invalid topic name \"order events\""] {
        assert!(ended.notes.contains(expected), "{expected} in {}", ended.notes);
    }
    program.edit("order events", "order-events");
    assert_eq!(program.verb(&["config", "validate"]).code, Some(64));
    assert_eq!(program.verb(&["config", "validate", "--without-files"]).code, Some(0));
}

#[test]
fn a15_b2_a_moved_or_recreated_slot_stops_with_66() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = walrelay_events::testing::Broker::start(1).unwrap();
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    sql.text("SELECT end_lsn::text FROM pg_replication_slot_advance('walrelay', pg_current_wal_lsn())");
    program.start();
    assert_eq!(program.wait(), Some(66), "{}", program.log());
    assert!(program.log().contains("WR-6611"), "{}", program.log());
    sql.run("SELECT pg_drop_replication_slot('walrelay')");
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(66), "setup does not paper over it: {}", ended.notes);
    let ended = program.verb(&["setup", "--apply", "--accept-gap"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
}

#[test]
fn a10_after_a_dump_and_restore_the_gap_can_be_accepted() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = walrelay_events::testing::Broker::start(1).unwrap();
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    program.setup();
    // A dump has the row of another cluster, whose WAL was further ahead.
    Sql::connect(&postgres.url()).run("UPDATE walrelay.position SET system_id = '1', position = 'FF/0'");
    program.start();
    assert_eq!(program.wait(), Some(66), "{}", program.log());
    let ended = program.verb(&["setup", "--apply"]);
    assert_eq!(ended.code, Some(66), "setup does not paper over it: {}", ended.notes);
    assert!(ended.notes.contains("WR-6610") && ended.notes.contains("--accept-gap"), "{}", ended.notes);
    let ended = program.verb(&["setup", "--apply", "--accept-gap"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    program.start_streaming();
}

#[test]
fn setup_prints_sql_that_does_what_apply_does_and_apply_may_be_repeated() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let one = program(&postgres.url(), "");
    let printed = one.verb(&["setup", "--with-outbox"]);
    assert_eq!(printed.code, Some(0), "{}", printed.notes);
    let file = one.folder().join("setup.sql");
    std::fs::write(&file, &printed.out).unwrap();
    let psql = Command::new(postgres.programs().join("psql"))
        .args([&postgres.url(), "-v", "ON_ERROR_STOP=1", "-f", &file.display().to_string()])
        .output()
        .unwrap();
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    // Existing objects are adopted, and nothing is created twice.
    for _ in 0..2 {
        let ended = one.verb(&["setup", "--apply"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
        assert!(
            ended.notes.contains("slot walrelay exists") && ended.notes.contains("stored position"),
            "{}",
            ended.notes
        );
    }
}

#[test]
fn the_configuration_shows_without_its_secrets_and_reads_back() {
    let one = program("postgres://app:hunter2@127.0.0.1:1/shop", "[shutdown]\ndrain = \"7s\"\n");
    let shown = one.verb(&["--set", "log.level=debug", "config", "show"]);
    assert_eq!(shown.code, Some(0), "{}", shown.notes);
    assert!(!shown.out.contains("hunter2"), "{}", shown.out);
    assert!(shown.out.contains("drain = \"7s\"  # ") && shown.out.contains("level = \"debug\"  # --set log.level"));
    let json: Value = serde_json::from_str(&one.verb(&["config", "show", "-o", "json"]).out).unwrap();
    assert_eq!(json["shutdown.drain"]["value"], "7s");
    assert_eq!(one.verb(&["config", "validate"]).code, Some(0));
}

#[test]
fn a_running_relay_answers_its_healthcheck_and_a_stopped_one_does_not() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = walrelay_events::testing::Broker::start(1).unwrap();
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    program.setup();
    assert_eq!(program.verb(&["healthcheck"]).code, Some(1));
    program.start_streaming();
    assert_eq!(program.verb(&["healthcheck"]).code, Some(0));
    assert_eq!(program.verb(&["healthcheck", "--ready"]).code, Some(0));
    let (status, metrics) = program.get("/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("walrelay_state{") && metrics.contains("process_resident_memory_bytes"));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}
