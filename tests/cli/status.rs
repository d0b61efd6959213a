//! An operator sees how the relay is with one command, whatever is broken.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::source::Sql;

/// A program that is set up, and its servers.
struct Stage {
    postgres: Postgres,
    broker: Broker,
    program: Program,
    sql: Sql,
}

impl Stage {
    fn new(options: Options) -> Self {
        let (postgres, broker) = (Postgres::start(options).unwrap(), Broker::start(1).unwrap());
        let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
        program.setup();
        let sql = Sql::connect(&postgres.url());
        Self { postgres, broker, program, sql }
    }
}

fn json(program: &Program, code: i32) -> Value {
    let ended = program.verb(&["status", "-o", "json"]);
    assert_eq!(ended.code, Some(code), "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

/// The value of a line of the screen.
fn line<'a>(ended: &'a Ended, label: &str) -> &'a str {
    let found = ended.out.lines().find_map(|line| line.strip_prefix(label));
    found.unwrap_or_else(|| panic!("no {label} in {ended:?}")).trim()
}

#[test]
fn a_relay_that_runs_is_asked_itself_and_0_means_that_it_is_well() {
    let Stage { postgres: _postgres, broker, mut program, sql } = Stage::new(Options::default());
    broker.create_topic("order-events", 1).unwrap();
    program.start_streaming();
    sql.run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
         VALUES ('Order', 'o-1', 'OrderCreated', '{}')",
    );
    program.await_that("the event", |program| program.metric("walrelay_events_published_total") == Some(1.0));
    program.await_that("a sample of the slot", |program| program.metric("walrelay_slot_active") == Some(1.0));
    let ended = program.verb(&["status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(line(&ended, "relay").starts_with("walrelay: streaming for "), "{ended:?}");
    assert!(line(&ended, "published").starts_with("1 event, "), "{ended:?}");
    assert!(line(&ended, "slot").starts_with("walrelay: in use by PID "), "{ended:?}");
    assert!(line(&ended, "safe WAL").starts_with("no limit"), "{ended:?}");
    let report = json(&program, 0);
    assert_eq!((&report["well"], &report["postgres"]), (&true.into(), &Value::Null), "{report}");
    assert_eq!(report["relay"]["status"]["published"]["order-events"]["events"], 1, "{report}");
    assert_eq!(report["relay"]["status"]["slot_view"]["wal_status"], "reserved", "{report}");

    // Kafka is down: the relay runs, and is not well.
    broker.take_down(1).unwrap();
    program.await_that("a stall", |program| program.get("/readyz").is_some_and(|(status, _)| status == 503));
    let report = json(&program, 1);
    let reasons = report["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason.as_str().unwrap().starts_with("not ready: ")), "{report}");
    assert!(line(&program.verb(&["status"]), "not well").starts_with("not ready: "));

    // The address belongs to a relay of another configuration.
    program.edit("[http]", "[relay]\nname = \"stock\"\n[http]");
    let ended = program.verb(&["status"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(line(&ended, "not well").contains("not the one of this configuration"), "{ended:?}");
}

#[test]
fn of_a_relay_that_does_not_run_postgresql_says_what_it_knows_to_the_relays_own_role() {
    let options = Options::default().with_settings(vec!["max_slot_wal_keep_size = '512MB'".into()]);
    let Stage { postgres, broker: _broker, mut program, sql } = Stage::new(options);
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run("CREATE ROLE relay LOGIN REPLICATION");
    let granted = program.verb(&["setup", "--apply", "--role", "relay"]);
    assert_eq!(granted.code, Some(0), "{granted:?}");
    program.edit("postgres://postgres@", "postgres://relay@");
    let ended = program.verb(&["status"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(line(&ended, "relay"), "walrelay: not running");
    assert!(ended.out.contains("http.listen 127.0.0.1:") && ended.out.contains("refused"), "{ended:?}");
    assert_eq!(line(&ended, "slot"), "walrelay: not in use, wal_status reserved");
    assert!(line(&ended, "position").ends_with(" ago, after an orderly stop"), "{ended:?}");
    assert_eq!(line(&ended, "publication"), "walrelay: exists, 1 table");
    assert!(line(&ended, "safe WAL").contains(" more may invalidate the slot"), "{ended:?}");
    assert!(ended.out.contains("next: start it with `walrelay --config /"), "{ended:?}");

    // WAL is written meanwhile: one more sample gives the growth, and the time until invalidation.
    let url = postgres.url();
    let writer = thread::spawn(move || {
        let sql = Sql::connect(&url);
        for _ in 0..60 {
            sql.run("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1 << 20))");
            thread::sleep(Duration::from_millis(50));
        }
    });
    let report = json(&program, 1);
    writer.join().unwrap();
    let slot = &report["postgres"]["slot"];
    assert!(slot["retained_wal_growth_bytes_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert!(slot["seconds_to_invalidation"].as_f64().unwrap() > 0.0, "{report}");
    let reasons = serde_json::json!(["not running", "the slot may be invalidated soon"]);
    assert_eq!(report["reasons"], reasons, "{report}");
    assert_eq!(slot["confirmed_flush_lsn"], report["postgres"]["position"]["lsn"], "{report}");
    assert_eq!((&report["relay"]["running"], &slot["error"]), (&false.into(), &Value::Null), "{report}");

    // A part that cannot be read does not hide the others.
    let locked = Sql::connect(&postgres.url());
    locked.run("BEGIN; LOCK TABLE walrelay.position");
    let ended = program.verb(&["status"]);
    assert!(line(&ended, "position").contains("57014"), "{ended:?}");
    assert_eq!(line(&ended, "publication"), "walrelay: exists, 1 table");
    locked.run("ROLLBACK");
    sql.run("REVOKE ALL ON walrelay.position FROM relay");
    let ended = program.verb(&["status"]);
    assert!(line(&ended, "position").starts_with("WR-7101: "), "{ended:?}");
    assert!(ended.out.contains("GRANT USAGE ON SCHEMA walrelay TO \"relay\""), "{ended:?}");
}

#[test]
fn of_a_polling_relay_that_does_not_run_the_backlog_is_shown() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE poller LOGIN");
    let program = Program::new(&postgres.url(), "127.0.0.1:1", "[source]\nmode = \"poll\"\n");
    let ended = program.verb(&["setup", "--apply", "--with-outbox", "--role", "poller"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    sql.run(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
         SELECT 'Order', 'o-1', 'OrderCreated', '{}' FROM generate_series(1, 3)",
    );
    program.edit("postgres://postgres@", "postgres://poller@");
    let ended = program.verb(&["status"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(line(&ended, "unpublished"), "3 events");
    assert!(!ended.out.contains("slot"), "{ended:?}");

    // The table will get another name.
    let renamed = "[source]\nmode = \"poll\"\n[[outbox]]\ntable = \"public.events\"\nrenamed_from = \
                   [\"public.outbox_events\"]\ntopic = \"order-events\"\n";
    let ended = Program::new(&postgres.url().replace("postgres@", "poller@"), "127.0.0.1:1", renamed).verb(&["status"]);
    assert_eq!(line(&ended, "unpublished"), "3 events");
    sql.run("REVOKE SELECT ON outbox_events FROM poller");
    let report = json(&program, 1);
    let problem = &report["postgres"]["unpublished"]["error"];
    assert!(problem["text"].as_str().unwrap().contains("42501"), "{report}");
    assert_eq!(report["postgres"]["slot"], Value::Null, "{report}");
}

#[test]
fn each_missing_object_is_named_with_its_code_and_next_step() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = Program::new(&postgres.url(), "127.0.0.1:1", "");
    let ended = program.verb(&["status"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for (label, code) in [("slot", "WR-6601: "), ("position", "WR-7101: "), ("publication", "WR-6502: ")] {
        assert!(line(&ended, label).starts_with(code), "{label}: {ended:?}");
    }
    assert!(ended.out.contains("`walrelay --config /"), "{ended:?}");
    let report = json(&program, 1);
    assert_eq!(report["postgres"]["connected"], true);
    assert_eq!(report["postgres"]["slot"]["error"]["code"], "WR-6601", "{report}");
}

#[test]
fn an_invalidated_slot_is_lost_with_the_servers_reason() {
    let settings = ["max_slot_wal_keep_size = '16MB'", "max_wal_size = '64MB'", "min_wal_size = '32MB'"];
    let stage = Stage::new(Options::default().with_settings(settings.map(str::to_owned).to_vec()));
    let status = || stage.sql.text("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'walrelay'");
    for _ in 0..30 {
        stage.sql.run("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1 << 24))");
        stage.sql.run("SELECT pg_switch_wal()");
        stage.sql.run("CHECKPOINT");
    }
    assert_eq!(status(), "lost");
    let ended = stage.program.verb(&["status"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(line(&ended, "slot").starts_with("walrelay: not in use, wal_status lost"), "{ended:?}");
    assert!(ended.out.contains("WR-6602: ") && ended.out.contains("pg_drop_replication_slot"), "{ended:?}");
    let slot = &json(&stage.program, 1)["postgres"]["slot"];
    let version: u32 = stage.sql.text("SELECT current_setting('server_version_num')").parse().unwrap();
    let reason = if version >= 170_000 { Value::from("wal_removed") } else { Value::Null };
    assert_eq!((&slot["invalidation_reason"], &slot["seconds_to_invalidation"]), (&reason, &Value::Null), "{slot}");
    assert_eq!(slot["error"]["code"], "WR-6602", "{slot}");
}

#[test]
fn a_wrong_password_is_named_and_not_shown_and_a_server_that_is_down_too() {
    let options = Options::default().with_hba(vec!["host all relay 127.0.0.1/32 scram-sha-256".into()]);
    let postgres = Postgres::start(options).unwrap();
    Sql::connect(&postgres.url()).run("CREATE ROLE relay LOGIN REPLICATION PASSWORD 'right'");
    let url = format!("postgres://relay:hunter2@127.0.0.1:{}/postgres", postgres.port());
    let program = Program::new(&url, "127.0.0.1:1", "");
    for format in ["human", "json"] {
        let ended = program.verb(&["status", "-o", format]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out.contains("28P01") && ended.out.contains("not running"), "{ended:?}");
        assert!(!ended.out.contains("hunter2") && !ended.notes.contains("hunter2"), "{ended:?}");
    }
    drop(postgres);
    let ended = program.verb(&["status"]);
    assert!(line(&ended, "postgres").contains("refused"), "{ended:?}");
    assert!(ended.out.contains("slot, position and publication cannot be read"), "{ended:?}");
}

#[test]
fn the_screen_fits_any_terminal_and_only_a_terminal_is_cleared() {
    let Stage { postgres: _postgres, program, .. } = Stage::new(Options::default());
    for columns in [40, 80] {
        let output = program.command(&["status"]).env("COLUMNS", columns.to_string()).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let wide: Vec<&str> = out.lines().filter(|line| !line.starts_with("  next: ")).collect();
        assert!(wide.len() > 5 && wide.iter().all(|line| line.chars().count() <= columns), "{out}");
    }
    // A real terminal.
    let path = format!("'{}'", program::path().display());
    let config = program.folder().join("config.toml");
    let verb = format!("{path} --config '{}' status --watch 200ms", config.display());
    let script = format!("stty rows 24 cols 40; timeout 4 {verb}");
    let seen = Command::new("script").args(["-qec", &script, "/dev/null"]).env_remove("COLUMNS").output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.matches("\x1b[2J").count() > 1 && seen.contains("not running"), "{seen}");
    let wide = seen.lines().map(|line| line.rsplit('\x1b').next().unwrap_or_default().trim_end());
    assert!(wide.filter(|line| !line.starts_with("  next: ")).all(|line| line.chars().count() <= 45), "{seen}");

    // A pipe gets blocks, and its reader may leave at any time.
    let script = format!("set -o pipefail; {verb} | head -40");
    let output = Command::new("bash").args(["-c", &script]).env_remove("COLUMNS").output().unwrap();
    let (out, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !notes.contains("panicked"), "{notes}");
    assert!(out.matches("walrelay: not running").count() > 1 && !out.contains('\x1b'), "{out}");
    let script = format!("set -o pipefail; {verb} -o json | head -2");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let reports: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((output.status.code(), reports.len()), (Some(0), 2));
    assert_eq!(program.verb(&["status", "--watch", "5"]).code, Some(2), "a unit is missing");
}
