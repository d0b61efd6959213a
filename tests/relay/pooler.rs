//! Polling through a pooler that runs each transaction on any free session: nothing is left on the session.

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use super::poll::UNPUBLISHED;
use super::poll::await_text;
use super::poll::polling;
use crate::support::kafka::Kafka;
use crate::support::pooler::Pooler;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

/// The settings of a session, and the number of its prepared statements.
const LOOK: &str = "INSERT INTO public.seen SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) || ' '
    || (SELECT count(*) FROM pg_prepared_statements) FROM pg_settings WHERE name IN ('search_path', \
    'synchronous_commit',
    'lock_timeout', 'idle_in_transaction_session_timeout', 'row_security', 'statement_timeout', 'client_encoding',
    'default_transaction_read_only')";

#[test]
fn polling_through_a_pooler_in_transaction_mode_leaves_sessions_unchanged() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    kafka.create_topic("poll-pooler", 1);
    // One session for all clients.
    let pooler = Pooler::start(
        &postgres,
        "pool_mode = transaction\ndefault_pool_size = 1\nquery_wait_timeout = 1\nserver_login_retry = \
         1\nmax_client_conn = 3",
    );
    let mut program = polling(&pooler.url(), &kafka.bootstrap(), "poll-pooler", "");
    let (sql, application) = (Sql::connect(&postgres.url()), Sql::connect(&pooler.url()));
    sql.run("CREATE TABLE seen (text text)");
    application.run(LOOK);
    program.setup();
    sql.prepare();
    program.start_streaming();
    let mut others = Vec::new();
    for round in 0..20 {
        sql.run("SELECT emit('k1')");
        application.run(LOOK);
        if round == 10 {
            // Another relay, whose prepared statements would have the same names.
            let mut other = polling(&pooler.url(), &kafka.bootstrap(), "poll-pooler", "");
            other.start_streaming();
            others.push(other);
        }
    }
    await_text(&sql, UNPUBLISHED, "0", &program);
    assert_eq!(
        sql.text("SELECT count(DISTINCT text)::text FROM seen"),
        "1",
        "{}",
        sql.text("SELECT string_agg(DISTINCT text, E'\\n') FROM seen")
    );
    for program in others.iter_mut().chain([&mut program]) {
        assert!(!program.log().contains("WARN"), "{}", program.log());
    }
    // A third client is one too many for now, then the server is down: both are transient.
    let mut third = polling(&pooler.url(), &kafka.bootstrap(), "poll-pooler", "");
    third.start();
    third.await_log("no more connections allowed");
    drop(others);
    third.await_state("streaming");
    third.kill();
    drop(sql);
    postgres.stop(StopMode::Fast).unwrap();
    program.await_log("08P01");
    postgres.resume().unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run("SELECT emit('k1')");
    await_text(&sql, UNPUBLISHED, "0", &program);
    reader::check(&reader::read_all(&kafka.bootstrap(), "poll-pooler"), &sql.truth(), 1);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
}

#[test]
fn check_and_status_through_a_pooler_leave_the_applications_session_unchanged_in_both_modes() {
    let postgres = Postgres::start(Options::default()).unwrap();
    // One session for all clients.
    let pooler = Pooler::start(&postgres, "pool_mode = transaction\ndefault_pool_size = 1");
    let (sql, application) = (Sql::connect(&postgres.url()), Sql::connect(&pooler.url()));
    sql.run("CREATE TABLE seen (text text)");
    application.run(LOOK);
    for (more, read) in [("", "\"published_table\""), ("[source]\nmode = \"poll\"\n", "\"polling\"")] {
        Program::new(&postgres.url(), "127.0.0.1:1", more).setup();
        let program = Program::new(&pooler.url(), "127.0.0.1:1", more);
        let checked = program.verb(&["check", "-o", "json"]);
        assert!(checked.out.contains(read), "{checked:?}");
        application.run(LOOK);
        let status = program.verb(&["status"]);
        assert!(status.out.contains("1 table") || status.out.contains("0 events"), "{status:?}");
        application.run(LOOK);
    }
    let seen = sql.text("SELECT string_agg(DISTINCT text, E'\\n') FROM seen");
    assert_eq!(seen.lines().count(), 1, "{seen}");
    assert_eq!(sql.text("SELECT count(*)::text FROM seen"), "5");
}

#[test]
fn a_pooler_in_statement_mode_stops_with_65() {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::shared());
    let pooler = Pooler::start(&postgres, "pool_mode = statement");
    let mut program = polling(&pooler.url(), &kafka.bootstrap(), "poll-split", "");
    program.start();
    assert_eq!(program.wait(), Some(65), "{}", program.log());
    assert!(program.log().contains("pool_mode = session"), "{}", program.log());
}
