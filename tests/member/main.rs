//! A member of a consumer group as a process of its own, so that tests can kill and stop it.
//!
//! `member BROKERS GROUP TOPIC POSTGRES_URL [die=after_commit:N | die=in_transaction:N] [sleep_ms=N] [session_ms=N]
//! [commit_ms=N]`
//!
//! It writes each event's effect and its inbox row in one transaction, and prints a line for each partition it is
//! given. It ends when its standard input does, and at a signal.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a part of the tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Failure;
use walrelay_events::consumer::GroupProtocol;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Payload;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::inbox::Once;
use walrelay_events::consumer::shutdown_signal;
use walrelay_events::consumer::typed;

#[derive(Deserialize)]
#[serde(tag = "event_type")]
enum Event {
    Changed { key: String, version: i64 },
}

/// Where it dies, and at which event.
#[derive(Clone, Copy, PartialEq)]
enum Die {
    Never,
    InTransaction(u64),
    AfterCommit(u64),
}

struct Member {
    connections: Vec<Mutex<Client>>,
    next: AtomicU64,
    handled: AtomicU64,
    die: Die,
    sleep: Duration,
    /// How long its transaction stays open behind its effect.
    hold: Duration,
    name: String,
}

impl Member {
    async fn handle(self: Arc<Self>, received: Received<Event>) -> Result<Outcome, Failure> {
        let Payload::Event(Event::Changed { key, version }) = received.event else {
            return Ok(Outcome::dead_letter("not a change"));
        };
        let number = self.handled.fetch_add(1, Relaxed) + 1;
        tokio::time::sleep(self.sleep).await;
        let place = usize::try_from(self.next.fetch_add(1, Relaxed)).unwrap() % self.connections.len();
        let mut client = self.connections.get(place).unwrap().lock().await;
        let tx = client.transaction().await?;
        if inbox::once(&tx, "effects", &received.event_id).await? == Once::Duplicate {
            return Ok(Outcome::Ack);
        }
        tx.execute(
            "INSERT INTO effects (key, version, event_id, member, partition) VALUES ($1, $2, $3, $4, $5)",
            &[&key, &version, &received.event_id.to_string(), &self.name, &received.record.partition()],
        )
        .await?;
        tokio::time::sleep(self.hold).await;
        if self.die == Die::InTransaction(number) {
            std::process::abort();
        }
        tx.commit().await?;
        if self.die == Die::AfterCommit(number) {
            std::process::abort();
        }
        Ok(Outcome::Ack)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, group, topic, url, options @ ..] = arguments.as_slice() else { panic!("see the source") };
    let option = |name: &str| options.iter().find_map(|option| option.strip_prefix(&format!("{name}=")));
    let number = |name: &str| option(name).map(|text| text.parse::<u64>().unwrap());
    let die = match option("die").map(|text| text.split_once(':').unwrap()) {
        Some(("after_commit", at)) => Die::AfterCommit(at.parse().unwrap()),
        Some((_, at)) => Die::InTransaction(at.parse().unwrap()),
        None => Die::Never,
    };
    let mut connections = Vec::new();
    for _ in 0..4 {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        connections.push(Mutex::new(client));
    }
    let member = Arc::new(Member {
        connections,
        next: AtomicU64::new(0),
        handled: AtomicU64::new(0),
        die,
        sleep: Duration::from_millis(number("sleep_ms").unwrap_or_default()),
        hold: Duration::from_millis(number("hold_ms").unwrap_or_default()),
        name: std::process::id().to_string(),
    });
    let mut config = Config::new(brokers, group, &[topic]);
    let session = number("session_ms").unwrap_or(6_000).to_string();
    config.properties.insert("max.poll.interval.ms".into(), session.clone());
    if option("protocol") == Some("consumer") {
        // The test's brokers have the same time-outs.
        config.group_protocol = GroupProtocol::Consumer;
    } else {
        config.properties.insert("session.timeout.ms".into(), session);
        config.properties.insert("heartbeat.interval.ms".into(), "500".into());
    }
    config.revoke_timeout = Duration::from_secs(2);
    config.commit_interval = Duration::from_millis(number("commit_ms").unwrap_or(200));
    let consumer = Consumer::new(config, typed(move |received| Arc::clone(&member).handle(received)));
    let over = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let stop = async move {
        tokio::select! {
            _ = over => {}
            () = shutdown_signal() => {}
        }
    };
    let ended = consumer.run(stop).await;
    println!("{ended:?}");
    ended.unwrap();
    // The blocking read of standard input, if it is still there, is waited for by nobody.
    std::process::exit(0);
}
