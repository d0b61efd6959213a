//! The inbox: an event that is delivered twice takes effect once.
//!
//! [`once`] inserts the event's id into a table in the transaction of the handler's own writes. Both are committed, or
//! neither is. Call it first in the transaction: two consumers of the same event then wait for each other there and
//! nowhere else. Effects outside the database (an HTTP call, an email) are not covered: pass the event's id to them as
//! an idempotency key.
//!
//! An event is identified by its id and the consumer's name, not by its offset: when the relay publishes an event
//! again, the offset differs and the id does not. `sql/inbox.sql` creates the table; [`prune`] deletes old rows.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::Transaction;
use uuid::Uuid;

/// Creates the table. The script can be run again.
pub const INBOX_SQL: &str = include_str!("../../sql/inbox.sql");

/// How many rows one statement of [`prune`] deletes.
const PRUNE_ROWS: i64 = 10_000;

/// Whether a consumer has handled an event before.
#[must_use = "a duplicate must not take effect again"]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Once {
    /// It has not. Handle the event and commit.
    New,
    /// It has. Nothing is left to do.
    Duplicate,
}

/// Inserts an event into the inbox, in the handler's own transaction.
///
/// It waits for the end of another transaction that inserts the same event. Dead-letter an event before this
/// transaction commits: otherwise the event is a duplicate when it is redriven.
///
/// ```no_run
/// # use walrelay_events::consumer::{Failure, Outcome};
/// use walrelay_events::consumer::inbox::{Once, once};
///
/// async fn count(client: &mut tokio_postgres::Client, event_id: uuid::Uuid) -> Result<Outcome, Failure> {
///     let tx = client.transaction().await?;
///     if once(&tx, "counter", event_id).await? == Once::New {
///         tx.execute("UPDATE counters SET value = value + 1", &[]).await?;
///         tx.commit().await?;
///     }
///     Ok(Outcome::Ack)
/// }
/// ```
pub async fn once(tx: &Transaction<'_>, consumer: &str, event_id: Uuid) -> Result<Once, tokio_postgres::Error> {
    let sql = "INSERT INTO walrelay.inbox (consumer, event_id) VALUES ($1, $2::text::uuid) ON CONFLICT DO NOTHING";
    let inserted = tx.execute(sql, &[&consumer, &event_id.to_string()]).await?;
    Ok(if inserted == 1 { Once::New } else { Once::Duplicate })
}

/// Inserts several events in one transaction and returns those that are new. The rows are inserted in a fixed order, so
/// that two consumers do not deadlock.
pub async fn once_each(
    tx: &Transaction<'_>,
    consumer: &str,
    event_ids: &[Uuid],
) -> Result<Vec<Uuid>, tokio_postgres::Error> {
    let mut ids: Vec<String> = event_ids.iter().map(Uuid::to_string).collect();
    ids.sort();
    ids.dedup();
    let sql = "INSERT INTO walrelay.inbox (consumer, event_id)
               SELECT $1, id::uuid FROM unnest($2::text[]) WITH ORDINALITY AS given (id, number) ORDER BY number
               ON CONFLICT DO NOTHING RETURNING event_id::text";
    let rows = tx.query(sql, &[&consumer, &ids]).await?;
    let mut new = Vec::with_capacity(rows.len());
    for row in rows {
        new.extend(Uuid::parse_str(row.try_get(0)?).ok());
    }
    Ok(new)
}

/// Deletes events that were handled longer ago than `retention`, in batches, and returns how many.
///
/// Use a retention longer than that of the topic, and longer than the longest outage to survive.
pub async fn prune(client: &Client, consumer: &str, retention: Duration) -> Result<u64, tokio_postgres::Error> {
    // In no order: to sort the remaining rows for each batch would cost quadratic time.
    let sql = "DELETE FROM walrelay.inbox WHERE ctid = ANY (ARRAY (
                   SELECT ctid FROM walrelay.inbox
                   WHERE consumer = $1 AND seen_at < now() - make_interval(secs => $2)
                   LIMIT $3))";
    let mut pruned = 0;
    loop {
        let deleted = client.execute(sql, &[&consumer, &retention.as_secs_f64(), &PRUNE_ROWS]).await?;
        pruned += deleted;
        if deleted < PRUNE_ROWS.unsigned_abs() {
            return Ok(pruned);
        }
    }
}
