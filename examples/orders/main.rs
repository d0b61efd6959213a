//! A small shop, whole: orders by HTTP, their events through PostgreSQL, walrelay and Kafka, and a consumer that ships them.
//!
//! ```text
//!   POST /orders -> intake --one transaction--> orders + outbox --walrelay run--> order-events --> shipping
//!                                                  ^                                                  |
//!                                                  +---one transaction: inbox, shipment, outbox-------+
//! ```
//!
//! `order`, `database`, `intake` and `shipping` are what an application has. This file and `stage` play it through, on real
//! servers that are gone afterwards, and check how it ends: `make example`.

#![allow(unreachable_pub, reason = "a program of its own")]

mod checks;
mod database;
mod intake;
#[path = "../../tests/support/kafka.rs"]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a part of the tests, which fail by panicking")]
#[allow(dead_code, reason = "the tests need more of it")]
mod kafka;
mod order;
mod shipping;
mod stage;
mod tell;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::oneshot;
use walrelay_events::consumer::inbox::INBOX_SQL;

use database::Database;
use shipping::Shipping;
use stage::Failed;
use stage::Stage;
use stage::until;
use tell::Tally;

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
/// The place of the order that is cancelled before it is shipped.
const CANCELLED: usize = 4;
const LETTERS: &str = "order-events.dlq";

static TALLY: Tally = Tally::new();

#[tokio::main]
async fn main() -> ExitCode {
    let (Ok(mut interrupted), Ok(mut terminated)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return ExitCode::FAILURE;
    };
    // Whichever comes first: what is dropped stops its servers.
    let played = tokio::select! {
        played = play() => played,
        _ = interrupted.recv() => return stopped_by(2),
        _ = terminated.recv() => return stopped_by(15),
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell::failed(error);
            ExitCode::FAILURE
        }
    }
}

/// Ends as a shell expects it after a signal.
fn stopped_by(signal: u8) -> ExitCode {
    tell::line("stopping the servers");
    ExitCode::from(128 + signal)
}

/// Plays the whole of it, and says whether it ended as it should.
async fn play() -> Result<bool, Failed> {
    let began = Instant::now();
    tell::step("A throwaway PostgreSQL and Kafka start; walrelay makes the outbox, the publication and the slot");
    let stage = tokio::task::spawn_blocking(Stage::build).await??;
    tell::command(&["setup", "--with-outbox", "--apply"], &stage.walrelay(&["setup", "--with-outbox", "--apply"])?);
    let database = Arc::new(Database::new(stage.postgres.url(), 8));
    database.connection().await?.batch_execute(&format!("{}{INBOX_SQL}", database::TABLES)).await?;
    let relay = stage.relay().await?;
    tell::line("walrelay run: events flow");

    tell::step("Customers order; each order and its event are one transaction");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let shop = listener.local_addr()?;
    let intake = tokio::spawn(intake::serve(listener, Arc::clone(&database)));
    order_all(shop).await?;

    tell::step("Shipping starts, and takes one order after another");
    let shipping = Arc::new(Shipping::new(Arc::clone(&database)));
    let (stop, stopped) = oneshot::channel::<()>();
    let consumer = Arc::clone(&shipping).consumer(&stage.kafka.bootstrap()).observed_by(&TALLY);
    let consumer = tokio::spawn(consumer.run(async { drop(stopped.await) }));
    let mut is_well =
        shipped(&database, 6, "every order is shipped but the cancelled one and the one to Atlantis").await;
    is_well &= tell::check(until(async || TALLY.dead_letters.load(Relaxed) == 1).await, "that one is a dead letter");

    tell::step("The carrier opens a line to Atlantis, and the dead letter is brought back");
    let list = ["dlq", "list", LETTERS];
    tell::command(&list, &stage.walrelay(&list)?);
    shipping.carrier().mend();
    let redrive = ["dlq", "redrive", LETTERS];
    tell::command(&redrive, &stage.walrelay(&redrive)?);
    is_well &= shipped(&database, 7, "it is shipped as well").await;

    tell::step("By mistake it is brought back once more");
    let again = ["dlq", "redrive", LETTERS, "--all"];
    tell::command(&again, &stage.walrelay(&again)?);
    is_well &= tell::check(
        until(async || shipping.seen_again() == 1).await,
        "the inbox has seen it: nothing is shipped twice",
    );

    tell::step("Everything stops in good order");
    let every_event = database.connection().await?.query_one("SELECT count(*) FROM outbox_events", &[]).await?;
    let every_event = u64::try_from(every_event.get::<_, i64>(0))?;
    // The two that were brought back come on top; every shipment is told of, too.
    is_well &= tell::check(until(async || TALLY.done.load(Relaxed) == every_event + 1).await, "every event is handled");
    intake.abort();
    drop(stop);
    consumer.await??;
    is_well &= tell::check(stage.uncommitted()? == 0, "shipping has committed every offset");
    is_well &= checks::database(&database, ORDERS.len()).await?;
    is_well &= tell::check(relay.stop()?, "the relay has drained and ended with exit code 0");
    is_well &= checks::slot(&database).await?;
    tell::line(format!("the inbox is pruned of {} rows: it remembers for eight days", shipping.prune().await?));
    tell::step(format!(
        "{} after {:.1} s",
        if is_well { "All is well" } else { "Something is wrong" },
        began.elapsed().as_secs_f64()
    ));
    Ok(is_well)
}

/// Places every order, one of them twice as if an answer was lost, and cancels one.
async fn order_all(shop: SocketAddr) -> Result<(), Failed> {
    for (number, (customer, city, items)) in ORDERS.iter().enumerate() {
        let order = format!(
            r#"{{"id": "o-{number}", "customer": "{customer}", "city": "{city}", "items": [{items}], "currency": "EUR"}}"#
        );
        let trace = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
        tell::line(stage::post(shop, "/orders", &trace, &order).await?);
        if number == 0 {
            tell::line(stage::post(shop, "/orders", &trace, &order).await?);
        }
        if number == CANCELLED {
            tell::line(stage::post(shop, &format!("/orders/o-{number}/cancel"), &trace, "").await?);
        }
    }
    Ok(())
}

/// Waits until so many orders are shipped.
async fn shipped(database: &Database, count: i64, told: &str) -> bool {
    let are_shipped = async || checks::shipped(database).await.is_ok_and(|shipped| shipped == count);
    tell::check(until(are_shipped).await, told)
}
