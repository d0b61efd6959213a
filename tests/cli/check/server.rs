//! Servers that are not ready for logical replication, and those that do not answer.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::support::program::Program;
use crate::support::source::Sql;

use super::checks;
use super::commands;
use super::failed;
use super::find;
use super::report;

#[test]
fn a_server_without_logical_replication_free_slots_and_free_senders_is_found_in_one_run() {
    let settings = ["wal_level = replica", "max_replication_slots = 1", "max_wal_senders = 0"];
    let options = Options::default().with_settings(settings.map(str::to_owned).to_vec());
    let (postgres, broker) = (Postgres::start(options).unwrap(), Broker::start(1).unwrap());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let sql = Sql::connect(&postgres.url());
    sql.run("SELECT pg_create_physical_replication_slot('other')");
    let broken = report(&program, &[]);
    let rows = [
        ("wal_level", "WR-6541", "ALTER SYSTEM SET wal_level"),
        ("replication_slots", "WR-6908", "ALTER SYSTEM SET max_replication_slots"),
        ("wal_senders", "WR-6909", "ALTER SYSTEM SET max_wal_senders"),
    ];
    for (title, code, command) in rows {
        let check = find(&broken, title);
        assert!(check["status"] == "failed" && check["findings"][0]["code"] == code, "{title}: {broken:#}");
        sql.run(commands(check).iter().find(|found| found.starts_with(command)).unwrap());
    }
    assert_eq!(find(&broken, "replication_login")["needs"], "wal_senders", "{broken:#}");
    assert_eq!(find(&broken, "retained_wal")["findings"][0]["code"], "WR-0102", "{broken:#}");
    postgres.stop(StopMode::Fast).unwrap();
    postgres.resume().unwrap();
    let fixed = report(&program, &[]);
    assert!(rows.iter().all(|(title, ..)| find(&fixed, title)["status"] == "ok"), "{fixed:#}");
    assert_eq!(find(&fixed, "replication_login")["status"], "ok", "{fixed:#}");

    // A warning has a command as well.
    let sql = Sql::connect(&postgres.url());
    commands(find(&fixed, "retained_wal")).iter().for_each(|command| sql.run(command));
    super::await_status(&program, "retained_wal", "ok");
}

#[test]
fn servers_that_accept_connections_and_never_answer_end_the_check_in_time() {
    let silent = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (postgres, kafka) = (silent(), silent());
    let url = format!("postgres://relay@{}/shop", postgres.local_addr().unwrap());
    let program = Program::new(&url, &kafka.local_addr().unwrap().to_string(), "");
    let mut check = program.command(&["check"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while check.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not end");
        thread::sleep(Duration::from_millis(50));
    }
    let output = check.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("timed out") && out.contains("slot: needs login"), "{out}");
}

#[test]
fn a_standby_is_found_and_the_checks_of_the_slot_need_the_primary() {
    let (postgres, broker) = (Postgres::start(Options::default()).unwrap(), Broker::start(1).unwrap());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    program.setup();
    postgres.stop(StopMode::Fast).unwrap();
    std::fs::write(postgres.folder().join("data/standby.signal"), "").unwrap();
    postgres.resume().unwrap();
    let found = report(&program, &[]);
    assert_eq!(failed(&found), ["primary"], "{found:#}");
    for name in ["slot", "stored_position", "start_position", "catalog_changes"] {
        let check = checks(&found).into_iter().find(|(title, _)| title == name).unwrap().1;
        assert_eq!(check["needs"], "primary", "{found:#}");
    }
    let status = program.verb(&["status"]);
    assert!(status.out.contains("in recovery") || status.out.contains("walrelay: exists, 1 table"), "{status:?}");
}

#[test]
fn a_check_changes_nothing_in_postgresql() {
    let (postgres, broker) = (Postgres::start(Options::default()).unwrap(), Broker::start(1).unwrap());
    let program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    let sql = Sql::connect(&postgres.url());
    let state = || {
        sql.text(
            "SELECT concat((SELECT string_agg(slot_name || restart_lsn, ',') FROM pg_replication_slots),
                           (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_publication),
                           pg_snapshot_xmax(pg_current_snapshot()))",
        )
    };
    let before = state();
    let empty = report(&program, &[]);
    assert!(checks(&empty).len() > 20 && failed(&empty).len() > 3, "{empty:#}");
    assert_eq!(state(), before, "no object and no transaction id");
    program.setup();
    let before = state();
    assert_eq!(failed(&report(&program, &[])), Vec::<String>::new());
    assert_eq!(state(), before);
}
