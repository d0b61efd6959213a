//! Broken tables and privileges of the polling source.

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
use super::report;

#[test]
fn columns_index_and_privileges_of_the_polling_source_are_checked_and_slot_and_publication_are_not() {
    let (postgres, broker) = (Postgres::start(Options::default()).unwrap(), Broker::start(1).unwrap());
    let sql = Sql::connect(&postgres.url());
    sql.run("CREATE ROLE poller LOGIN");
    let poll = "[source]\nmode = \"poll\"\n";
    let admin = Program::new(&postgres.url(), &broker.bootstrap(), poll);
    let ended = admin.verb(&["setup", "--apply", "--with-outbox", "--role", "poller"]);
    assert_eq!(ended.code, Some(0), "{}", ended.notes);
    let url = format!("postgres://poller@127.0.0.1:{}/postgres", postgres.port());
    let program = Program::new(&url, &broker.bootstrap(), poll);
    let first = report(&program, &[]);
    assert_eq!(find(&first, "polling")["status"], "ok", "{first:#}");
    assert!(!first.to_string().contains("\"slot\"") && !first.to_string().contains("publication"), "{first:#}");

    // A published row may be older than its topic.
    let insert = "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload, published_at)";
    sql.run(&format!("{insert} VALUES ('Old', 'a', 'b', '{{}}', now())"));
    let published = report(&program, &[]);
    let needs = find(&published, "topics")["needs"].as_str().unwrap();
    assert!(needs.starts_with("an unpublished row"), "{published:#}");
    sql.run(&format!("{insert} VALUES ('New', 'a', 'b', '{{}}', NULL)"));
    let unpublished = report(&program, &[]);
    assert_eq!(find(&unpublished, "topics")["found"], "new-events", "{unpublished:#}");
    assert_eq!(failed(&unpublished), Vec::<String>::new(), "{unpublished:#}");

    let case = |broken: &str, title: &str, code: &str, fixes: &[&str]| {
        break_and_fix(&program, &sql, &Case { broken, title, code, fixes });
    };
    let grant: &[&str] = &["GRANT USAGE ON SCHEMA \"public\" TO \"poller\""];
    case("REVOKE UPDATE (published_at) ON outbox_events FROM poller", "polling", "WR-6720", grant);
    case("REVOKE SELECT ON outbox_events FROM poller", "polling", "WR-6720", grant);
    case("ALTER TABLE outbox_events DROP COLUMN payload", "table", "WR-6504", &["ALTER TABLE"]);

    sql.run("DROP INDEX outbox_events_unpublished");
    let warned = report(&program, &[]);
    let polling = find(&warned, "polling");
    assert!(polling["status"] == "warning" && polling["findings"][0]["code"] == "WR-0108", "{warned:#}");
    let created = commands(polling)[0].clone();
    assert!(created.starts_with("CREATE INDEX CONCURRENTLY "), "the application can insert meanwhile: {created}");
    sql.run(&created);
    await_status(&program, "polling", "ok");

    // As if its creation had failed.
    sql.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_events_unpublished'::regclass");
    let unusable = report(&program, &[]);
    let next = commands(find(&unusable, "polling"));
    assert_eq!(next, ["REINDEX INDEX CONCURRENTLY public.outbox_events_unpublished"], "{unusable:#}");
    sql.run(&next[0]);
    await_status(&program, "polling", "ok");
}
