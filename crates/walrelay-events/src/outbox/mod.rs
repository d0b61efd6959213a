//! Typed events into the outbox table, in the transaction of the change they tell of.
//!
//! ```text
//!   begin ── change ── append(&tx, &event) ── commit        both are there, or neither is
//! ```
//!
//! What always holds: an event is written by the caller's own transaction, which the types ask for; what cannot be written
//! (no type, U+0000, a moment outside 1970 to 9999) is refused before the database sees it, so that it does not break the
//! transaction; events become rows in the order in which they are given.
//!
//! It deliberately opens no connection, retries nothing and creates no table: `walrelay setup --with-outbox` prints it.
#![cfg_attr(
    feature = "outbox",
    doc = r#"
A correct producer:

```no_run
# use walrelay_events::{event::Envelope, outbox};
#[derive(serde::Serialize)]
#[serde(tag = "event_type")]
enum OrderEvent {
    OrderCreated { total_cents: i64 },
}

async fn create(client: &mut tokio_postgres::Client, id: &str, total_cents: i64) -> Result<(), Box<dyn std::error::Error>> {
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO orders (id, total_cents) VALUES ($1, $2)", &[&id, &total_cents]).await?;
    outbox::append(&tx, &Envelope::new("Order", id, OrderEvent::OrderCreated { total_cents })).await?;
    tx.commit().await?;
    Ok(())
}
```
"#
)]

mod error;
#[cfg(feature = "outbox")]
mod postgres;
mod rows;
#[cfg(feature = "sqlx")]
pub mod sqlx;
mod table;

pub use error::Error;
#[cfg(feature = "outbox")]
pub use postgres::append;
#[cfg(feature = "outbox")]
pub use postgres::append_many;
pub use table::BadName;
pub use table::Columns;
pub use table::Outbox;
