//! Events of the writer on tokio-postgres.

use std::collections::HashMap;

use walrelay_events::event::Envelope;
use walrelay_events::event::TraceContext;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;
use walrelay_events::outbox;
use walrelay_events::outbox::Columns;
use walrelay_events::outbox::Error;
use walrelay_events::outbox::Outbox;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::Application;
use super::OrderEvent;
use super::assert_is;
use super::connect;
use super::created;

#[test]
fn g2_what_the_writer_commits_arrives_as_it_was_said_and_what_it_rolls_back_does_not() {
    let mut app = Application::start("writer");
    let trace = TraceContext::new(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        Some("congo=t61rcWkgMzE"),
        Some("user=7"),
    );
    let first = Envelope::new("Order", "o-1", created(1)).with_trace(Some(trace.unwrap()));
    let second = Envelope::new("Order", "o-1", OrderEvent::OrderShipped { parcels: vec!["p".into(), String::new()] });
    let undone = Envelope::new("Order", "o-1", created(2));
    app.runtime.block_on(async {
        let tx = app.client.transaction().await.unwrap();
        assert_eq!(outbox::append(&tx, &undone).await.unwrap(), undone.event_id);
        tx.rollback().await.unwrap();
        let tx = app.client.transaction().await.unwrap();
        outbox::append_many(&tx, &[undone.clone(), undone.clone()][..1]).await.unwrap();
        drop(tx);
        let mut tx = app.client.transaction().await.unwrap();
        outbox::append(&tx, &first).await.unwrap();
        let savepoint = tx.transaction().await.unwrap();
        outbox::append(&savepoint, &undone).await.unwrap();
        savepoint.rollback().await.unwrap();
        outbox::append_many::<OrderEvent>(&tx, &[]).await.unwrap();
        outbox::append(&tx, &second).await.unwrap();
        tx.commit().await.unwrap();
    });
    let created_at =
        "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM outbox_events
                      ORDER BY id LIMIT 1";
    assert_eq!(Some(app.sql.text(created_at)), walrelay_events::event::format_rfc3339(first.occurred_at));
    let records = app.records();
    assert_eq!(records.len(), 2, "{records:?}");
    assert_is(&records[0], &first);
    assert_is(&records[1], &second);
}

#[test]
fn g3_a_large_batch_arrives_whole_and_in_its_order() {
    let mut app = Application::start("writer-batch");
    let envelopes: Vec<_> =
        (0..2_500).map(|number| Envelope::new("Order", format!("o-{}", number % 7), created(number))).collect();
    app.runtime.block_on(async {
        let tx = app.client.transaction().await.unwrap();
        outbox::append_many(&tx, &envelopes).await.unwrap();
        tx.commit().await.unwrap();
    });
    let mut by_key: HashMap<Vec<u8>, Vec<_>> = HashMap::new();
    for record in app.records() {
        by_key.entry(record.key.clone().unwrap()).or_default().push(record);
    }
    assert_eq!(by_key.values().map(Vec::len).sum::<usize>(), envelopes.len());
    for (key, records) in &by_key {
        let of_key = envelopes.iter().filter(|envelope| envelope.aggregate_id.as_bytes() == key);
        records.iter().zip(of_key).for_each(|(record, envelope)| assert_is(record, envelope));
    }
}

#[test]
fn another_table_with_other_columns_is_written_and_relayed() {
    let mut app = Application::start_with(
        "writer-columns",
        "table = \"shop.Events\"\n[outbox.columns]\nid = \"Event Id\"\naggregate_type = \"kind\"\n\
         aggregate_id = \"key\"\n\
         event_type = \"what\"\npayload = \"body\"\nheaders = \"extra\"\ncreated_at = \"at\"",
        "CREATE SCHEMA shop; CREATE TABLE shop.\"Events\" (\"Event Id\" text PRIMARY KEY, kind varchar(30), key text,
             what text, body json, extra json, at timestamptz)",
    );
    let mut columns = Columns::default();
    columns.id = "Event Id".into();
    columns.aggregate_type = "kind".into();
    columns.aggregate_id = "key".into();
    columns.event_type = "what".into();
    columns.payload = "body".into();
    columns.headers = Some("extra".into());
    columns.created_at = Some("at".into());
    let outbox = Outbox::new("shop.Events", &columns).unwrap();
    let envelopes: Vec<_> = (0..3).map(|number| Envelope::new("Order", "o-1", created(number))).collect();
    app.runtime.block_on(async {
        let tx = app.client.transaction().await.unwrap();
        outbox.append(&tx, &envelopes[0]).await.unwrap();
        outbox.append_many(&tx, &envelopes[1..]).await.unwrap();
        tx.commit().await.unwrap();
    });
    let records = app.records();
    assert_eq!(records.len(), 3);
    records.iter().zip(&envelopes).for_each(|(record, envelope)| assert_is(record, envelope));
}

#[test]
fn a_refused_event_says_what_to_do_and_quotes_nothing_of_itself() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let (runtime, mut client) = connect(&postgres.url());
    let sql = crate::support::source::Sql::connect(&postgres.url());
    let mut refused = |event: &Envelope<OrderEvent>| -> Error {
        runtime.block_on(async {
            let tx = client.transaction().await.unwrap();
            outbox::append(&tx, event).await.unwrap_err()
        })
    };
    let event = Envelope::new("Order", "geheim", created(1));
    let described = |error: Error| {
        let text = format!("{} {}", walrelay_events::fault::chain(&error), error.help().unwrap());
        assert!(!text.contains("geheim"), "{text}");
        (error.code().to_string(), error.fate(), text)
    };
    let (code, fate, text) = described(refused(&event));
    assert_eq!((code.as_str(), fate), ("WR-6530", Fate::Fatal));
    assert!(text.contains("public.outbox_events") && text.contains("walrelay setup --with-outbox"), "{text}");

    sql.run(
        "CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_type text, aggregate_id text, event_type text)",
    );
    let (code, _, text) = described(refused(&event));
    assert!(code == "WR-6530" && text.contains("\"payload\""), "{text}");
    assert!(text.contains("walrelay setup --with-outbox"), "{text}");

    sql.run(
        "ALTER TABLE outbox_events ADD payload jsonb, ADD headers jsonb, ADD created_at timestamptz,
             ADD CHECK (aggregate_id <> 'geheim')",
    );
    let (code, fate, text) = described(refused(&event));
    assert_eq!((code.as_str(), fate), ("WR-6531", Fate::Fatal));
    assert!(text.contains("check constraint"), "{text}");

    let nul = Envelope::new("Order", "o-1", OrderEvent::OrderShipped { parcels: vec!["geheim\0".into()] });
    runtime.block_on(async {
        let tx = client.transaction().await.unwrap();
        let (code, _, _) = described(outbox::append(&tx, &nul).await.unwrap_err());
        assert_eq!(code, "WR-7062");
        outbox::append(&tx, &Envelope::new("Order", "o-1", created(1))).await.unwrap();
        tx.commit().await.unwrap();
    });
    assert_eq!(sql.text("SELECT count(*)::text FROM outbox_events"), "1", "the transaction was still good");
}
