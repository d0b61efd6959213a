//! `walrelay setup` without `--apply`: the difference to the server, and what its SQL is enough for.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

use super::program;

pub(super) const INSERT: &str = "INSERT INTO public.outbox_events (aggregate_type, aggregate_id, event_type, payload)
                      VALUES ('Order', 'k1', 'Created', '{}')";

/// Pipes SQL into `psql`, which stops at the first error.
pub(super) fn psql(postgres: &Postgres, url: &str, sql: &str) {
    let mut process = Command::new(postgres.programs().join("psql"))
        .args([url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{sql}", String::from_utf8_lossy(&output.stderr));
}

/// The statements of a script, without comments.
pub(super) fn statements(script: &str) -> Vec<&str> {
    script.lines().filter(|line| !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\')).collect()
}

/// Writes a file that nobody else can read.
fn secret(program: &Program, name: &str, text: &str) {
    let path = program.folder().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(super) fn ok(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    ended
}

#[test]
fn the_printed_sql_runs_twice_and_then_there_is_nothing_to_do() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let names = "[source]\nslot = \"other\"\npublication = \"it's \\\"$walrelay$\\\"\"\n\n[[outbox]]\ntable = \
                 \"public.my events\"\ncolumns.payload = \"the body\"\n";
    let program = program(&postgres.url(), names);
    let asked = ["setup", "--with-outbox", "--role", "the \"relay\"", "--app-role", "app's"];
    let whole = program.verb(&[&asked[..], &["--offline"]].concat());
    let printed = ok(program.verb(&asked));
    for expected in ["+ create table public.my events", "+ create slot other", "+ create role app's of the application"]
    {
        assert!(printed.notes.contains(expected), "{expected} in {}", printed.notes);
    }
    let again = "setup --apply --with-outbox --role 'the \"relay\"' --app-role 'app'\\''s'";
    assert!(printed.notes.contains(again), "{}", printed.notes);
    psql(&postgres, &postgres.url(), &printed.out);
    psql(&postgres, &postgres.url(), &printed.out);
    psql(&postgres, &postgres.url(), &ok(whole).out);
    let rest = ok(program.verb(&asked));
    assert_eq!((rest.out.as_str(), rest.notes.contains("nothing to do")), ("", true), "{}{}", rest.out, rest.notes);
    for expected in ["table public.my events has all columns", "slot other is at", "role app's of the application"] {
        assert!(rest.notes.contains(expected), "{expected} in {}", rest.notes);
    }
    ok(program.verb(&[&asked[..], &["--apply"]].concat()));
}

#[test]
fn the_printed_grants_are_enough_for_the_relay_and_for_the_application_and_no_more() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("granted", 1);
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"granted\"\n";
    let sql = Sql::connect(&postgres.url());
    sql.run("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC");
    let admin = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    let asked = ["setup", "--with-outbox", "--role", "relay", "--app-role", "shop"];
    psql(&postgres, &postgres.url(), &ok(admin.verb(&asked)).out);
    let url = |role: &str| format!("postgres://{role}@127.0.0.1:{}/postgres", postgres.port());

    let mut relay = Program::new(&url("relay"), &kafka.bootstrap(), outbox);
    relay.start_streaming();
    let shop = Sql::connect(&url("shop"));
    shop.run(INSERT);
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(relay.terminate(), Some(0), "{}", relay.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "granted").len(), 1);

    for denied in [
        "SELECT FROM outbox_events",
        "UPDATE outbox_events SET payload = NULL",
        "DELETE FROM outbox_events",
        "SELECT FROM walrelay.position",
        "CREATE TABLE public.more ()",
    ] {
        assert!(shop.try_run(denied).is_err(), "{denied}");
    }
    let relay = Sql::connect(&url("relay"));
    for denied in ["SELECT FROM public.outbox_events", "DELETE FROM walrelay.position", "CREATE TABLE public.more ()"] {
        assert!(relay.try_run(denied).is_err(), "{denied}");
    }
    // Only what is missing is printed again.
    sql.run("REVOKE INSERT ON outbox_events FROM shop; ALTER ROLE relay NOREPLICATION");
    let rest = ok(admin.verb(&asked));
    assert_eq!(
        statements(&rest.out),
        ["ALTER ROLE \"relay\" WITH REPLICATION;", "GRANT INSERT ON TABLE \"public\".\"outbox_events\" TO \"shop\";"],
        "{}",
        rest.out
    );
}

#[test]
fn an_application_whose_numbers_come_from_a_sequence_may_use_it() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(include_str!("../../sql/outbox.sql"));
    sql.run("CREATE ROLE shop LOGIN; CREATE SEQUENCE \"my numbers\"");
    sql.run("ALTER TABLE outbox_events ADD COLUMN number bigint DEFAULT nextval('\"my numbers\"')");
    let program = program(&postgres.url(), "");
    let printed = ok(program.verb(&["setup", "--app-role", "shop"]));
    assert!(printed.out.contains("GRANT USAGE ON SEQUENCE \"public\".\"my numbers\" TO \"shop\";"), "{}", printed.out);
    ok(program.verb(&["setup", "--apply", "--app-role", "shop"]));
    Sql::connect(&format!("postgres://shop@127.0.0.1:{}/postgres", postgres.port())).run(INSERT);
}

#[test]
fn a_missing_column_is_printed_with_its_consequences_and_left_to_a_person() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(include_str!("../../sql/outbox.sql"));
    sql.run("ALTER TABLE outbox_events DROP COLUMN id, DROP COLUMN event_type");
    let program = program(&postgres.url(), "");
    let printed = ok(program.verb(&["setup"]));
    let table = "ALTER TABLE \"public\".\"outbox_events\" ADD COLUMN IF NOT EXISTS";
    for expected in [
        format!("--   {table} \"id\" uuid DEFAULT gen_random_uuid();\n"),
        format!("--   {table} \"event_type\" text;\n"),
        "the table is rewritten under a lock".to_owned(),
        "ALTER COLUMN \"event_type\" SET NOT NULL".to_owned(),
        "`walrelay setup --apply` does not run it".to_owned(),
    ] {
        assert!(printed.out.contains(&expected), "{expected} in {}", printed.out);
    }
    assert!(printed.notes.contains("2 of these 4 are left to you"), "{}", printed.notes);
    assert!(printed.notes.contains("slot walrelay comes after the changes by hand"), "{}", printed.notes);
    (0..2).for_each(|_| psql(&postgres, &postgres.url(), &printed.out));
    let columns = "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'outbox_events'::regclass AND attname IN
                   ('id', 'event_type') AND NOT attisdropped";
    assert_eq!(sql.text(columns), "0", "a pipe adds no column that may have been renamed");
    let by_hand: String = printed.out.lines().filter(|line| line.contains(table)).map(|line| &line[5..]).collect();
    (0..2).for_each(|_| psql(&postgres, &postgres.url(), &by_hand));
    (0..2).for_each(|_| psql(&postgres, &postgres.url(), &ok(program.verb(&["setup"])).out));
    let rest = ok(program.verb(&["setup"]));
    assert!(rest.notes.contains("nothing to do"), "{}{}", rest.out, rest.notes);
}

#[test]
fn a_difference_that_hides_a_gap_or_cannot_be_made_is_an_error_and_prints_no_sql() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = program(&postgres.url(), "");
    let refused = |code: i32, text: &str| {
        let ended = program.verb(&["setup"]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{}", ended.notes);
        assert!(ended.notes.contains(text), "{text} in {}", ended.notes);
    };
    refused(65, "table public.outbox_events does not exist");
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.run("DROP PUBLICATION walrelay");
    refused(65, "WR-6513");
    sql.run("SELECT pg_drop_replication_slot('walrelay')");
    refused(66, "WR-6620");
    let ended = program.verb(&["setup", "--accept-gap"]);
    assert_eq!(ended.code, Some(2), "only a setup that is applied can check it: {}", ended.notes);

    let replica = Postgres::start(Options::default().with_settings(vec!["wal_level = replica".into()])).unwrap();
    let ended = super::program(&replica.url(), "").verb(&["setup", "--with-outbox"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(65), ""), "{}", ended.notes);
    assert!(ended.notes.contains("WR-6541") && ended.notes.contains("ALTER SYSTEM SET wal_level"), "{}", ended.notes);
}

#[test]
fn each_statement_names_who_runs_it_and_a_role_that_cannot_is_warned() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE shop_owner LOGIN; CREATE ROLE relay LOGIN REPLICATION");
    sql.run(include_str!("../../sql/outbox.sql"));
    sql.run("ALTER TABLE outbox_events OWNER TO shop_owner");
    let program = program(&format!("postgres://relay@127.0.0.1:{}/postgres", postgres.port()), "");
    let printed = ok(program.verb(&["setup", "--role", "relay"]));
    assert!(
        printed.out.contains(
            "run this as shop_owner, the owner of table public.outbox_events, with CREATE on database postgres."
        ),
        "{}",
        printed.out
    );
    assert!(printed.notes.contains("this role cannot do 3 of these 6"), "{}{}", printed.notes, printed.out);
    let ended = program.verb(&["setup", "--apply"]);
    assert!(ended.code == Some(67) && ended.notes.contains("--admin-url"), "{}", ended.notes);
}

#[test]
fn an_administrator_sets_up_for_the_role_of_the_configuration_whose_password_stays_at_home() {
    let hba = vec!["host all relay,admin 127.0.0.1/32 scram-sha-256".into()];
    let (postgres, kafka) = (Postgres::start(Options::default().with_hba(hba)).unwrap(), Kafka::shared());
    kafka.create_topic("administered", 1);
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE admin SUPERUSER LOGIN PASSWORD 'hunter2'; CREATE ROLE relay LOGIN PASSWORD 'right'");
    let more = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"administered\"\n\n[postgres.password]\nfile = \
                \"password\"\n";
    let url = format!("postgres://relay@127.0.0.1:{}/postgres", postgres.port());
    let mut program = Program::new(&url, &kafka.bootstrap(), more);
    secret(&program, "password", "right\n");
    let admin = format!("postgres://admin:hunter2@127.0.0.1:{}/postgres", postgres.port());
    let elsewhere = admin.replace("/postgres", "/template1");
    let ended = program.verb(&["setup", "--with-outbox", "--admin-url", &elsewhere]);
    assert!(ended.code == Some(64) && ended.notes.contains("WR-6443"), "{}", ended.notes);

    let printed = ok(program.verb(&["setup", "--with-outbox", "--admin-url", &admin]));
    assert!(printed.out.contains("ALTER ROLE \"relay\" WITH REPLICATION;"), "{}", printed.out);
    assert!(!format!("{}{}", printed.out, printed.notes).contains("hunter2"), "{}", printed.notes);
    let command = ["setup", "--apply", "--with-outbox"];
    let output = program.command(&command).env("WALRELAY_ADMIN_URL", &admin).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && notes.contains("privileges granted to role relay"), "{notes}");
    assert!(notes.contains("role relay altered: REPLICATION") && !notes.contains("warning"), "{notes}");
    program.start_streaming();
    sql.run(INSERT);
    sql.await_all_confirmed(Duration::from_secs(30));
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "administered").len(), 1);
}

#[test]
fn an_existing_slot_is_made_to_survive_a_failover_where_the_server_has_such_slots() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let program = program(&postgres.url(), "");
    let sql = Sql::connect(&postgres.url());
    program.setup();
    sql.run("SELECT pg_drop_replication_slot('walrelay'); DELETE FROM walrelay.position");
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput')");
    ok(program.verb(&["setup", "--apply", "--set", "source.failover=off"]));
    let printed = ok(program.verb(&["setup"]));
    if sql.text("SELECT current_setting('server_version_num')").parse::<u32>().unwrap() < 170_000 {
        assert_eq!(printed.out, "");
        return;
    }
    let survives = || sql.text("SELECT failover::text FROM pg_replication_slots WHERE slot_name = 'walrelay'");
    assert!(printed.notes.contains("let slot walrelay survive a failover"), "{}", printed.notes);
    assert_eq!(statements(&printed.out), Vec::<&str>::new(), "no SQL can do it");
    let command = printed.out.lines().find_map(|line| line.strip_prefix("--   psql ")).unwrap();
    let shell = format!("{} -U postgres {command}", postgres.programs().join("psql").display());
    let ran = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!((survives().as_str(), ok(program.verb(&["setup"])).out.as_str()), ("true", ""));
    sql.run("SELECT pg_drop_replication_slot('walrelay'); DELETE FROM walrelay.position");
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput')");
    let applied = ok(program.verb(&["setup", "--apply"]));
    assert!(applied.notes.contains("survives a failover now") && survives() == "true", "{}", applied.notes);
}

#[test]
fn the_printed_sql_for_polling_runs_twice_and_is_enough_for_its_role() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("polled-setup", 1);
    let sql = Sql::connect(&postgres.url());
    sql.run("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC");
    let more = "[source]\nmode = \"poll\"\n\n[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"polled-setup\"\n";
    let admin = Program::new(&postgres.url(), &kafka.bootstrap(), more);
    let asked = ["setup", "--with-outbox", "--role", "poller", "--app-role", "shop"];
    let whole = ok(admin.verb(&[&asked[..], &["--offline"]].concat()));
    let printed = ok(admin.verb(&asked));
    for script in [&printed.out, &printed.out, &whole.out] {
        psql(&postgres, &postgres.url(), script);
    }
    let rest = ok(admin.verb(&asked));
    assert!(rest.out.is_empty() && rest.notes.contains("nothing to do"), "{}{}", rest.out, rest.notes);
    let url = |role: &str| format!("postgres://{role}@127.0.0.1:{}/postgres", postgres.port());
    let mut relay = Program::new(&url("poller"), &kafka.bootstrap(), more);
    Sql::connect(&url("shop")).run(INSERT);
    relay.start();
    let unpublished = "SELECT count(*)::text FROM outbox_events WHERE published_at IS NULL";
    relay.await_that("the event", |_| sql.text(unpublished) == "0");
    assert_eq!(relay.terminate(), Some(0), "{}", relay.log());
    assert_eq!(reader::read_all(&kafka.bootstrap(), "polled-setup").len(), 1);
}

fn topics_of(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("--   "))
        .filter(|line| line.starts_with("kafka-topics.sh"))
        .collect()
}

#[test]
fn a_topic_of_the_configuration_is_printed_as_a_command_or_created_and_an_existing_one_is_compared() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("setup-there", 2);
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\nallowed_topics = [\"setup-new\", \"setup-there\"]\n";
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    let asked = ["setup", "--with-outbox", "--partitions", "3", "--replication-factor", "1"];
    let printed = ok(program.verb(&asked));
    let command = format!(
        "kafka-topics.sh --bootstrap-server {} --create --if-not-exists --topic setup-new --partitions 3 \
         --replication-factor 1 --config min.insync.replicas=1",
        kafka.bootstrap()
    );
    assert_eq!(topics_of(&printed.out), [command], "{}", printed.out);
    let there = "topic setup-there has 2 partitions and 1 replicas, min.insync.replicas 1; it is left alone, not \
                 --partitions 3";
    assert!(printed.notes.contains(there), "{}", printed.notes);
    assert!(!kafka.topics().contains(&"setup-new".to_owned()), "nothing is created without --apply");
    let applied = ok(program.verb(&[&asked[..], &["--apply"]].concat()));
    assert!(!applied.notes.contains("setup-new"), "nor without --with-topics: {}", applied.notes);

    let applied = ok(program.verb(&[&asked[..], &["--apply", "--with-topics"]].concat()));
    let created = "topic setup-new created: 3 partitions, 1 replicas, min.insync.replicas 1";
    assert!(applied.notes.contains(created) && applied.notes.contains(there), "{}", applied.notes);
    let rest = ok(program.verb(&["setup"]));
    assert!(rest.out.is_empty() && rest.notes.contains("nothing to do"), "{}{}", rest.out, rest.notes);
    assert!(rest.notes.contains("topic setup-new has 3 partitions and 1 replicas"), "{}", rest.notes);
}

#[test]
fn a_topic_that_cannot_be_created_is_an_error_with_the_command_for_an_administrator() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let (kafka, door) = Kafka::guarded_by_scram();
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"setup-denied\"\n";
    let apply = ["setup", "--apply", "--with-outbox", "--with-topics"];
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), outbox);
    let ended = program.verb(&[&apply[..], &["--min-insync-replicas", "2", "--replication-factor", "1"]].concat());
    assert!(ended.code == Some(64) && ended.notes.contains("WR-6444"), "{}", ended.notes);
    let ended = program.verb(&[&apply[..], &["--replication-factor", "3"]].concat());
    assert!(ended.code == Some(69) && ended.notes.contains("WR-6952"), "{}", ended.notes);
    let login = "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"app\"\npassword = { file = \"sasl\" }\n";
    let denied = Program::new(&postgres.url(), &door, &format!("{outbox}\n{login}"));
    secret(&denied, "sasl", "secret");
    let ended = denied.verb(&apply);
    assert!(ended.code == Some(67) && ended.notes.contains("WR-6732"), "{}", ended.notes);
    assert!(ended.notes.contains("--topic setup-denied"), "{}", ended.notes);
    // Without brokers the database is compared all the same.
    let alone = super::program(&postgres.url(), outbox);
    let printed = ok(alone.verb(&["setup"]));
    assert!(printed.notes.contains("no topic was compared: cannot connect to Kafka"), "{}", printed.notes);
    assert!(topics_of(&printed.out)[0].ends_with("--replication-factor 3 --config min.insync.replicas=2"));
    assert_eq!(alone.verb(&apply).code, Some(69));
}
