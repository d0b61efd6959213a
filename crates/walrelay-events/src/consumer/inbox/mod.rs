//! The inbox: an event that is delivered twice takes effect once.
//!
//! [`once`] inserts the event's id into a table in the transaction of the handler's own writes. Both are committed, or
//! neither is. Call it first in the transaction: two consumers of the same event then wait for each other there and
//! nowhere else. Effects outside the database (an HTTP call, an email) are not covered: pass the event's id to them as
//! an idempotency key.
//!
//! An event is identified by its id and the consumer's name, not by its offset: when the relay publishes an event
//! again, the offset differs and the id does not. [`Inbox::script`] creates the table; [`prune`] deletes old rows.
//!
//! The functions of this module work on tokio-postgres and its pools, those of [`sqlx`] on sqlx. Each `once` is one
//! round trip without a prepared statement, so poolers in transaction mode work, too.
//!
//! ```no_run
//! # use walrelay_events::consumer::{Failure, Outcome};
//! # use walrelay_events::event::EventId;
//! use walrelay_events::consumer::inbox::{Once, once};
//!
//! async fn count(client: &mut tokio_postgres::Client, event_id: &EventId) -> Result<Outcome, Failure> {
//!     let tx = client.transaction().await?;
//!     if once(&tx, "counter", event_id).await? == Once::New {
//!         tx.execute("UPDATE counters SET value = value + 1", &[]).await?;
//!         tx.commit().await?;
//!     }
//!     Ok(Outcome::Ack)
//! }
//! ```

mod postgres;
#[cfg(feature = "sqlx")]
pub mod sqlx;
mod statement;
mod table;

pub use postgres::once;
pub use postgres::once_each;
pub use postgres::prune;
pub use table::INBOX_SQL;
pub use table::Inbox;
pub use table::Once;

pub use crate::table::BadName;
