//! The inbox: an event that comes twice takes effect once.
//!
//! [`once`] writes the event's id into a table in the same transaction as the handler's own writes, so both are there or
//! neither is. It comes first in the transaction: two consumers with one event then wait for each other here and nowhere
//! else. Effects outside the database (a call, a mail) are not covered: give them the event's id as their idempotency key.
//!
//! An event is known by its id and the name of the consumer, never by its offset: what the relay publishes again has a new
//! offset and the same id. The table is `sql/inbox.sql`; [`prune`] keeps it small.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::Transaction;
use uuid::Uuid;

/// The table, as a script that may be run again.
pub const INBOX_SQL: &str = include_str!("../../sql/inbox.sql");

/// How many rows one statement of [`prune`] removes.
const PRUNE_ROWS: i64 = 10_000;

/// Whether an event is here for the first time.
#[must_use = "an event that was seen must take no effect again"]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Once {
    /// It is: go on, and commit.
    First,
    /// This consumer has dealt with it: there is nothing to do.
    Seen,
}

/// Notes, in the handler's own transaction, that this consumer deals with an event. If another transaction is just doing so,
/// waits for its end. Reject an event before this is committed, else it would have been seen when it is brought back.
///
/// ```no_run
/// # use walrelay_events::consumer::{Failure, Outcome};
/// use walrelay_events::consumer::inbox::{Once, once};
///
/// async fn note(client: &mut tokio_postgres::Client, event_id: uuid::Uuid) -> Result<Outcome, Failure> {
///     let tx = client.transaction().await?;
///     if once(&tx, "notes", event_id).await? == Once::First {
///         tx.execute("UPDATE notes SET count = count + 1", &[]).await?;
///         tx.commit().await?;
///     }
///     Ok(Outcome::Done)
/// }
/// ```
pub async fn once(tx: &Transaction<'_>, consumer: &str, event_id: Uuid) -> Result<Once, tokio_postgres::Error> {
    let sql = "INSERT INTO walrelay.inbox (consumer, event_id) VALUES ($1, $2::text::uuid) ON CONFLICT DO NOTHING";
    let inserted = tx.execute(sql, &[&consumer, &event_id.to_string()]).await?;
    Ok(if inserted == 1 { Once::First } else { Once::Seen })
}

/// The same for several events in one transaction. Gives those that are here for the first time. They are noted in one order
/// everywhere, so that two consumers do not lock each other out.
pub async fn once_each(
    tx: &Transaction<'_>,
    consumer: &str,
    event_ids: &[Uuid],
) -> Result<Vec<Uuid>, tokio_postgres::Error> {
    let mut ids: Vec<String> = event_ids.iter().map(Uuid::to_string).collect();
    ids.sort();
    ids.dedup();
    let sql = "INSERT INTO walrelay.inbox (consumer, event_id)
               SELECT $1, id::uuid FROM unnest($2::text[]) WITH ORDINALITY AS given (id, place) ORDER BY place
               ON CONFLICT DO NOTHING RETURNING event_id::text";
    let rows = tx.query(sql, &[&consumer, &ids]).await?;
    let mut first = Vec::with_capacity(rows.len());
    for row in rows {
        first.extend(Uuid::parse_str(row.try_get(0)?).ok());
    }
    Ok(first)
}

/// Forgets events that were dealt with longer ago than `kept`, a few thousand at a time, in no order: to sort them each time
/// would cost the square of their number. Gives how many.
///
/// Keep them for longer than the topic keeps its records, and than the longest outage to survive.
pub async fn prune(client: &Client, consumer: &str, kept: Duration) -> Result<u64, tokio_postgres::Error> {
    let sql = "DELETE FROM walrelay.inbox WHERE ctid = ANY (ARRAY (
                   SELECT ctid FROM walrelay.inbox
                   WHERE consumer = $1 AND seen_at < now() - make_interval(secs => $2)
                   LIMIT $3))";
    let mut pruned = 0;
    loop {
        let removed = client.execute(sql, &[&consumer, &kept.as_secs_f64(), &PRUNE_ROWS]).await?;
        pruned += removed;
        if removed < PRUNE_ROWS.unsigned_abs() {
            return Ok(pruned);
        }
    }
}
