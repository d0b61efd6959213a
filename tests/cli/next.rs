//! The last line of the program: a log record with a next step, and that the next step works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::support::program;
use crate::support::program::Program;
use crate::support::program::paste;
use crate::support::program::printed;
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

#[test]
fn the_error_that_ends_the_program_is_a_log_record_of_each_format_with_code_and_next() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    for (format, parts) in [
        ("json", ["\"level\":\"ERROR\"", "\"code\":\"WR-6504\"", "\"next\":\"create it with `walrelay --config /"]),
        ("logfmt", ["level=error", "code=WR-6504", "next=\"create it with `walrelay --config /"]),
        ("pretty", ["ERROR", "code=WR-6504", "\n  next: create it with `walrelay --config /"]),
    ] {
        let more = format!("[log]\nformat = \"{format}\"\n");
        let mut program = Program::new(&postgres.url(), &broker.bootstrap(), &more);
        program.start();
        assert_eq!(program.wait(), Some(65), "{}", program.log());
        let log = program.log();
        // In the pretty format the next step is on a line of its own.
        let last: Vec<&str> = log.lines().rev().take(2).collect();
        let record = format!("{}\n{}", last[1], last[0]).to_lowercase();
        assert!(parts.iter().all(|part| record.contains(&part.to_lowercase())), "{format}: {record}");
        assert!(!log.contains("error[WR"), "{log}");
    }
}

#[test]
fn a_next_step_about_the_server_the_database_or_privileges_works() {
    let options = Options::default()
        .with_settings(vec!["wal_level = replica".into(), "max_replication_slots = 1".into()])
        .with_hba(vec!["host all relay 127.0.0.1/32 scram-sha-256".into()]);
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
    sql.run(&printed(&ended.notes, "ALTER SYSTEM SET wal_level"));
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();

    let sql = Sql::connect(&postgres.url_of("shop"));
    sql.run("SELECT pg_create_physical_replication_slot('other')");
    let ended = setup(&[]);
    assert!(ended.notes.contains("all 1 replication slots of the server are in use"), "{}", ended.notes);
    sql.run(&printed(&ended.notes, "ALTER SYSTEM SET max_replication_slots"));
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();

    let sql = Sql::connect(&postgres.url_of("shop"));
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'test_decoding')");
    let ended = setup(&[]);
    assert!(ended.code == Some(65) && ended.notes.contains("test_decoding"), "{}", ended.notes);
    sql.run(&printed(&ended.notes, "SELECT pg_drop_replication_slot"));
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
    sql.run(&printed(next(&record), "GRANT USAGE ON SCHEMA walrelay TO \"relay\""));
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn a_next_step_about_a_column_works_at_setup_and_at_start() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    let sql = Sql::connect(&postgres.url());
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\npartition = \"shard\"\n";
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), outbox);
    sql.run(include_str!("../../sql/outbox.sql"));
    sql.run("ALTER TABLE outbox_events ADD COLUMN shard int");
    program.setup();
    for wrong in [
        "DROP COLUMN payload",
        "DROP COLUMN event_type",
        "DROP COLUMN shard",
        "ALTER COLUMN aggregate_id TYPE numeric USING NULL",
        "ALTER COLUMN payload TYPE xml USING NULL",
        "ALTER COLUMN headers TYPE text[] USING NULL",
        "ALTER COLUMN shard TYPE text",
    ] {
        sql.run(&format!("ALTER TABLE outbox_events {wrong}"));
        let ended = program.verb(&["setup", "--apply"]);
        assert_eq!(ended.code, Some(65), "{wrong}: {}", ended.notes);
        let (code, record) = last(&mut program);
        assert_eq!((code, record["code"].as_str()), (Some(65), Some("WR-6504")), "{wrong}: {record}");
        let remedy = printed(next(&record), "ALTER TABLE");
        assert_eq!(remedy, printed(&ended.notes, "ALTER TABLE"), "{wrong}");
        sql.run(&remedy);
        program.start_streaming();
        assert_eq!(program.terminate(), Some(0), "{wrong}: {}", program.log());
    }
}

#[test]
fn a_privilege_on_the_position_that_is_revoked_at_run_time_is_an_error_with_role_and_grant() {
    let hba = vec!["host all \"the relay\" 127.0.0.1/32 scram-sha-256".into()];
    let postgres = Postgres::start(Options::default().with_hba(hba)).unwrap();
    let broker = Broker::start(1).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE \"the relay\" LOGIN REPLICATION PASSWORD 'right'");
    let admin = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let ended = admin.verb(&["setup", "--apply", "--with-outbox", "--role", "the relay"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    sql.prepare();
    broker.create_topic("order-events", 1).unwrap();
    let url = format!("postgres://the%20relay:right@127.0.0.1:{}/postgres", postgres.port());
    let mut program = Program::new(&url, &broker.bootstrap(), "[log]\nformat = \"json\"\n");
    for revoke in [
        "REVOKE UPDATE ON walrelay.position FROM \"the relay\"",
        "REVOKE ALL ON walrelay.position FROM \"the relay\"",
        "REVOKE USAGE ON SCHEMA walrelay FROM \"the relay\"",
    ] {
        program.start_streaming();
        sql.run(revoke);
        sql.run("SELECT emit('k1')");
        assert_eq!(program.wait(), Some(71), "{revoke}: {}", program.log());
        let log = program.log();
        let record: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert!(record["error"].as_str().unwrap().contains("\"the relay\""), "{revoke}: {record}");
        sql.run(&printed(next(&record), "GRANT USAGE ON SCHEMA walrelay TO \"the relay\""));
    }
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn a_printed_command_has_the_file_and_every_set_and_can_be_pasted_into_a_shell() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    let sql = Sql::connect(&postgres.url());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let folder = program.folder().join("it's $HOME");
    fs::create_dir(&folder).unwrap();
    let config = folder.join("my \"config\".toml");
    fs::rename(program.folder().join("config.toml"), &config).unwrap();
    let publication = "it's a \"$(name)\" \\ * #1";
    let sets =
        [format!("source.publication={publication}"), "source.slot=other".to_owned(), "relay.name=a;b".to_owned()];
    let run = |format: &str| {
        let mut command = program::command(&["--config", &config.display().to_string(), "run"]);
        sets.iter().for_each(|set| _ = command.args(["--set", set]));
        command.args(["--set", &format!("log.format={format}")]).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    };
    // A missing table, then a lost position: each prints a command.
    for (code, word) in [(65, "setup --apply --with-outbox"), (66, "setup --apply --accept-gap")] {
        let ended = run("json").output().unwrap();
        let notes = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{notes}");
        let record: Value = serde_json::from_str(notes.lines().last().unwrap()).unwrap();
        let next = printed(next(&record), "walrelay ");
        assert!(next.ends_with(word), "{next}");
        // In the pretty format it is on a line of its own.
        let ended = run("pretty").output().unwrap();
        let notes = String::from_utf8_lossy(&ended.stderr).replace("log.format=pretty", "log.format=json");
        assert!(notes.contains(&format!("`{next}`")), "{next}: {notes}");
        let pasted = paste(&next);
        assert_eq!(pasted.code, Some(0), "{next}: {}", pasted.notes);
        if code == 65 {
            assert_eq!(sql.text("SELECT pubname::text FROM pg_publication"), publication);
            assert_eq!(sql.text("SELECT slot_name::text FROM pg_replication_slots"), "other");
            sql.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
            sql.run("SELECT pg_replication_slot_advance('other', pg_current_wal_lsn())");
        }
    }
    let mut fixed = run("json").spawn().unwrap();
    let began = Instant::now();
    while !program.get("/status").is_some_and(|(_, body)| body.replace(' ', "").contains("\"state\":\"streaming\"")) {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not stream");
        thread::sleep(Duration::from_millis(50));
    }
    fixed.kill().unwrap();
    fixed.wait().unwrap();
}

#[test]
fn mistakes_of_the_configuration_are_records_with_code_and_next_in_the_format_that_can_be_read() {
    let started = |more: &str, sets: &[&str], variables: &[(&str, &str)]| {
        let program = Program::new("postgres://postgres@127.0.0.1:1/postgres", "127.0.0.1:1", more);
        let mut command = program.command(&["run"]);
        sets.iter().for_each(|set| _ = command.args(["--set", set]));
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let many: String = (0..9).map(|number| format!("drain{number} = \"1s\"\n")).collect();
    let many = format!("[shutdown]\n{many}");
    // As the file says, the environment over it, --set over both; and whatever cannot be read is auto, here without a
    // terminal.
    let json = [
        started(&format!("{many}[log]\nformat = \"json\"\n"), &[], &[]),
        started(&many, &[], &[("WALRELAY_LOG__FORMAT", "json")]),
        started(&format!("{many}[log]\nformat = \"logfmt\"\n"), &["log.format=json"], &[]),
        started(&format!("{many}[log]\nlevel = \"inof\"\n"), &[], &[]),
        started(&format!("{many}[log]\nformat = \"jsno\"\n"), &[], &[]),
        started("[shutdown\n", &["log.format=json"], &[]),
        started("[log]\nformat = \"logfmt\"\n", &["nothing", "log.format=json"], &[]),
    ];
    for notes in &json {
        let records: Vec<Value> = notes
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert!(records.iter().all(|record| record["level"] == "ERROR" && record["code"] == "WR-6401"), "{notes}");
        let last = records.last().unwrap();
        assert!(next(last).contains("`walrelay --config /") && next(last).contains("config validate`"), "{last}");
        // Each mistake is a log record.
        assert!(last["mistakes"].as_u64() == Some(records.len() as u64 - 1), "{notes}");
    }
    assert_eq!(json[0].lines().count(), 10, "{}", json[0]);
    assert!((0..9).all(|number| json[0].contains(&format!("drain{number}"))), "{}", json[0]);

    let logfmt = started(&format!("{many}[log]\nformat = \"logfmt\"\n"), &[], &[]);
    assert!(logfmt.lines().all(|line| line.starts_with("time=") && line.contains("code=WR-6401")), "{logfmt}");
    let pretty = started(&many, &["log.format=pretty"], &[]);
    assert!(pretty.contains("\n  next: ") && pretty.contains("config.toml:12:1: shutdown.drain0"), "{pretty}");
    // Another verb prints the line and the position in it.
    let program = Program::new("postgres://postgres@127.0.0.1:1/postgres", "127.0.0.1:1", &many);
    let ended = program.verb(&["config", "validate"]);
    assert!(
        ended.code == Some(64) && ended.notes.contains("error[WR-6401]") && ended.notes.contains("^^^"),
        "{ended:?}"
    );
}
