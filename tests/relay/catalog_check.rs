//! The catalog check of publication, tables and slot: at the start and while running.

use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::delivery::prepared;
use super::gaps::version;
use crate::support::kafka::Kafka;
use crate::support::program::Ended;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

/// Runs `run` to its end, and gives its log.
pub(super) fn ends(program: &mut Program) -> (Option<i32>, String) {
    let before = program.log().len();
    program.start();
    let code = program.wait();
    // As a log record quotes it.
    (code, program.log()[before..].replace("\\\"", "\""))
}

/// Gives the SQL statement in the command after `next: `.
pub(super) fn sql_of(log: &str) -> String {
    let (_, rest) = log.rsplit_once("run `").unwrap_or_else(|| panic!("no statement in {log}"));
    rest.split_once('`').unwrap().0.to_owned()
}

/// Column lists and row filters came with PostgreSQL 15.
pub(super) fn has_lists(sql: &Sql) -> bool {
    version(sql) >= 150_000
}

pub(super) fn accept(program: &Program) -> Ended {
    program.verb(&["setup", "--apply", "--accept-gap"])
}

#[test]
fn a12_a_slot_with_two_phase_is_an_error_at_setup_and_at_start() {
    let options = Options::default().with_settings(vec!["max_prepared_transactions = 5".into()]);
    let (postgres, kafka) = (Postgres::start(options).unwrap(), Kafka::shared());
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "two-phase", "");
    sql.run("DELETE FROM walrelay.position; SELECT pg_drop_replication_slot('walrelay')");
    sql.run("SELECT pg_create_logical_replication_slot('walrelay', 'pgoutput', false, true)");
    let refused = program.verb(&["setup", "--apply"]);
    assert!(refused.code == Some(65) && refused.notes.contains("two_phase"), "{refused:?}");
    sql.run(
        "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position)
         SELECT 'walrelay', system_identifier::text, 1, confirmed_flush_lsn, confirmed_flush_lsn
         FROM pg_control_system(), pg_replication_slots",
    );
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("two_phase"), "{code:?} {log}");
    // The printed next step helps.
    sql.run(&sql_of(&log));
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
}

#[test]
fn c13_a_mapped_column_that_is_not_published_is_an_error_at_start() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("listed", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "listed", "");
    let lists: &[&str] = if has_lists(&sql) { &["headers", "payload"] } else { &[] };
    for hidden in lists {
        let kept = ["id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers"];
        let kept: Vec<_> = kept.into_iter().filter(|name| name != hidden).collect();
        sql.run(&format!("ALTER PUBLICATION walrelay SET TABLE outbox_events ({})", kept.join(", ")));
        let (code, log) = ends(&mut program);
        let text = format!("does not publish column \\\"{hidden}\\\"");
        assert!(code == Some(65) && log.replace('\\', "").contains(&text.replace('\\', "")), "{code:?} {log}");
        sql.run(&sql_of(&log));
    }
    if !lists.is_empty() {
        // Events committed meanwhile may lack a column.
        let (code, log) = ends(&mut program);
        assert!(code == Some(66) && log.contains("--accept-gap"), "{code:?} {log}");
        assert_eq!(accept(&program).code, Some(0));
    }

    sql.run(
        "ALTER TABLE outbox_events DROP COLUMN headers;
         ALTER TABLE outbox_events ADD COLUMN headers jsonb GENERATED ALWAYS AS ('{}'::jsonb) STORED",
    );
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("generated column"), "{code:?} {log}");
    sql.run(&sql_of(&log));
    // Events committed before that lack the column.
    let (code, log) = ends(&mut program);
    assert!(code == Some(66) && log.contains("--accept-gap"), "{code:?} {log}");
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
}

#[test]
fn an_inherited_table_without_an_outbox_is_an_error_at_start_and_while_running() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("inherited", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "inherited", "");
    sql.run("CREATE TABLE child_events () INHERITS (outbox_events)");
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("child_events"), "{code:?} {log}");
    sql.run(&sql_of(&log));
    // Rows written into it meanwhile were not published, and the catalog does not show it any more.
    for _ in 0..2 {
        let (code, log) = ends(&mut program);
        assert!(code == Some(66) && log.contains("child_events") && log.contains("--accept-gap"), "{code:?} {log}");
    }
    assert_eq!(program.verb(&["setup", "--apply"]).code, Some(66), "setup alone accepts no gap");
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
    sql.run(
        "ALTER TABLE child_events INHERIT outbox_events;
         INSERT INTO child_events (id, aggregate_type, aggregate_id, event_type) VALUES (gen_random_uuid(), 'a', 'a', \
         'E2')",
    );
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    // The rows of the child were never published, and the catalog no longer shows it.
    sql.run("ALTER TABLE child_events NO INHERIT outbox_events");
    let (code, log) = ends(&mut program);
    assert!(code == Some(66), "{code:?} {log}");
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
}

#[test]
fn a_doubt_is_kept_of_a_table_that_came_back_under_a_new_name() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("doubtful", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "doubtful", "");
    program.start_streaming();
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    // What is kept beside the position has the old name.
    sql.run("ALTER TABLE outbox_events RENAME TO events; CREATE TABLE child_events () INHERITS (events)");
    let names = "table = \"public.events\"\nrenamed_from = [\"public.outbox_events\"]";
    let mut program =
        Program::new(&postgres.url(), &kafka.bootstrap(), &format!("[[outbox]]\n{names}\ntopic = \"doubtful\"\n"));
    let (code, log) = ends(&mut program);
    assert!(code == Some(65) && log.contains("child_events"), "{code:?} {log}");
    sql.run(&sql_of(&log));
    let (code, log) = ends(&mut program);
    assert!(code == Some(66) && log.contains("child_events") && log.contains("--accept-gap"), "{code:?} {log}");
    assert_eq!(accept(&program).code, Some(0));
    program.start_streaming();
}

#[test]
fn c3_c4_c5_what_may_have_passed_unseen_while_the_relay_was_down_is_a_gap_and_the_way_on_works() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("away", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "away", "");
    program.start_streaming();
    let mut expected = 0;
    // Each pair hides an event and undoes what hid it.
    let holes = [
        ("ALTER PUBLICATION walrelay SET (publish = 'update')", "ALTER PUBLICATION walrelay SET (publish = 'insert')"),
        ("ALTER PUBLICATION walrelay DROP TABLE outbox_events", "ALTER PUBLICATION walrelay ADD TABLE outbox_events"),
        (
            "ALTER PUBLICATION walrelay SET TABLE outbox_events WHERE (event_type = 'x')",
            "ALTER PUBLICATION walrelay SET TABLE outbox_events",
        ),
        (
            "ALTER TABLE outbox_events RENAME TO aside; CREATE TABLE outbox_events (LIKE aside INCLUDING ALL)",
            "DROP TABLE aside; ALTER PUBLICATION walrelay ADD TABLE outbox_events",
        ),
        (
            "DROP PUBLICATION walrelay",
            "CREATE PUBLICATION walrelay FOR TABLE outbox_events WITH (publish = 'insert', \
             publish_via_partition_root = true)",
        ),
    ];
    for (hide, undo) in holes.into_iter().filter(|(hide, _)| has_lists(&sql) || !hide.contains(" WHERE (")) {
        sql.run("SELECT emit('k1')");
        sql.await_all_confirmed(Duration::from_secs(15));
        expected += 1;
        assert_eq!(program.terminate(), Some(0), "{}", program.log());
        let began = sql.wal_end();
        sql.run(hide);
        sql.run("SELECT emit('k2')");
        sql.run(undo);
        let (code, log) = ends(&mut program);
        assert_eq!(code, Some(66), "{hide}: {log}");
        assert!(log.contains("WR-6603") && log.contains("--accept-gap") && log.contains(" and "), "{hide}: {log}");
        let refused = program.verb(&["setup", "--apply"]);
        assert_eq!(refused.code, Some(66), "{hide}: setup alone accepts no gap: {}", refused.notes);
        let accepted = accept(&program);
        assert_eq!(accepted.code, Some(0), "{hide}: {}", accepted.notes);
        if hide == "DROP PUBLICATION walrelay" && !has_lists(&sql) {
            // PostgreSQL 14 sends transactions without rows as well, which are confirmed first.
            let (code, log) = ends(&mut program);
            assert!(code == Some(65) && log.contains("--accept-gap"), "{code:?} {log}");
            assert_eq!(accept(&program).code, Some(0));
        }
        program.start_streaming();
        sql.await_confirmed(began, Duration::from_secs(15));
        assert_eq!(reader::read_all(&kafka.bootstrap(), "away").len(), expected, "{hide}: {}", program.log());
    }
    // A change that cannot hide an event is no gap.
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    sql.run(
        "CREATE TABLE elsewhere (id int); ALTER PUBLICATION walrelay ADD TABLE elsewhere;
         ALTER PUBLICATION walrelay DROP TABLE elsewhere",
    );
    for name in ["pg_publication", "pg_publication_rel"] {
        sql.run(&format!("VACUUM (FREEZE, FULL) {name}"));
    }
    sql.run(
        "CREATE INDEX ON outbox_events (created_at); ALTER TABLE outbox_events ADD COLUMN more text; ANALYZE \
             outbox_events",
    );
    program.start_streaming();
}

#[test]
fn c3_c4_a_change_that_hides_events_stops_a_running_relay_before_it_confirms_them() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("running", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "running", "");
    let holes = [
        // Undone at once: only the row versions in the catalog show it.
        (
            "ALTER PUBLICATION walrelay DROP TABLE outbox_events; SELECT emit('k2');
             ALTER PUBLICATION walrelay ADD TABLE outbox_events",
            66,
            "",
        ),
        (
            "ALTER PUBLICATION walrelay SET (publish = 'update')",
            65,
            "ALTER PUBLICATION walrelay SET (publish = 'insert')",
        ),
        (
            "ALTER PUBLICATION walrelay SET (publish_via_partition_root = false)",
            65,
            "ALTER PUBLICATION walrelay SET (publish_via_partition_root = true)",
        ),
        (
            "ALTER PUBLICATION walrelay DROP TABLE outbox_events",
            65,
            "ALTER PUBLICATION walrelay ADD TABLE outbox_events",
        ),
        (
            "ALTER PUBLICATION walrelay SET TABLE outbox_events (id, payload)",
            65,
            "ALTER PUBLICATION walrelay SET TABLE outbox_events",
        ),
        ("ALTER TABLE outbox_events RENAME TO aside", 65, "ALTER TABLE aside RENAME TO outbox_events"),
    ];
    for (hide, code, undo) in holes.into_iter().filter(|(hide, ..)| has_lists(&sql) || !hide.contains("(id, payload)"))
    {
        program.start_streaming();
        sql.run("SELECT emit('k1')");
        sql.await_all_confirmed(Duration::from_secs(30));
        let before = sql.wal_end();
        // Each statement separately.
        hide.split(';').for_each(|statement| sql.run(statement));
        sql.run("INSERT INTO other (noise) VALUES ('n')");
        let hidden = sql.wal_end();
        assert_eq!(program.wait(), Some(code), "{hide}: {}", program.log());
        assert!(sql.confirmed() < hidden, "{hide}: {} is confirmed, hidden from {before}", sql.confirmed());
        if !undo.is_empty() {
            sql.run(undo);
        }
        if !hide.contains("RENAME") {
            let (code, log) = ends(&mut program);
            assert_eq!(code, Some(66), "{hide}: {log}");
            let accepted = accept(&program);
            assert_eq!(accepted.code, Some(0), "{hide}: {}", accepted.notes);
        }
    }
    program.start_streaming();
}

#[test]
fn a_position_table_without_catalog_state_needs_setup() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("earlier", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "earlier", "");
    sql.run("ALTER TABLE walrelay.position DROP COLUMN catalog_state; SELECT emit('k1')");
    let (code, log) = ends(&mut program);
    assert!(code == Some(71) && log.contains("setup --apply"), "{code:?} {log}");
    program.setup();
    program.start_streaming();
    sql.await_all_confirmed(Duration::from_secs(15));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "earlier").len(), 1);
}

#[test]
fn c2_a_dropped_publication_and_a_wrong_option_are_not_reported_as_a_missing_slot() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("dropped", 1);
    let (mut program, sql) = prepared(&postgres, &kafka.bootstrap(), "dropped", "");
    program.start_streaming();
    sql.run("DROP PUBLICATION walrelay");
    sql.run("SELECT emit('k1')");
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    let url = format!("{}?options=-c%20no_such_setting%3D1", postgres.url());
    let outbox = "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"dropped\"\n";
    let (code, log) = ends(&mut Program::new(&url, &kafka.bootstrap(), outbox));
    assert!(code == Some(64) && log.contains("options="), "{code:?} {log}");
}
