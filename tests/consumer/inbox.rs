//! The inbox by itself, on both clients.

use std::time::Duration;
use std::time::Instant;

use sqlx::Connection as _;
use sqlx::PgConnection;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use uuid::Uuid;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::event::EventId;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::stage::Effects;
use crate::support::kafka::free_port;
use crate::support::kafka::proxy::Proxy;
use crate::support::pooler::Pooler;

/// What an inbox held that was created before ids could be anything but UUIDs.
const UUID_INBOX: &str = "CREATE SCHEMA walrelay;
    CREATE TABLE walrelay.inbox (consumer text NOT NULL, event_id uuid NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (consumer, event_id));
    CREATE INDEX inbox_seen_at ON walrelay.inbox USING brin (seen_at)";
/// The statement of the manual that lets it hold any id.
const MIGRATION: &str = "ALTER TABLE walrelay.inbox ALTER COLUMN event_id TYPE text COLLATE \"C\"";

/// Both clients on one server.
struct Clients {
    postgres: Client,
    sqlx: PgConnection,
}

impl Clients {
    async fn connect(url: &str) -> Self {
        Self { postgres: connect(url).await, sqlx: PgConnection::connect(url).await.unwrap() }
    }

    /// Inserts an event with one client and then with the other one.
    async fn once(&mut self, inbox: &Inbox, consumer: &str, id: &EventId) -> [Once; 2] {
        let tx = self.postgres.transaction().await.unwrap();
        let first = inbox.once(&tx, consumer, id).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = self.sqlx.begin().await.unwrap();
        let second = inbox.once_sqlx(&mut tx, consumer, id).await.unwrap();
        tx.commit().await.unwrap();
        [first, second]
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn start() -> Postgres {
    tokio::task::spawn_blocking(|| Postgres::start(Options::default()).unwrap()).await.unwrap()
}

async fn end<T: Send + 'static>(servers: T) {
    tokio::task::spawn_blocking(move || drop(servers)).await.unwrap();
}

fn id(text: &str) -> EventId {
    text.parse().unwrap()
}

/// Ids of every kind, in the order of their text.
fn ids() -> Vec<EventId> {
    let texts = [
        "'); DROP TABLE walrelay.inbox; --",
        "0190a5c3-7b1e-7d3a-9f00-2c8e6a1b4d5f",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "42",
        "\\",
        "order 7 'Zoë' \"家\"",
    ];
    texts.into_iter().map(id).collect()
}

#[tokio::test]
async fn an_event_is_first_once_for_each_consumer_and_again_after_a_rollback() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let Clients { mut postgres, mut sqlx } = Clients::connect(&effects.postgres.url()).await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    for (consumer, commits, expected) in
        [("a", false, Once::New), ("a", true, Once::New), ("a", true, Once::Duplicate), ("b'", true, Once::New)]
    {
        let tx = postgres.transaction().await.unwrap();
        assert_eq!(inbox::once(&tx, consumer, one).await.unwrap(), expected);
        let mut sqlx_tx = sqlx.begin().await.unwrap();
        assert_eq!(inbox::sqlx::once(&mut sqlx_tx, consumer, other).await.unwrap(), expected);
        if commits {
            tx.commit().await.unwrap();
            sqlx_tx.commit().await.unwrap();
        }
    }
    let given: Vec<EventId> = ids().into_iter().rev().chain([one.into(), id("42")]).collect();
    let tx = postgres.transaction().await.unwrap();
    assert_eq!(inbox::once_each(&tx, "a", &given).await.unwrap(), ids());
    assert_eq!(inbox::once_each(&tx, "a", &[]).await.unwrap(), []);
    drop(tx);
    let mut tx = sqlx.begin().await.unwrap();
    assert_eq!(inbox::sqlx::once_each(&mut tx, "a", &given).await.unwrap(), ids());
    assert_eq!(inbox::sqlx::once_each(&mut tx, "a", &given).await.unwrap(), []);
    let many: Vec<EventId> = (0..2_500).map(EventId::from).collect();
    assert_eq!(inbox::sqlx::once_each(&mut tx, "many", &many).await.unwrap().len(), 2_500);
    tx.rollback().await.unwrap();
    end(effects).await;
}

#[tokio::test]
async fn an_id_of_any_kind_takes_effect_once_whichever_client_inserts_it() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let mut clients = Clients::connect(&effects.postgres.url()).await;
    let inbox = Inbox::default();
    for id in ids() {
        assert_eq!(clients.once(&inbox, "a", &id).await, [Once::New, Once::Duplicate], "{id}");
    }
    let upper = id("0190A5C3-7B1E-7D3A-9F00-2C8E6A1B4D5F");
    assert_eq!(clients.once(&inbox, "a", &upper).await, [Once::Duplicate; 2], "one event has one id");
    assert_eq!(clients.once(&inbox, "a", &id("01arz3ndektsv4rrffq69g5fav")).await, [Once::New, Once::Duplicate]);
    end(effects).await;
}

#[tokio::test]
async fn an_inbox_of_uuids_goes_on_and_one_statement_lets_it_hold_any_id() {
    let postgres = start().await;
    let mut clients = Clients::connect(&postgres.url()).await;
    clients.postgres.batch_execute(UUID_INBOX).await.unwrap();
    clients.postgres.batch_execute(inbox::INBOX_SQL).await.unwrap();
    let (inbox, before) = (Inbox::default(), EventId::from(Uuid::now_v7()));
    assert_eq!(clients.once(&inbox, "a", &before).await, [Once::New, Once::Duplicate]);
    let both = [before.clone(), Uuid::now_v7().into()];
    let mut tx = clients.sqlx.begin().await.unwrap();
    assert_eq!(inbox::sqlx::once_each(&mut tx, "a", &both).await.unwrap(), both[1..]);
    tx.rollback().await.unwrap();
    let tx = clients.postgres.transaction().await.unwrap();
    assert_eq!(inbox::once_each(&tx, "a", &both).await.unwrap(), both[1..]);
    // It refuses what it cannot hold. Nothing is taken for handled.
    let refused = inbox::once(&tx, "a", id("42")).await.unwrap_err();
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("22P02"));
    drop(tx);

    clients.postgres.batch_execute(MIGRATION).await.unwrap();
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/library.md");
    assert!(std::fs::read_to_string(manual).unwrap().contains(MIGRATION), "the manual has another statement");
    assert_eq!(clients.once(&inbox, "a", &before).await, [Once::Duplicate; 2]);
    assert_eq!(clients.once(&inbox, "a", &id("42")).await, [Once::New, Once::Duplicate]);
    // A consumer that still runs the library of before casts to uuid.
    let old = "INSERT INTO walrelay.inbox (consumer, event_id) VALUES ('a', $1::text::uuid) ON CONFLICT DO NOTHING";
    assert_eq!(clients.postgres.execute(old, &[&before.to_string()]).await.unwrap(), 0);
    end(postgres).await;
}

#[tokio::test]
async fn an_inbox_can_be_in_any_schema_under_any_name() {
    let postgres = start().await;
    let mut clients = Clients::connect(&postgres.url()).await;
    let long = format!("Shop.{}", "ä".repeat(31));
    for table in ["billing.inbox", "Shop \"1\".In'box; --", &long, "events"] {
        let inbox = Inbox::new(table).unwrap();
        for _ in 0..2 {
            clients.postgres.batch_execute(&inbox.script()).await.unwrap();
        }
        assert_eq!(clients.once(&inbox, "a", &id("42")).await, [Once::New, Once::Duplicate], "{table}");
        let tx = clients.postgres.transaction().await.unwrap();
        assert_eq!(inbox.once_each(&tx, "a", &[id("42"), id("43")]).await.unwrap(), [id("43")]);
        tx.commit().await.unwrap();
        assert_eq!(inbox.prune(&clients.postgres, "b", Duration::ZERO).await.unwrap(), 0);
        assert_eq!(inbox.prune(&clients.postgres, "a", Duration::ZERO).await.unwrap(), 2);
        assert_eq!(clients.once(&inbox, "a", &id("42")).await, [Once::New, Once::Duplicate], "{table}");
        assert_eq!(inbox.prune_sqlx(&mut clients.sqlx, "a", Duration::ZERO).await.unwrap(), 1);
    }
    let indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE '%\\_seen\\_at'";
    assert_eq!(clients.postgres.query_one(indexes, &[]).await.unwrap().get::<_, i64>(0), 4);
    end(postgres).await;
}

#[tokio::test]
async fn an_event_costs_one_round_trip_on_either_client() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let url = |proxy: &Proxy| format!("postgres://postgres@{}/postgres?sslmode=disable", proxy.address());
    let [first, second] = [(); 2].map(|()| Proxy::start(free_port(), effects.postgres.port()));
    let mut client = connect(&url(&first)).await;
    let tx = client.transaction().await.unwrap();
    for number in 0..3_i64 {
        let before = first.round_trips();
        assert_eq!(inbox::once(&tx, "a", number).await.unwrap(), Once::New);
        assert_eq!(first.round_trips() - before, 1, "once, event {number}");
    }
    let before = first.round_trips();
    assert_eq!(inbox::once_each(&tx, "a", &[id("2"), id("3")]).await.unwrap(), [id("3")]);
    assert_eq!(first.round_trips() - before, 1, "once_each");

    let mut connection = PgConnection::connect(&url(&second)).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    for number in 10..13_i64 {
        let before = second.round_trips();
        assert_eq!(inbox::sqlx::once(&mut tx, "a", number).await.unwrap(), Once::New);
        assert_eq!(second.round_trips() - before, 1, "sqlx::once, event {number}");
    }
    let before = second.round_trips();
    assert_eq!(inbox::sqlx::once_each(&mut tx, "a", &[id("12"), id("13")]).await.unwrap(), [id("13")]);
    assert_eq!(second.round_trips() - before, 1, "sqlx::once_each");
    drop(tx);
    end(effects).await;
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_needs_no_prepared_statements() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let (effects, pooler) = tokio::task::spawn_blocking(move || {
        // One session for all clients: a prepared statement of one of them would be in the way of the others.
        let settings = "pool_mode = transaction\ndefault_pool_size = 1\nignore_startup_parameters = extra_float_digits";
        let pooler = Pooler::start(&effects.postgres, settings);
        (effects, pooler)
    })
    .await
    .unwrap();
    let mut clients = [Clients::connect(&pooler.url()).await, Clients::connect(&pooler.url()).await];
    for number in 0..20_i64 {
        for (place, clients) in clients.iter_mut().enumerate() {
            let expected = [if place == 0 { Once::New } else { Once::Duplicate }, Once::Duplicate];
            assert_eq!(clients.once(&Inbox::default(), "a", &number.into()).await, expected, "{number}");
        }
    }
    let [Clients { postgres, mut sqlx }, _] = clients;
    assert_eq!(inbox::prune(&postgres, "a", Duration::ZERO).await.unwrap(), 20);
    assert_eq!(inbox::sqlx::prune(&mut sqlx, "a", Duration::ZERO).await.unwrap(), 0);
    end((pooler, effects)).await;
}

#[tokio::test]
async fn i11_pruning_removes_what_is_old_and_nothing_else() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let Clients { postgres, mut sqlx } = Clients::connect(&effects.postgres.url()).await;
    let old = "INSERT INTO walrelay.inbox (consumer, event_id, seen_at)
               SELECT 'a', gen_random_uuid(), now() - interval '8 days' FROM generate_series(1, 25000)";
    postgres
        .batch_execute(&format!(
            "{old};
             INSERT INTO walrelay.inbox (consumer, event_id) SELECT 'a', gen_random_uuid() FROM generate_series(1, 100);
             INSERT INTO walrelay.inbox (consumer, event_id, seen_at)
             VALUES ('b', gen_random_uuid(), now() - interval '1 year')"
        ))
        .await
        .unwrap();
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(inbox::prune(&postgres, "a", week).await.unwrap(), 25_000);
    assert_eq!(inbox::prune(&postgres, "a", week).await.unwrap(), 0);
    postgres.batch_execute(old).await.unwrap();
    assert_eq!(inbox::sqlx::prune(&mut sqlx, "a", week).await.unwrap(), 25_000);
    let left = postgres.query_one("SELECT count(*) FROM walrelay.inbox", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 101);
    end(effects).await;
}

#[tokio::test]
async fn i13_the_second_of_two_waits_for_the_first_and_goes_on_if_that_rolls_back() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let id = Uuid::now_v7();
    for (commits, expected) in [(false, Once::New), (true, Once::Duplicate)] {
        let url = effects.postgres.url();
        let (mut one, mut two) = (connect(&url).await, PgConnection::connect(&url).await.unwrap());
        let name = format!("c{commits}");
        let first = one.transaction().await.unwrap();
        assert_eq!(inbox::once(&first, &name, id).await.unwrap(), Once::New);
        let mut second = two.begin().await.unwrap();
        let waiting = inbox::sqlx::once(&mut second, &name, id);
        let ending = async {
            await_lock(&url).await;
            if commits { first.commit().await.unwrap() } else { first.rollback().await.unwrap() }
        };
        let (found, ()) = tokio::join!(waiting, ending);
        assert_eq!(found.unwrap(), expected);
    }
    end(effects).await;
}

/// Waits until a session waits for a lock.
async fn await_lock(url: &str) {
    let client = connect(url).await;
    let began = Instant::now();
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        if client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
