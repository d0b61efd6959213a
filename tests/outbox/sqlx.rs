//! Events of the writer on sqlx.

use sqlx::Connection as _;
use sqlx::PgConnection;
use walrelay_events::event::Envelope;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::outbox;
use walrelay_events::outbox::Columns;
use walrelay_events::outbox::Outbox;

use super::Application;
use super::assert_is;
use super::created;

#[test]
fn g2_what_sqlx_commits_arrives_as_it_was_said_and_what_it_rolls_back_does_not() {
    let app = Application::start("writer-sqlx");
    let envelopes: Vec<_> = (0..2_500).map(|number| Envelope::new("Order", "o-1", created(number))).collect();
    app.runtime.block_on(async {
        let mut connection = PgConnection::connect(&app.postgres.url()).await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        outbox::sqlx::append(&mut tx, &Envelope::new("Order", "o-1", created(-1))).await.unwrap();
        tx.rollback().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        assert_eq!(outbox::sqlx::append(&mut tx, &envelopes[0]).await.unwrap(), envelopes[0].event_id);
        outbox::sqlx::append_many(&mut tx, &envelopes[1..]).await.unwrap();
        tx.commit().await.unwrap();
        let missing = Outbox::new("shop.events", &Columns::default()).unwrap();
        let mut tx = connection.begin().await.unwrap();
        let error = missing.append_sqlx(&mut tx, &envelopes[0]).await.unwrap_err();
        assert_eq!(error.code().to_string(), "WR-6530");
        assert!(error.help().unwrap().contains("shop.events"), "{error}");
    });
    let records = app.records();
    assert_eq!(records.len(), envelopes.len());
    records.iter().zip(&envelopes).for_each(|(record, envelope)| assert_is(record, envelope));
}
