//! What `setup` created is dropped with one command, and nothing else: never while a relay uses it, never in silence.

use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::program::paste;
use crate::support::program::printed;
use crate::support::source::Sql;
use crate::support::terminal;

/// A program that is set up, and its server.
struct Stage {
    postgres: Postgres,
    program: Program,
    sql: Sql,
}

impl Stage {
    fn new() -> Self {
        let postgres = Postgres::start(Options::default()).unwrap();
        let program = Program::new(&postgres.url(), "127.0.0.1:1", "");
        program.setup();
        let sql = Sql::connect(&postgres.url());
        Self { postgres, program, sql }
    }

    /// What is left: slots, publications, tables of positions, outbox tables.
    fn left(&self) -> String {
        self.sql.text(
            "SELECT concat_ws(' ', (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
                              (SELECT count(*) FROM pg_tables WHERE schemaname = 'walrelay'),
                              (SELECT count(*) FROM pg_tables WHERE tablename = 'outbox_events'))",
        )
    }

    fn insert(&self, count: u32) {
        self.sql.run(&format!(
            "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
             SELECT 'Order', 'o-' || i, 'OrderCreated', '{{}}' FROM generate_series(1, {count}) i"
        ));
    }

    fn teardown(&self, more: &[&str]) -> Ended {
        self.program.verb(&[&["teardown"], more].concat())
    }
}

fn assert_ended(ended: &Ended, code: i32, expected: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    expected.iter().for_each(|text| assert!(ended.notes.contains(text), "{text} in {}", ended.notes));
}

/// Runs the command of a refusal that accepts the gap.
fn accepting(refused: &Ended) -> Ended {
    paste(refused.notes.split('`').find(|part| part.ends_with(" --accept-gap")).unwrap())
}

#[test]
fn a_teardown_drops_slot_and_publication_keeps_the_outbox_and_may_be_repeated() {
    let stage = Stage::new();
    let plan = ["drop slot walrelay: confirmed up to", "drop publication walrelay: of public.outbox_events"];
    let steps = ["every event behind the slot is delivered", "* slot walrelay dropped\n* publication walrelay dropped"];
    let next = ["setup --apply --accept-gap`: it publishes what is committed from then on"];
    assert_ended(&stage.teardown(&["--yes"]), 0, &[&plan[..], &steps, &next].concat());
    assert_eq!(stage.left(), "0 0 1 1");
    assert_ended(&stage.teardown(&["--yes"]), 0, &["slot walrelay does not exist", "nothing to drop"]);
    // The kept position shows the gap.
    assert_ended(&stage.program.verb(&["setup", "--apply"]), 66, &["WR-6620"]);
    let last = ["--yes", "--with-position", "--accept-gap"];
    assert_ended(&stage.teardown(&last), 0, &["schema walrelay dropped"]);
    assert_eq!(stage.left(), "0 0 0 1");
    assert_ended(&stage.teardown(&[]), 0, &["nothing to drop"]);
    stage.program.setup();
}

#[test]
fn a_teardown_drops_what_is_left_of_a_setup() {
    let stage = Stage::new();
    stage.sql.run("SELECT pg_drop_replication_slot('walrelay')");
    let refused = stage.teardown(&["--yes", "--with-position"]);
    assert_ended(&refused, 66, &["error[WR-6621]", "the stored position is the only trace of what it delivered"]);
    assert_eq!(stage.left(), "0 1 1 1");
    assert_ended(&accepting(&refused), 0, &["slot walrelay does not exist", "schema walrelay dropped"]);
    assert_eq!(stage.left(), "0 0 0 1");
    stage.program.setup();
    stage.sql.run("DROP PUBLICATION walrelay; DROP SCHEMA walrelay CASCADE");
    let refused = stage.teardown(&["--yes"]);
    assert_ended(&refused, 66, &["cannot be known: publication \"walrelay\" does not exist; nothing was dropped"]);
    assert_ended(&paste(&printed(&refused.notes, "walrelay --config").replace(" run", " version")), 0, &[]);
    assert_ended(&stage.teardown(&["--yes", "--accept-gap"]), 0, &["* slot walrelay dropped"]);
    assert_eq!(stage.left(), "0 0 0 1");
}

#[test]
fn the_position_of_another_slot_keeps_the_table() {
    let stage = Stage::new();
    stage.sql.run(
        "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position)
         VALUES ('other', '1', 1, '0/1', '0/1')",
    );
    assert_ended(&stage.teardown(&["--yes", "--with-position"]), 0, &["schema walrelay kept: something else is in it"]);
    assert_eq!(stage.sql.text("SELECT string_agg(slot, ',') FROM walrelay.position"), "other");
}

#[test]
fn without_a_terminal_and_without_yes_nothing_is_dropped_and_the_command_is_printed() {
    let stage = Stage::new();
    let ended = stage.teardown(&["--with-position"]);
    assert_ended(&ended, 2, &["drop slot walrelay", "nothing was dropped"]);
    assert_eq!(stage.left(), "1 1 1 1");
    let command = printed(&ended.notes, "walrelay --config").replace("setup --apply", "never");
    assert!(!command.contains("never"), "{command}");
    assert_ended(&paste(&command), 0, &["schema walrelay dropped"]);
    assert_eq!(stage.left(), "0 0 0 1");
}

#[test]
fn a_person_is_asked_at_a_terminal_and_a_no_drops_nothing() {
    let stage = Stage::new();
    stage.insert(1);
    let at_terminal = |answer: &str| terminal::answer(stage.program.command(&["teardown"]), "[y/N] ", || answer);
    for answer in ["", "n", "yesno"] {
        assert_ended(&at_terminal(answer), 1, &["1 event is not confirmed", "nothing was dropped"]);
    }
    assert_eq!(stage.left(), "1 1 1 1");
    assert_ended(&at_terminal("y"), 0, &["* slot walrelay dropped"]);
    assert_eq!(stage.left(), "0 0 1 1");
}

#[test]
fn what_is_written_while_a_person_thinks_is_not_dropped() {
    let stage = Stage::new();
    let command = stage.program.command(&["teardown"]);
    let ended = terminal::answer(command, "[y/N] ", || {
        stage.insert(1);
        "y"
    });
    let expected = ["transactions that still run are not counted", "WR-6621", "more events may not be delivered"];
    assert_ended(&ended, 66, &expected);
    assert_eq!(stage.left(), "1 1 1 1");
    let command = stage.program.command(&["teardown"]);
    let ended = terminal::answer(command, "[y/N] ", || {
        stage.sql.run("CREATE TABLE orders (id int); ALTER PUBLICATION walrelay ADD TABLE orders");
        "y"
    });
    assert_ended(&ended, 66, &["WR-6621", "other tables were added to the publication"]);
    assert_eq!(stage.left(), "1 1 1 1");
}

#[test]
fn a_script_does_not_drop_undelivered_events_unless_it_accepts_the_gap() {
    let stage = Stage::new();
    stage.insert(3);
    let refused = stage.teardown(&["--yes"]);
    assert_ended(&refused, 66, &["error[WR-6621]: 3 events are not confirmed", "nothing was dropped"]);
    assert_eq!(stage.left(), "1 1 1 1");
    assert_ended(&accepting(&refused), 0, &["* slot walrelay dropped"]);
    assert_eq!(stage.sql.text("SELECT count(*)::text FROM outbox_events"), "3");
}

#[test]
fn a_slot_in_use_is_not_dropped_and_its_holder_is_named() {
    let broker = Broker::start(1).unwrap();
    let mut stage = Stage::new();
    let brokers = broker.bootstrap().split(',').map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    stage.program.edit("\"127.0.0.1:1\"", &brokers);
    stage.program.start_streaming();
    let refused = stage.teardown(&["--yes"]);
    assert_ended(&refused, 69, &["WR-6904", "in use by \"walrelay\" (PID ", "127.0.0.1)", "pg_terminate_backend("]);
    assert_eq!(stage.left(), "1 1 1 1");
    assert_eq!(stage.program.terminate(), Some(0), "{}", stage.program.log());
    assert_ended(&stage.teardown(&["--yes"]), 0, &["* slot walrelay dropped"]);
}

#[test]
fn what_another_program_or_role_owns_is_not_dropped() {
    let stage = Stage::new();
    stage.sql.run("SELECT pg_create_physical_replication_slot('standby')");
    let refused = stage.teardown(&["--set", "source.slot=standby", "--yes"]);
    assert_ended(&refused, 65, &["slot \"standby\" is a physical slot", "source.slot"]);
    stage.sql.run("CREATE ROLE relay LOGIN REPLICATION");
    let url = format!("postgres.url=postgres://relay@127.0.0.1:{}/postgres", stage.postgres.port());
    let refused = stage.teardown(&["--set", &url, "--yes", "--accept-gap"]);
    assert_ended(
        &refused,
        67,
        &["role \"relay\" cannot drop publication \"walrelay\"", "belongs to role \"postgres\""],
    );
    assert_eq!(stage.left(), "2 1 1 1", "the slot, which the role may drop, is still there");
    stage.sql.run(&printed(&refused.notes, "DROP PUBLICATION"));
    assert_ended(&stage.teardown(&["--set", &url, "--yes", "--accept-gap"]), 0, &["* slot walrelay dropped"]);
}

#[test]
fn a_publication_that_publishes_more_than_the_outbox_is_kept() {
    let stage = Stage::new();
    let with = "WITH (publish = 'insert', publish_via_partition_root = true)";
    stage.sql.run("CREATE TABLE orders (id int)");
    for (publishes, other) in [
        ("FOR TABLE outbox_events, orders", "table public.orders"),
        ("FOR ALL TABLES", "all tables"),
        ("FOR TABLES IN SCHEMA public", "all tables in schema public"),
    ] {
        stage.sql.run("DROP PUBLICATION IF EXISTS walrelay");
        stage.sql.run(&format!("CREATE PUBLICATION walrelay {publishes} {with}"));
        let kept = format!("publication walrelay kept: it also publishes {other};");
        let ended = stage.teardown(&["--yes", "--accept-gap"]);
        assert_ended(&ended, 0, &[&kept, "* slot walrelay dropped"]);
        assert_eq!(stage.left(), "0 1 1 1", "{publishes}");
        assert_ended(&stage.teardown(&["--yes"]), 0, &[&kept, "nothing to drop"]);
        stage.sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput')");
    }
    let ended = stage.teardown(&["--yes", "--accept-gap"]);
    stage.sql.run(&printed(&ended.notes, "DROP PUBLICATION"));
    assert_eq!(stage.left(), "0 0 1 1");
}

#[test]
fn another_slot_that_may_use_the_publication_is_named() {
    let stage = Stage::new();
    stage.sql.run("SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    let warning = "warning: if slot other of this database uses publication walrelay as well, it fails without it";
    assert_ended(&stage.teardown(&["--yes"]), 0, &[warning, "* publication walrelay dropped"]);
}

#[test]
fn a_stored_position_that_the_role_cannot_delete_is_refused_before_anything_is_dropped() {
    let stage = Stage::new();
    stage.sql.run("CREATE ROLE relay LOGIN REPLICATION; ALTER PUBLICATION walrelay OWNER TO relay");
    let url = format!("postgres.url=postgres://relay@127.0.0.1:{}/postgres", stage.postgres.port());
    let teardown = || stage.teardown(&["--set", &url, "--yes", "--with-position"]);
    for missing in ["USAGE ON SCHEMA walrelay", "SELECT, DELETE ON walrelay.position", "DELETE ON walrelay.position"] {
        let refused = teardown();
        let expected = format!("role \"relay\" cannot delete the stored position: it lacks {missing}");
        assert_ended(&refused, 67, &["error[WR-6704]", &expected]);
        assert_eq!(stage.left(), "1 1 1 1");
        if missing.starts_with("SELECT") {
            stage.sql.run("GRANT SELECT ON walrelay.position TO relay");
        } else {
            stage.sql.run(&printed(&refused.notes, "GRANT"));
        }
    }
    assert_ended(&teardown(), 0, &["* stored position of slot walrelay deleted"]);
    assert_eq!(stage.left(), "0 0 1 1");
}

#[test]
fn a_lost_slot_is_dropped_only_if_the_gap_is_accepted() {
    let stage = Stage::new();
    stage.sql.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; ");
    stage.sql.run("SELECT pg_reload_conf()");
    stage.insert(1);
    for _ in 0..4 {
        stage
            .sql
            .text("SELECT pg_switch_wal()::text FROM (SELECT pg_logical_emit_message(false, 'a', 'b')) AS written");
    }
    stage.sql.run("CHECKPOINT");
    assert_eq!(stage.sql.text("SELECT wal_status FROM pg_replication_slots"), "lost");
    let refused = stage.teardown(&["--yes"]);
    assert_ended(&refused, 66, &["it is lost, and retains no WAL", "error[WR-6621]", "\"walrelay\" is lost"]);
    assert_eq!(stage.left(), "1 1 1 1");
    assert_ended(&accepting(&refused), 0, &["* slot walrelay dropped"]);
}

#[test]
fn mode_poll_has_nothing_to_drop() {
    let stage = Stage::new();
    let ended = stage.teardown(&["--set", "source.mode=poll", "--yes"]);
    assert_ended(&ended, 0, &["nothing to drop"]);
    assert_eq!(stage.left(), "1 1 1 1");
    assert_ended(&paste(&format!("{} --yes", printed(&ended.notes, "walrelay --config"))), 0, &["* slot walrelay"]);
}
