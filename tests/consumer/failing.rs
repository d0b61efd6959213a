//! Crashes, duplicate events and transient database failures: effects happen once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::IsolationLevel;
use tokio_postgres::NoTls;
use uuid::Uuid;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::consumer::typed;
use walrelay_events::event::EventId;
use walrelay_events::testing::StopMode;

use super::stage::Effects;
use super::stage::Log;
use super::stage::Member;
use super::stage::Process;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::source::Sql;

const LIMIT: Duration = Duration::from_secs(60);

/// Lets a member die, starts another, and expects every effect once.
fn dies_and_is_replaced(topic: &str, die: &str) {
    let (topic, effects) = (Topic::create(topic, 1), Effects::new());
    topic.changes(40, 4);
    let url = effects.postgres.url();
    let mut first = Process::start(&topic, &topic.name, &url, &[die, "commit_ms=600000", "sleep_ms=5"]);
    // Its standard input stays open, or it would leave in good order.
    let stdin = first.0.stdin.take();
    assert!(!first.0.wait().unwrap().success(), "it died");
    drop(stdin);
    let before = effects.count();
    assert!((1..40).contains(&before), "{before} effects before");
    let second = Process::start(&topic, &topic.name, &url, &[]);
    effects.wait_for(40, LIMIT);
    wait_until("every offset", || topic.committed(&topic.name) == [40]);
    second.leave();
    effects.check(40);
}

#[test]
fn i1_a_crash_after_the_handlers_commit_repeats_no_effect() {
    dies_and_is_replaced("i1", "die=after_commit:12");
}

#[test]
fn i2_a_crash_inside_the_handlers_transaction_loses_no_effect() {
    dies_and_is_replaced("i2", "die=in_transaction:12");
}

#[test]
fn i5_a_zombie_that_commits_late_has_the_effect_and_its_successor_none() {
    let (topic, effects) = (Topic::create("i5", 1), Effects::new());
    topic.changes(1, 1);
    let url = effects.postgres.url();
    let backends = |state: &str| {
        effects.sql.text(&format!(
            "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND {state}"
        ))
    };
    let zombie = Process::start(&topic, "i5", &url, &["hold_ms=1500"]);
    wait_until("a transaction past once", || {
        backends("state = 'idle in transaction' AND backend_xid IS NOT NULL") == "1"
    });
    zombie.signal("STOP");
    let successor = Process::start(&topic, "i5", &url, &[]);
    // The group has given the zombie up, and its event is somebody else's.
    wait_until("the successor to wait in once", || backends("wait_event_type = 'Lock'") == "1");
    zombie.signal("CONT");
    wait_until("its offset", || topic.committed("i5") == [1]);
    effects.check(1);
    assert_eq!(effects.sql.text("SELECT member FROM effects"), zombie.0.id().to_string());
    drop(zombie);
    successor.leave();
    effects.check(1);
}

#[test]
fn i5_a_zombie_that_comes_late_to_once_finds_the_effect_of_its_successor() {
    let (topic, effects) = (Topic::create("i5late", 1), Effects::new());
    topic.changes(1, 1);
    let url = effects.postgres.url();
    let zombie = Process::start(&topic, "i5late", &url, &["sleep_ms=3000"]);
    // Where the group begins is committed before anything is taken; then it sleeps before its transaction.
    wait_until("its partition", || topic.committed("i5late") == [0]);
    zombie.signal("STOP");
    let successor = Process::start(&topic, "i5late", &url, &[]);
    wait_until("the offset of the successor", || topic.committed("i5late") == [1]);
    zombie.signal("CONT");
    // It ends in good order, and so with whatever it had begun.
    zombie.leave();
    effects.check(1);
    assert_eq!(effects.sql.text("SELECT member FROM effects"), successor.0.id().to_string());
    assert_eq!(topic.committed("i5late"), [1]);
    successor.leave();
}

#[test]
fn i6_an_offset_that_is_delivered_twice_takes_effect_once() {
    let (topic, effects) = (Topic::create("i6", 1), Effects::new());
    topic.changes(10, 2);
    let url = effects.postgres.url();
    let first = Process::start(&topic, "i6", &url, &[]);
    effects.wait_for(10, LIMIT);
    first.leave();
    // The group goes back: the same offsets come again.
    topic.commit("i6", 3);
    topic.change(Uuid::now_v7(), "last", 1);
    topic.flush();
    let second = Process::start(&topic, "i6", &url, &[]);
    effects.wait_for(11, LIMIT);
    wait_until("every offset", || topic.committed("i6") == [11]);
    second.leave();
    effects.check(11);
}

#[test]
fn i7_an_event_that_the_relay_publishes_again_takes_effect_once() {
    let (topic, effects) = (Topic::create("i7", 2), Effects::new());
    let ids: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    // A crash of the relay: a suffix comes again, with new offsets and the same ids.
    for (number, id) in ids.iter().enumerate().chain(ids.iter().enumerate().skip(8)) {
        topic.change(*id, "k", i64::try_from(number).unwrap() + 1);
    }
    topic.flush();
    let member = Process::start(&topic, "i7", &effects.postgres.url(), &[]);
    effects.wait_for(20, LIMIT);
    // The repetitions are consumed all the same.
    wait_until("every offset", || topic.committed("i7").into_iter().max() == Some(32));
    member.leave();
    effects.check(20);
}

#[test]
fn i13_the_same_events_on_two_members_at_once_take_effect_once_and_lock_nobody_out() {
    let (topic, effects) = (Topic::create("i13", 2), Effects::new());
    topic.changes(300, 10);
    let url = effects.postgres.url();
    // Two groups get every event each, and share one inbox.
    let members = [Process::start(&topic, "g1", &url, &[]), Process::start(&topic, "g2", &url, &[])];
    effects.wait_for(300, LIMIT);
    for group in ["g1", "g2"] {
        wait_until("every offset", || topic.committed(group).iter().filter(|offset| **offset > 0).sum::<i64>() == 300);
    }
    members.into_iter().for_each(Process::leave);
    effects.check(300);
}

#[test]
fn i14_a_serialization_failure_is_no_attempt_and_no_dead_letter() {
    let (topic, effects) = (Topic::create("i14", 4), Effects::new());
    effects.sql.run("CREATE TABLE total (sum bigint NOT NULL); INSERT INTO total VALUES (0)");
    topic.changes(200, 20);
    let url = effects.postgres.url();
    let log = Log::default();
    let mut config = topic.config("i14");
    // A second attempt would be one too many: only transient failures may be retried.
    config.retry.max_attempts = 1;
    let clients = Arc::new(Mutex::new(Vec::new()));
    let add = move |received: Received<serde_json::Value>| {
        let (clients, url) = (Arc::clone(&clients), url.clone());
        async move {
            let taken = clients.lock().await.pop();
            let mut client = match taken {
                Some(client) => client,
                None => {
                    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
                    tokio::spawn(connection);
                    client
                }
            };
            let added = add(&mut client, received.event_id).await;
            clients.lock().await.push(client);
            added.map(|()| Outcome::Ack)
        }
    };
    config.max_concurrency = 8;
    let member = Member::start_observed(config, typed(add), log.clone());
    log.wait_for("ack", 200);
    member.stop().unwrap();
    assert_eq!(effects.sql.text("SELECT sum::text FROM total"), "200");
    assert!(log.count("transient") > 0, "nothing conflicted: the test shows nothing");
    assert_eq!(log.count("dead-lettered"), 0, "{:?}", log.lines());
}

#[test]
fn a_database_that_is_down_is_no_attempt_and_no_dead_letter() {
    let (topic, effects) = (Topic::create("pgaway", 2), Effects::new());
    topic.changes(100, 10);
    let url = effects.postgres.url();
    let log = Log::default();
    let mut config = topic.config("pgaway");
    config.retry.max_attempts = 1;
    config.retry.max_backoff = Duration::from_millis(200);
    let handle = move |received: Received<serde_json::Value>| {
        let url = url.clone();
        async move {
            let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            tokio::spawn(connection);
            let tx = client.transaction().await?;
            if inbox::once(&tx, "outage", &received.event_id).await? == Once::Duplicate {
                return Ok(Outcome::Ack);
            }
            let sql = "INSERT INTO effects (key, version, event_id) VALUES ($1, $2, $3)";
            let version = received.event.version();
            tx.execute(sql, &[&received.aggregate_id, &version, &received.event_id.to_string()]).await?;
            // So that the stop finds some in their transactions.
            tokio::time::sleep(Duration::from_millis(20)).await;
            tx.commit().await?;
            Ok::<_, Failure>(Outcome::Ack)
        }
    };
    config.max_concurrency = 4;
    let member = Member::start_observed(config, typed(handle), log.clone());
    log.wait_for("ack", 20);
    effects.postgres.stop(StopMode::Fast).unwrap();
    log.wait_for("transient", 30);
    effects.postgres.resume().unwrap();
    log.wait_for("ack", 100);
    member.stop().unwrap();
    assert_eq!(log.count("dead-lettered"), 0, "{:?}", log.lines());
    let effects = Effects { sql: Sql::connect(&effects.postgres.url()), postgres: effects.postgres };
    effects.check(100);
}

/// The version in a change.
trait Version {
    fn version(&self) -> i64;
}

impl Version for Payload<serde_json::Value> {
    fn version(&self) -> i64 {
        match self {
            Self::Event(event) => event["version"].as_i64().unwrap(),
            Self::Unknown(_) | Self::Tombstone | _ => panic!("not a change"),
        }
    }
}

#[test]
fn a_handler_that_panics_while_it_is_dropped_takes_nobody_with_it() {
    struct Bomb(i64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 != 7 || std::thread::panicking(), "a bug in the handler");
        }
    }
    let topic = Topic::create("bombs", 1);
    topic.changes(40, 40);
    let log = Log::default();
    let mut config = topic.config("bombs");
    config.retry.max_attempts = 2;
    let handle = |delivery: Delivery| {
        let bomb = Bomb(delivery.record.offset());
        // It is not within the future's own body, so it goes when the future does.
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            std::task::Poll::Ready(())
        })
    };
    let member = Member::start_observed(config, handle, log.clone());
    wait_until("all of them", || topic.committed("bombs") == [40]);
    member.stop().unwrap();
}

/// Adds one to a row that everybody wants, so that PostgreSQL must roll back all but one.
async fn add(client: &mut tokio_postgres::Client, event_id: EventId) -> Result<(), Failure> {
    let tx = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    if inbox::once(&tx, "total", event_id).await? == Once::Duplicate {
        return Ok(());
    }
    let sum: i64 = tx.query_one("SELECT sum FROM total", &[]).await?.try_get(0)?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    tx.execute("UPDATE total SET sum = $1", &[&(sum + 1)]).await?;
    tx.commit().await?;
    Ok(())
}
