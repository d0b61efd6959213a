//! Failures that are no fault of the event, and failures that only look so.

use std::error::Error as StdError;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use sqlx::Connection as _;
use tokio_postgres::NoTls;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::ErrorClass;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::IntoOutcome;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::inbox;
use walrelay_events::consumer::typed;
use walrelay_events::event::Envelope;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;
use walrelay_events::outbox;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use super::stage::Effects;
use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::source::Sql;

/// Notes what a consumer does, and how long its oldest record has waited.
#[derive(Clone, Default)]
struct Watch {
    log: Log,
    /// The latest report and the largest one, in milliseconds.
    waiting: Arc<[AtomicU64; 2]>,
}

impl Observer for Watch {
    fn observe(&self, observed: &Observed<'_>) {
        if let Observed::Load { longest_transient, .. } = observed {
            let millis = u64::try_from(longest_transient.as_millis()).unwrap();
            self.waiting[0].store(millis, Relaxed);
            self.waiting[1].fetch_max(millis, Relaxed);
        }
        self.log.observe(observed);
    }
}

/// Counts an event, as an application with `anyhow` does.
async fn count(url: &str, received: Received<Value>) -> anyhow::Result<()> {
    let (mut client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let tx = client.transaction().await?;
    if inbox::once(&tx, "g", &received.event_id).await.context("inbox")? == inbox::Once::New {
        let sql = "INSERT INTO effects (key, version, event_id) VALUES ($1, $2, $3)";
        let version = received.record.offset() + 1;
        tx.execute(sql, &[&received.aggregate_id, &version, &received.event_id.to_string()]).await?;
        tx.commit().await?;
    }
    Ok(())
}

#[test]
fn a_server_that_is_read_only_after_a_failover_is_no_attempt_and_no_dead_letter() {
    let (topic, mut effects) = (Topic::create("readonly", 1), Effects::new());
    let standby = effects.postgres.start_standby(&[]).unwrap();
    topic.changes(20, 1);
    let mut config = topic.config("readonly");
    // A second attempt would be one too many.
    config.retry.max_attempts = 1;
    config.retry.max_backoff = Duration::from_millis(200);
    let (url, watch) = (standby.url(), Watch::default());
    let handle = move |received| {
        let url = url.clone();
        async move { count(&url, received).await }
    };
    let member = Member::start_observed(config, typed(handle), watch.clone());
    watch.log.wait_for("transient", 5);
    wait_until("a report of the wait", || watch.waiting[0].load(Relaxed) > 1_000);
    standby.promote().unwrap();
    watch.log.wait_for("ack", 20);
    wait_until("a report of its end", || watch.waiting[0].load(Relaxed) == 0);
    member.stop().unwrap();
    assert_eq!(watch.log.count("dead-lettered"), 0, "{:?}", watch.log.lines());
    effects.sql = Sql::connect(&standby.url());
    effects.check(20);
}

#[test]
fn an_append_to_a_read_only_server_may_succeed_later_and_a_consumer_knows() {
    let postgres = Postgres::start(Options::default()).unwrap();
    Sql::connect(&postgres.url()).run(include_str!("../../sql/outbox.sql"));
    let standby = postgres.start_standby(&[]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let envelope = Envelope::new("Order", 1, serde_json::json!({"event_type": "Created"}));
    let errors = runtime.block_on(async {
        let (mut client, connection) = tokio_postgres::connect(&standby.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let tx = client.transaction().await.unwrap();
        let first = outbox::append(&tx, &envelope).await.unwrap_err();
        let mut connection = sqlx::PgConnection::connect(&standby.url()).await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        let second = outbox::sqlx::append(&mut tx, &envelope).await.unwrap_err();
        [first, second]
    });
    for error in errors {
        assert_eq!((error.code().to_string().as_str(), error.fate()), ("WR-6950", Fate::Transient), "{error}");
        assert!(error.to_string().contains("25006") && error.source().is_some(), "{error}");
        let outcome = Err::<Outcome, _>(error).into_outcome();
        assert!(matches!(&outcome, Outcome::Failed(error) if error.class() == ErrorClass::Transient), "{outcome:?}");
    }
}

/// The error of an HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("request failed")]
struct RequestFailed(#[source] io::Error);

/// Calls a service for each event.
fn call(port: u16) -> impl Handler {
    move |_: Delivery| async move {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(RequestFailed)?;
        Ok::<_, Box<dyn StdError + Send + Sync>>(())
    }
}

#[test]
fn a_refused_connection_of_an_http_client_counts_unless_the_application_says_otherwise() {
    let topic = Topic::create("refused", 1);
    topic.changes(1, 1);
    // A port where nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = topic.config("counts");
    config.retry.max_attempts = 2;
    let log = Log::default();
    let member = Member::start_observed(config.clone(), call(port), log.clone());
    log.wait_for("dead-lettered refused[0]@0 after 2 attempts: request failed: ", 1);
    member.stop().unwrap();
    assert_eq!((log.count("retry"), log.count("transient")), (1, 0), "{:?}", log.lines());

    config.group = "waits".to_owned();
    config.retry.max_backoff = Duration::from_millis(200);
    let log = Log::default();
    let consumer = Consumer::new(config, call(port)).with_observer(log.clone()).with_classifier(is_refused);
    let member = Member::run(consumer);
    log.wait_for("transient", 5);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    log.wait_for("ack", 1);
    member.stop().unwrap();
    drop(listener);
    assert_eq!((log.count("retry"), log.count("dead-lettered")), (0, 0), "{:?}", log.lines());
}

fn is_refused(error: &(dyn StdError + 'static)) -> Option<ErrorClass> {
    let error: &io::Error = error.downcast_ref()?;
    (error.kind() == io::ErrorKind::ConnectionRefused).then_some(ErrorClass::Transient)
}

#[test]
fn a_record_with_nothing_but_transient_failures_is_dead_lettered_at_their_timeout() {
    let topic = Topic::create("impatient", 1);
    topic.changes(2, 2);
    let mut config = topic.config("impatient");
    config.retry.transient_timeout = Some(Duration::from_millis(500));
    let log = Log::default();
    let handle = |delivery: Delivery| async move {
        if delivery.record.offset() == 0 { Outcome::transient("the bank is closed") } else { Outcome::Ack }
    };
    let member = Member::start_observed(config, handle, log.clone());
    log.wait_for("dead-lettered impatient[0]@0 transient failures for ", 1);
    wait_until("both offsets", || topic.committed("impatient") == [2]);
    member.stop().unwrap();
    assert!(log.count("transient impatient[0]@0") > 1, "{:?}", log.lines());
}
