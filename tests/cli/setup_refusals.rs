//! What `walrelay setup` leaves alone, refuses or says instead of doing it.

use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::source::Sql;

use super::program;
use super::setup::ok;
use super::setup::statements;

const OUTBOX: &str = include_str!("../../sql/outbox.sql");
/// Slots, publications and stored positions.
const CREATED: &str = "SELECT (SELECT count(*) FROM pg_replication_slots) || ' ' ||
    (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_namespace WHERE nspname = 'walrelay')";

fn url(postgres: &Postgres, role: &str) -> String {
    format!("postgres://{role}@127.0.0.1:{}/postgres", postgres.port())
}

/// Gives the exit code of `psql`, which goes on after an error unless the script forbids it.
fn psql_code(postgres: &Postgres, url: &str, sql: &str) -> Option<i32> {
    let mut process = Command::new(postgres.programs().join("psql"))
        .args([url, "-X", "-q", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    process.wait().unwrap().code()
}

#[test]
fn the_printed_sql_makes_no_slot_and_no_position_where_the_publication_could_not_be_created() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE relay LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO relay");
    sql.run(OUTBOX);
    let relay = url(&postgres, "relay");
    let program = program(&relay, "");
    for offline in [&["setup"][..], &["setup", "--offline"]] {
        let script = ok(program.verb(offline)).out;
        assert_eq!(psql_code(&postgres, &relay, &script), Some(3), "psql stops: {script}");
        let goes_on = script.replace("\\set ON_ERROR_STOP on\n", "");
        assert_eq!((psql_code(&postgres, &relay, &goes_on), goes_on == script), (Some(0), false));
        assert_eq!(sql.text(CREATED), "0 0 1", "{script}");
        assert_eq!(sql.text("SELECT count(*)::text FROM walrelay.position"), "0", "{script}");
    }
}

#[test]
fn a_publication_of_somebody_is_corrected_only_by_hand_and_apply_changes_nothing_before() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(OUTBOX);
    sql.run("CREATE PUBLICATION walrelay FOR TABLE outbox_events WITH (publish = 'update')");
    let program = program(&postgres.url(), "");
    let applied = program.verb(&["setup", "--apply"]);
    assert!(applied.code == Some(65) && applied.notes.contains("nothing was changed"), "{}", applied.notes);
    assert_eq!(sql.text(CREATED), "0 1 0");
    let printed = ok(program.verb(&["setup"]));
    assert!(printed.out.contains("--   ALTER PUBLICATION \"walrelay\" SET"), "{}", printed.out);
    assert_eq!(psql_code(&postgres, &postgres.url(), &printed.out), Some(0));
    assert_eq!(sql.text("SELECT pubinsert::text FROM pg_publication"), "false");
    assert_eq!(sql.text(CREATED), "0 1 1", "nor is a slot created before: {}", printed.out);
}

#[test]
fn a_missing_column_ends_apply_before_anything_is_created_also_for_polling() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(OUTBOX);
    sql.run("ALTER TABLE outbox_events RENAME COLUMN id TO event_id");
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = 'outbox_events'::regclass AND attnum > 0";
    let before = sql.text(columns);
    for more in ["", "[source]\nmode = \"poll\"\n"] {
        let applied = program(&postgres.url(), more).verb(&["setup", "--apply", "--with-outbox"]);
        assert!(applied.code == Some(65) && applied.notes.contains("nothing was changed"), "{}", applied.notes);
        assert_eq!((sql.text(CREATED).as_str(), sql.text(columns)), ("0 0 0", before.clone()), "{more}");
    }
}

#[test]
fn a_group_of_the_application_stays_one_and_a_member_of_rds_replication_needs_no_attribute() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE shop NOLOGIN; CREATE ROLE relay LOGIN; CREATE ROLE rds_replication");
    let program = program(&postgres.url(), "");
    let asked = ["setup", "--with-outbox", "--app-role", "shop", "--role", "relay"];
    let printed = ok(program.verb(&asked));
    assert!(printed.out.contains("GRANT \"rds_replication\" TO \"relay\";"), "{}", printed.out);
    assert!(!printed.out.contains("ALTER ROLE"), "{}", printed.out);
    let applied = ok(program.verb(&[&asked[..], &["--apply"]].concat()));
    assert!(applied.notes.contains("role relay altered: REPLICATION"), "{}", applied.notes);
    assert_eq!(sql.text("SELECT rolcanlogin::text FROM pg_roles WHERE rolname = 'shop'"), "false");
    assert_eq!(sql.text("SELECT rolreplication::text FROM pg_roles WHERE rolname = 'relay'"), "false");
    let rest = ok(program.verb(&asked));
    assert!(rest.out.is_empty() && rest.notes.contains("nothing to do"), "{}{}", rest.out, rest.notes);
}

#[test]
fn a_grant_that_the_server_accepts_and_ignores_is_an_error() {
    let postgres = Postgres::start(Options::default()).unwrap();
    program(&postgres.url(), "").setup();
    Sql::connect(&postgres.url()).run(
        "CREATE ROLE relay LOGIN REPLICATION; CREATE ROLE shop; GRANT CREATE ON DATABASE postgres TO relay;
         GRANT USAGE, CREATE ON SCHEMA walrelay TO relay; GRANT INSERT ON outbox_events TO relay;
         GRANT SELECT, INSERT, UPDATE ON walrelay.position TO relay",
    );
    let program = program(&url(&postgres, "relay"), "");
    let ended = program.verb(&["setup", "--apply", "--app-role", "shop", "--set", "source.failover=off"]);
    assert!(ended.code == Some(67) && ended.notes.contains("WR-6761"), "{}", ended.notes);
    assert!(ended.notes.contains("the owner of table public.outbox_events"), "{}", ended.notes);
}

#[test]
fn a_stored_position_with_which_run_would_stop_or_that_is_not_seen_is_not_ready() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = program(&postgres.url(), "");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE TABLE before AS SELECT * FROM walrelay.position");
    for change in ["position = '0/1'", "system_id = '7'", "position = 'FFFF/0'"] {
        sql.run(&format!("UPDATE walrelay.position SET {change}"));
        let ended = program.verb(&["setup"]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(66), ""), "{change}: {}", ended.notes);
        sql.run("DELETE FROM walrelay.position; INSERT INTO walrelay.position SELECT * FROM before");
    }
    assert!(ok(program.verb(&["setup"])).notes.contains("nothing to do"));
    sql.run("CREATE ROLE stranger LOGIN");
    let blind = ok(super::program(&url(&postgres, "stranger"), "").verb(&["setup", "--set", "source.failover=off"]));
    assert!(blind.notes.contains("? the stored position is not visible for role stranger"), "{}", blind.notes);
    assert!(!blind.notes.contains("ready") && blind.notes.contains("walrelay check"), "{}", blind.notes);
    // A table of an earlier version is completed first.
    sql.run("ALTER TABLE walrelay.position DROP COLUMN released_at; SELECT pg_drop_replication_slot('walrelay')");
    let old = ok(program.verb(&["setup"]));
    assert!(old.notes.contains("slot walrelay comes after the columns of walrelay.position"), "{}", old.notes);
    assert_eq!(psql_code(&postgres, &postgres.url(), &old.out), Some(0));
    let ended = program.verb(&["setup"]);
    assert!(ended.code == Some(66) && ended.notes.contains("WR-6620"), "the slot was dropped: {}", ended.notes);
    assert!(!statements(&old.out).is_empty() && !old.out.contains("pg_create_logical_replication_slot"), "{}", old.out);
}

#[test]
fn a_slot_that_a_relay_holds_is_left_as_it_is_and_setup_does_not_wait_for_it() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let sql = Sql::connect(&postgres.url());
    if sql.text("SELECT current_setting('server_version_num')").parse::<u32>().unwrap() < 170_000 {
        return;
    }
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), "");
    ok(program.verb(&["setup", "--apply", "--with-outbox", "--set", "source.failover=off"]));
    program.start_streaming();
    let applied = ok(program.verb(&["setup", "--apply"]));
    assert!(applied.notes.contains("holds it: stop the relay, then run `walrelay"), "{}", applied.notes);
    assert_eq!(sql.text("SELECT failover::text FROM pg_replication_slots"), "false");
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    let applied = ok(program.verb(&["setup", "--apply"]));
    assert!(applied.notes.contains("survives a failover now"), "{}", applied.notes);
    assert_eq!(sql.text("SELECT failover::text FROM pg_replication_slots"), "true");
}
