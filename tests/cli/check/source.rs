//! Broken publications, tables, slots, positions and log-ins of the source that reads the WAL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program::Program;
use crate::support::source::Sql;

use super::Case;
use super::await_status;
use super::break_and_fix;
use super::commands;
use super::failed;
use super::find;
use super::quoted;
use super::report;

const TABLE: &str = "table public.outbox_events";
const ACCEPT: &str = "setup --apply --accept-gap";

/// A database of the relay's role, set up, and a configuration that logs in with a password from a file.
fn shop(postgres: &Postgres, broker: &Broker) -> (Program, Sql) {
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE relay LOGIN REPLICATION PASSWORD 'right'");
    sql.run("CREATE DATABASE shop OWNER relay");
    let url = format!("postgres://relay@127.0.0.1:{}/shop", postgres.port());
    let program = Program::new(&url, &broker.bootstrap(), "");
    program.edit("[postgres]\n", "[postgres]\npassword = { file = \"secret\" }\n");
    write_secret(&program, "right\n");
    program.setup();
    (program, Sql::connect(&postgres.url_of("shop")))
}

fn write_secret(program: &Program, text: &str) {
    let path = program.folder().join("secret");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn start() -> Postgres {
    let hba = vec!["host all relay 127.0.0.1/32 scram-sha-256".into()];
    let settings = vec!["max_slot_wal_keep_size = '10GB'".into(), "autovacuum = off".into()];
    Postgres::start(Options::default().with_hba(hba).with_settings(settings)).unwrap()
}

#[test]
fn a_broken_publication_table_or_slot_is_found_and_the_printed_commands_fix_it() {
    let (postgres, broker) = (start(), Broker::start(1).unwrap());
    let (program, sql) = shop(&postgres, &broker);
    let first = report(&program, &[]);
    assert_eq!(failed(&first), Vec::<String>::new(), "{first:#}");
    let case = |broken: &str, title: &str, code: &str, fixes: &[&str]| {
        break_and_fix(&program, &sql, &Case { broken, title, code, fixes });
    };
    let publication = "ALTER PUBLICATION walrelay";
    let alter: &[&str] = &["ALTER PUBLICATION", ACCEPT];
    case(&format!("{publication} SET (publish = 'update')"), "publication", "WR-6503", alter);
    case(&format!("{publication} SET (publish = 'insert, delete')"), "publication", "WR-6503", alter);
    case(&format!("{publication} SET (publish_via_partition_root = off)"), "publication", "WR-6503", alter);
    case(&format!("{publication} DROP TABLE outbox_events"), "published_table", "WR-6503", alter);
    case("DROP PUBLICATION walrelay", "publication", "WR-6502", &[ACCEPT]);
    let by_hand = "DROP PUBLICATION walrelay; CREATE PUBLICATION walrelay FOR TABLE outbox_events
                   WITH (publish = 'insert', publish_via_partition_root = true)";
    case(by_hand, "catalog_changes", "WR-6603", &[ACCEPT]);
    let two = "ALTER TABLE outbox_events DROP COLUMN payload, DROP COLUMN event_type";
    let columns = ["ALTER TABLE \"public\".\"outbox_events\" ADD COLUMN"; 2];
    case(two, TABLE, "WR-6504", &columns);
    let number = "ALTER TABLE outbox_events ALTER COLUMN aggregate_id TYPE numeric USING NULL";
    case(number, TABLE, "WR-6504", &["ALTER TABLE"]);
    case("CREATE TABLE child () INHERITS (outbox_events)", "table_rows", "WR-6508", &["ALTER TABLE"]);
    let slot = |statement: &str| format!("SELECT pg_drop_replication_slot('walrelay'); {statement}");
    let replace: &[&str] = &["SELECT pg_drop_replication_slot", ACCEPT];
    case(&slot("SELECT pg_create_physical_replication_slot('walrelay')"), "slot", "WR-6501", replace);
    let plugin = slot("SELECT pg_create_logical_replication_slot('walrelay', 'test_decoding')");
    case(&plugin, "slot", "WR-6501", replace);
    case(&slot(""), "slot", "WR-6601", &[ACCEPT]);
    let moved = "CREATE TABLE t (a int); SELECT pg_replication_slot_advance('walrelay', pg_current_wal_lsn())";
    case(moved, "start_position", "WR-6611", &[ACCEPT]);

    sql.run("SELECT pg_drop_replication_slot('walrelay')");
    Sql::connect(&postgres.url()).run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput')");
    // It can be dropped only in its own database.
    let other = await_status(&program, "slot", "failed");
    let drop = commands(find(&other, "slot")).remove(0);
    assert_eq!(find(&other, "slot")["findings"][0]["code"], "WR-6501", "{other:#}");
    Sql::connect(&postgres.url()).run(&drop);
    case("", "slot", "WR-6601", &[ACCEPT]);

    sql.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    sql.run("SELECT pg_reload_conf()");
    let fill = "DO $$ BEGIN FOR i IN 1..4 LOOP PERFORM pg_logical_emit_message(false, '', 'x'), pg_switch_wal(); \
                END LOOP; END $$; CHECKPOINT";
    fill.split("; CHECKPOINT").next().iter().for_each(|statement| sql.run(statement));
    sql.run("CHECKPOINT");
    case("", "slot", "WR-6602", replace);
}

#[test]
fn a_missing_table_is_found_with_the_command_that_creates_it() {
    let (postgres, broker) = (start(), Broker::start(1).unwrap());
    let (program, sql) = shop(&postgres, &broker);
    sql.run("DROP TABLE outbox_events");
    let broken = report(&program, &[]);
    let table = find(&broken, TABLE);
    assert!(table["status"] == "failed" && table["findings"][0]["code"] == "WR-6504", "{broken:#}");
    assert_eq!(find(&broken, "published_table")["needs"], "table", "{broken:#}");
    assert_eq!(find(&broken, "slot")["status"], "ok", "what does not need it is checked: {broken:#}");
    let command = commands(table).remove(0);
    assert!(command.ends_with("setup --apply --with-outbox"), "{command}");
    // It creates the table, and refuses to go on as if nothing had been in it.
    let ended = crate::support::program::paste(&command);
    assert_eq!(ended.code, Some(66), "{}", ended.notes);
    let fixed = report(&program, &[]);
    assert_eq!(failed(&fixed), ["catalog_changes"], "{fixed:#}");
    let accept = commands(find(&fixed, "catalog_changes")).remove(0);
    assert_eq!(crate::support::program::paste(&accept).code, Some(0), "{accept}");
    assert_eq!(failed(&report(&program, &[])), Vec::<String>::new());
}

#[test]
fn a_refused_log_in_and_a_missing_privilege_are_found_with_the_names_to_fix_them() {
    let (postgres, broker) = (start(), Broker::start(1).unwrap());
    let (program, sql) = shop(&postgres, &broker);
    let case = |broken: &str, title: &str, code: &str, fixes: &[&str]| {
        break_and_fix(&program, &sql, &Case { broken, title, code, fixes });
    };
    case("ALTER ROLE relay NOREPLICATION", "replication_login", "WR-6704", &["ALTER ROLE \"relay\" REPLICATION"]);
    case("ALTER ROLE relay NOLOGIN", "login", "WR-6704", &["ALTER ROLE \"relay\" LOGIN"]);
    let connect = "REVOKE CONNECT ON DATABASE shop FROM public, relay";
    case(connect, "login", "WR-6704", &["GRANT CONNECT ON DATABASE \"shop\" TO \"relay\""]);
    let grant: &[&str] = &["GRANT USAGE ON SCHEMA walrelay TO \"relay\""];
    case("REVOKE UPDATE ON walrelay.position FROM relay", "stored_position", "WR-7101", grant);
    case("REVOKE ALL ON walrelay.position FROM relay", "stored_position", "WR-7101", grant);
    case("REVOKE USAGE ON SCHEMA walrelay FROM relay", "stored_position", "WR-7101", grant);
    case("DELETE FROM walrelay.position", "stored_position", "WR-7102", &["setup --apply"]);
    case("DROP SCHEMA walrelay CASCADE", "stored_position", "WR-7101", &["setup --apply"]);

    write_secret(&program, "wrong\n");
    let wrong = report(&program, &[]);
    let login = find(&wrong, "login");
    assert!(login["findings"][0]["code"] == "WR-6704", "{wrong:#}");
    let place = format!("into the file {}", program.folder().join("secret").display());
    assert!(login["findings"][0]["next"].as_str().unwrap().contains(&place), "{wrong:#}");
    for breaks in [
        |program: &Program| write_secret(program, ""),
        |program: &Program| {
            fs::remove_file(program.folder().join("secret")).unwrap();
        },
    ] {
        breaks(&program);
        let unreadable = report(&program, &[]);
        let secret = find(&unreadable, "secret postgres.password");
        assert!(secret["findings"][0]["code"] == "WR-6705", "{unreadable:#}");
        assert_eq!(find(&unreadable, "login")["needs"], "secret postgres.password", "{unreadable:#}");
        assert_eq!(find(&unreadable, "slot_holder")["needs"], "login", "{unreadable:#}");
    }
    write_secret(&program, "right\n");

    let rules = postgres.folder().join("data/pg_hba.conf");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("host shop relay 127.0.0.1/32 reject\n{text}")).unwrap();
    sql.run("SELECT pg_reload_conf()");
    let rejected = await_status(&program, "login", "failed");
    let fixes = quoted(find(&rejected, "login")["findings"][0]["next"].as_str().unwrap());
    assert_eq!(fixes[0], "host \"shop\" \"relay\" 127.0.0.1/32 scram-sha-256", "{rejected:#}");
    fs::write(&rules, format!("{}\nhost shop relay 127.0.0.1/32 reject\n{text}", fixes[0])).unwrap();
    sql.run(&fixes[1]);
    await_status(&program, "login", "ok");

    program.edit("/shop\"", "/other\"");
    let missing = report(&program, &[]);
    let login = find(&missing, "login");
    assert!(login["findings"][0]["code"] == "WR-6505", "{missing:#}");
    sql.run(&commands(login)[0]);
    await_status(&program, "login", "ok");
}
