//! A small shop, whole: orders by HTTP, their events through PostgreSQL, walrelay and Kafka, and a consumer that ships
//! them.
//!
//! ```text
//!   POST /orders -> intake --one transaction--> orders + outbox --walrelay run--> order-events --> shipping
//!                                                  ^                                                  |
//!                                                  +---one transaction: inbox, shipment, outbox-------+
//!   GET /items/pen -> intake --publisher, no transaction--> item-events
//! ```
//!
//! `order`, `database`, `intake`, `views` and `shipping` are what an application has. This file and `stage` play it
//! through, on real servers that are gone afterwards, and check how it ends: `make example`.

#![allow(unreachable_pub, reason = "a program of its own")]

mod checks;
mod console;
mod database;
mod intake;
#[path = "../../tests/support/kafka.rs"]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a part of the tests, which fail by panicking")]
#[allow(dead_code, reason = "the tests need more of it")]
mod kafka;
mod order;
mod shipping;
mod stage;
mod views;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::process::Signal;
use rustix::process::getpid;
use rustix::process::kill_process;
use sqlx::PgPool;
use tokio::net::TcpListener;
use walrelay_events::consumer::inbox::INBOX_SQL;
use walrelay_events::consumer::shutdown_signal;

use console::Tally;
use database::Database;
use shipping::Shipping;
use stage::Failed;
use stage::Stage;
use stage::until;
use views::Views;

/// Customer, city, and the items as a client writes them.
const ORDERS: [(&str, &str, &str); 8] = [
    ("Ada", "London", r#"{"sku": "pen", "quantity": 3, "price": "1.20"}"#),
    ("Edgar", "Atlantis", r#"{"sku": "raven", "quantity": 1, "price": "17.37"}"#),
    ("Grace", "Arlington", r#"{"sku": "moth", "quantity": 1, "price": "0.99"}"#),
    ("Alan", "Manchester", r#"{"sku": "apple", "quantity": 12, "price": "0.35"}"#),
    ("Emmy", "Göttingen", r#"{"sku": "ring", "quantity": 1, "price": "249.00"}"#),
    ("Niklaus", "Zürich", r#"{"sku": "pascal", "quantity": 2, "price": "19.70"}"#),
    ("Barbara", "Boston", r#"{"sku": "clu", "quantity": 1, "price": "19.74"}"#),
    (
        "Edsger",
        "Nuenen",
        r#"{"sku": "pen", "quantity": 1, "price": "1.20"}, {"sku": "ink", "quantity": 1, "price": "4.80"}"#,
    ),
];
/// The index of the order that is cancelled before it is shipped.
const CANCELLED: usize = 4;
const DEAD_LETTER_TOPIC: &str = "order-events.dlq";

/// The items that customers look at.
const VIEWS: [&str; 3] = ["pen", "ink", "pen"];

static TALLY: Tally = Tally::new();
/// Whether the scenario itself has sent the signal that stops shipping.
static IS_OVER: AtomicBool = AtomicBool::new(false);

#[tokio::main]
async fn main() -> ExitCode {
    // Dropping the rest stops the servers.
    let played = tokio::select! {
        played = play() => played,
        () = interruption() => {
            console::line("stopping the servers");
            return ExitCode::FAILURE;
        }
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console::failed(error);
            ExitCode::FAILURE
        }
    }
}

/// Completes at a signal that comes from outside.
async fn interruption() {
    shutdown_signal().await;
    if IS_OVER.load(Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Plays the whole scenario. Returns whether every check passed.
async fn play() -> Result<bool, Failed> {
    let began = Instant::now();
    console::step(
        "A throwaway PostgreSQL and Kafka start; walrelay creates the outbox table, the publication and the slot",
    );
    let stage = tokio::task::spawn_blocking(Stage::build).await??;
    console::command(&["setup", "--with-outbox", "--apply"], &stage.walrelay(&["setup", "--with-outbox", "--apply"])?);
    let database = Arc::new(Database::new(stage.postgres.url(), 8));
    database.connection().await?.batch_execute(&format!("{}{INBOX_SQL}", database::TABLES)).await?;
    let relay = stage.relay().await?;
    console::line("walrelay run: events flow");

    console::step("Customers order; each order and its event are one transaction");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let shop = listener.local_addr()?;
    let views = Arc::new(Views::new(&stage.kafka.bootstrap())?);
    let intake = tokio::spawn(intake::serve(listener, Arc::clone(&database), Arc::clone(&views)));
    order_all(shop).await?;

    console::step("Customers look at items; a view has no transaction and is published to Kafka directly");
    for sku in VIEWS {
        console::line(stage::send(shop, &format!("GET /items/{sku}"), "", "").await?);
    }

    console::step("Shipping starts, and takes one order after another");
    let shipping = Arc::new(Shipping::new(PgPool::connect(&stage.postgres.url()).await?));
    let consumer = Arc::clone(&shipping).consumer(&stage.kafka.bootstrap()).with_observer(&TALLY);
    let consumer = tokio::spawn(consumer.run(shutdown_signal()));
    let mut is_correct =
        shipped(&database, 6, "every order is shipped but the cancelled one and the one to Atlantis").await;
    is_correct &= console::check(
        until(async || TALLY.dead_letters.load(Relaxed) == 1).await,
        "the order to Atlantis is dead-lettered",
    );

    console::step("The carrier opens a route to Atlantis, and the dead-letter record is redriven");
    let list = ["dlq", "list", DEAD_LETTER_TOPIC];
    console::command(&list, &stage.walrelay(&list)?);
    shipping.carrier().open_route();
    let redrive = ["dlq", "redrive", DEAD_LETTER_TOPIC];
    console::command(&redrive, &stage.walrelay(&redrive)?);
    is_correct &= shipped(&database, 7, "it is shipped, too").await;

    console::step("By mistake it is redriven once more");
    let again = ["dlq", "redrive", DEAD_LETTER_TOPIC, "--all"];
    console::command(&again, &stage.walrelay(&again)?);
    is_correct &= console::check(
        until(async || shipping.duplicates() == 1).await,
        "the inbox finds a duplicate: nothing is shipped twice",
    );

    console::step("Everything stops: the service receives SIGTERM, as from Kubernetes");
    let every_event = database.connection().await?.query_one("SELECT count(*) FROM outbox_events", &[]).await?;
    let every_event = u64::try_from(every_event.get::<_, i64>(0))?;
    // Two redriven records come on top, and the first delivery of one of them was not acked.
    is_correct &=
        console::check(until(async || TALLY.acked.load(Relaxed) == every_event + 1).await, "every event is handled");
    intake.abort();
    IS_OVER.store(true, Relaxed);
    kill_process(getpid(), Signal::TERM)?;
    consumer.await??;
    is_correct &= console::check(stage.uncommitted()? == 0, "shipping has committed every offset");
    views.close().await?;
    let is_delivered = usize::try_from(stage.records(views::TOPIC)?)? == VIEWS.len();
    is_correct &= console::check(is_delivered, "every view is delivered");
    is_correct &= checks::database(&database, ORDERS.len()).await?;
    is_correct &= console::check(relay.stop()?, "the relay has drained and ended with exit code 0");
    is_correct &= checks::slot(&database).await?;
    console::line(format!("the inbox is pruned of {} rows: its retention is eight days", shipping.prune().await?));
    console::step(format!(
        "{} after {:.1} s",
        if is_correct { "All checks passed" } else { "A check failed" },
        began.elapsed().as_secs_f64()
    ));
    Ok(is_correct)
}

/// Places every order, one of them twice as if the response was lost, and cancels one.
async fn order_all(shop: SocketAddr) -> Result<(), Failed> {
    for (number, (customer, city, items)) in ORDERS.iter().enumerate() {
        let order = format!(
            r#"{{"id":"o-{number}","customer":"{customer}","city":"{city}","items":[{items}],"currency":"EUR"}}"#
        );
        let trace = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
        console::line(stage::send(shop, "POST /orders", &trace, &order).await?);
        if number == 0 {
            console::line(stage::send(shop, "POST /orders", &trace, &order).await?);
        }
        if number == CANCELLED {
            console::line(stage::send(shop, &format!("POST /orders/o-{number}/cancel"), &trace, "").await?);
        }
    }
    Ok(())
}

/// Waits until this many orders are shipped.
async fn shipped(database: &Database, count: i64, what: &str) -> bool {
    let are_shipped = async || checks::shipped(database).await.is_ok_and(|shipped| shipped == count);
    console::check(until(are_shipped).await, what)
}
