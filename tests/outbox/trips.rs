//! What an append costs, and poolers that it goes through.

use sqlx::Connection as _;
use sqlx::PgConnection;
use tokio_postgres::NoTls;
use walrelay_events::event::Envelope;
use walrelay_events::outbox;
use walrelay_events::outbox::Columns;
use walrelay_events::outbox::Outbox;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::connect;
use super::created;
use crate::support::kafka::free_port;
use crate::support::kafka::proxy::Proxy;
use crate::support::pooler::Pooler;
use crate::support::source::Sql;

const TABLE: &str = "CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_type text, aggregate_id text,
    event_type text, payload jsonb, headers jsonb, created_at timestamptz)";

fn start() -> (Postgres, Sql) {
    let postgres = Postgres::start(Options::default()).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(TABLE);
    (postgres, sql)
}

#[test]
fn an_append_is_one_round_trip_on_either_client() {
    let (postgres, sql) = start();
    let url = |proxy: &Proxy| format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address());
    let [first, second] = [(); 2].map(|()| Proxy::start(free_port(), postgres.port()));
    let (runtime, mut client) = connect(&url(&first));
    runtime.block_on(async {
        let envelopes: Vec<_> = (0..100).map(|number| Envelope::new("Order", "o-1", created(number))).collect();
        let tx = client.transaction().await.unwrap();
        for envelope in &envelopes[..3] {
            let before = first.round_trips();
            outbox::append(&tx, envelope).await.unwrap();
            assert_eq!(first.round_trips() - before, 1);
        }
        let before = first.round_trips();
        outbox::append_many(&tx, &envelopes[3..]).await.unwrap();
        assert_eq!(first.round_trips() - before, 1);
        tx.commit().await.unwrap();

        let envelopes: Vec<_> = (0..100).map(|number| Envelope::new("Order", "o-1", created(number))).collect();
        let mut connection = PgConnection::connect(&url(&second)).await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        // sqlx prepares the statement, once for each connection.
        outbox::sqlx::append(&mut tx, &envelopes[0]).await.unwrap();
        for envelope in &envelopes[1..4] {
            let before = second.round_trips();
            outbox::sqlx::append(&mut tx, envelope).await.unwrap();
            assert_eq!(second.round_trips() - before, 1);
        }
        let before = second.round_trips();
        outbox::sqlx::append_many(&mut tx, &envelopes[4..]).await.unwrap();
        assert_eq!(second.round_trips() - before, 1);
        tx.commit().await.unwrap();
    });
    assert_eq!(sql.text("SELECT count(*)::text FROM outbox_events"), "200");
}

#[test]
fn events_are_appended_through_a_pooler_in_transaction_mode() {
    let (postgres, sql) = start();
    // One session for all clients: a prepared statement of one of them would be in the way of the others.
    let settings = "pool_mode = transaction\ndefault_pool_size = 1\nignore_startup_parameters = extra_float_digits";
    let pooler = Pooler::start(&postgres, settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let outbox = Outbox::new("outbox_events", &Columns::default()).unwrap().without_prepared_statements();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (client, connection) = tokio_postgres::connect(&pooler.url(), NoTls).await.unwrap();
            tokio::spawn(connection);
            clients.push((client, PgConnection::connect(&pooler.url()).await.unwrap()));
        }
        for number in 0..10 {
            for (client, connection) in &mut clients {
                let tx = client.transaction().await.unwrap();
                outbox.append(&tx, &Envelope::new("Order", "o-1", created(number))).await.unwrap();
                tx.commit().await.unwrap();
                let mut tx = connection.begin().await.unwrap();
                outbox.append_sqlx(&mut tx, &Envelope::new("Order", "o-1", created(number))).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
    });
    assert_eq!(sql.text("SELECT count(*)::text FROM outbox_events"), "40");
}
