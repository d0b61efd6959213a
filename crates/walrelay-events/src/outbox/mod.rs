//! Appends typed events to the outbox table, in the transaction of the change that they describe.
//!
//! ```text
//!   begin ── change ── append(&tx, &event) ── commit        both are committed, or neither
//! ```
//!
//! An event is appended in the caller's own transaction, which the types require. An event that cannot be stored (no
//! type, U+0000, a time outside 1970 to 9999) is refused before it is sent, so it does not abort the transaction.
//! Events become rows in the order in which they are given.
//!
//! Deliberately absent: connections, retries, and creation of the table. `walrelay setup --with-outbox` prints its SQL.
#![cfg_attr(
    feature = "outbox",
    doc = r#"
A producer:

```no_run
# use walrelay_events::{event::Envelope, outbox};
#[derive(serde::Serialize)]
#[serde(tag = "event_type")]
enum OrderEvent {
    OrderCreated { total_cents: i64 },
}

type Failed = Box<dyn std::error::Error>;

async fn create(client: &mut tokio_postgres::Client, id: &str, total_cents: i64) -> Result<(), Failed> {
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

pub use error::ClientError;
pub use error::Error;
#[cfg(feature = "outbox")]
pub use postgres::append;
#[cfg(feature = "outbox")]
pub use postgres::append_many;
pub use table::Columns;
pub use table::Outbox;

pub use crate::table::BadName;
