//! The inbox by itself.

use std::time::Duration;
use std::time::Instant;

use tokio_postgres::NoTls;
use uuid::Uuid;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Once;

use super::stage::Effects;

#[tokio::test]
async fn an_event_is_first_once_for_each_consumer_and_again_after_a_rollback() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let (mut client, connection) = tokio_postgres::connect(&effects.postgres.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let id = Uuid::now_v7();
    for (consumer, commits, expected) in
        [("a", false, Once::New), ("a", true, Once::New), ("a", true, Once::Duplicate), ("b", true, Once::New)]
    {
        let tx = client.transaction().await.unwrap();
        assert_eq!(inbox::once(&tx, consumer, id).await.unwrap(), expected);
        if commits {
            tx.commit().await.unwrap();
        }
    }
    let tx = client.transaction().await.unwrap();
    let new = Uuid::now_v7();
    assert_eq!(inbox::once_each(&tx, "a", &[new, id, new]).await.unwrap(), [new]);
    drop(tx);
    tokio::task::spawn_blocking(move || drop(effects)).await.unwrap();
}

#[tokio::test]
async fn i11_pruning_removes_what_is_old_and_nothing_else() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&effects.postgres.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(
            "INSERT INTO walrelay.inbox (consumer, event_id, seen_at)
             SELECT 'a', gen_random_uuid(), now() - interval '8 days' FROM generate_series(1, 25000);
             INSERT INTO walrelay.inbox (consumer, event_id) SELECT 'a', gen_random_uuid() FROM generate_series(1, 100);
             INSERT INTO walrelay.inbox (consumer, event_id, seen_at)
             VALUES ('b', gen_random_uuid(), now() - interval '1 year')",
        )
        .await
        .unwrap();
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(inbox::prune(&client, "a", week).await.unwrap(), 25_000);
    assert_eq!(inbox::prune(&client, "a", week).await.unwrap(), 0);
    let left = client.query_one("SELECT count(*) FROM walrelay.inbox", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 101);
    tokio::task::spawn_blocking(move || drop(effects)).await.unwrap();
}

#[tokio::test]
async fn i13_the_second_of_two_waits_for_the_first_and_goes_on_if_that_rolls_back() {
    let effects = tokio::task::spawn_blocking(Effects::new).await.unwrap();
    let id = Uuid::now_v7();
    for (commits, expected) in [(false, Once::New), (true, Once::Duplicate)] {
        let (mut one, connection) = tokio_postgres::connect(&effects.postgres.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let (mut two, connection) = tokio_postgres::connect(&effects.postgres.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let name = format!("c{commits}");
        let first = one.transaction().await.unwrap();
        assert_eq!(inbox::once(&first, &name, id).await.unwrap(), Once::New);
        let second = two.transaction().await.unwrap();
        let waiting = inbox::once(&second, &name, id);
        let ending = async {
            await_lock(&effects.postgres.url()).await;
            if commits { first.commit().await.unwrap() } else { first.rollback().await.unwrap() }
        };
        let (found, ()) = tokio::join!(waiting, ending);
        assert_eq!(found.unwrap(), expected);
    }
    tokio::task::spawn_blocking(move || drop(effects)).await.unwrap();
}

/// Waits until a session waits for a lock.
async fn await_lock(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
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
