//! Transactions with limits of their own: nothing is set on the session.

use std::time::Duration;

use tokio_postgres::Client;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;

use super::error::Error;

/// The server's timeout of a statement.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// The timeout of a lock: a running migration must not be queued behind this one.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// The client's timeout of a transaction.
const LIMIT: Duration = Duration::from_secs(15);

/// Reads in a transaction of its own, for a limited time.
pub(super) async fn reading<T>(
    ordinary: &Ordinary,
    action: &'static str,
    queries: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let (client, failed) = (&ordinary.client, RelayError::postgres(action));
    let begin = ordinary.begin_reading(STATEMENT_LIMIT);
    let done = tokio::time::timeout(LIMIT, async {
        client.batch_execute(&begin).await.map_err(RelayError::postgres(action))?;
        queries.await
    });
    let done = done.await.unwrap_or_else(|_| Err(failed(postgres::Error::NoAnswer { limit: LIMIT }).into()));
    let ended = postgres::within(LIMIT, client.batch_execute("ROLLBACK")).await;
    // The first error is the cause.
    let done = done?;
    ended.map(|()| done).map_err(|error| failed(error).into())
}

/// Runs statements in a transaction of their own.
pub(super) async fn change(client: &Client, statements: &str) -> Result<(), postgres::Error> {
    let sql = format!(
        "BEGIN READ WRITE; SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = {}; SET LOCAL \
         statement_timeout = {}; {statements}; COMMIT",
        LOCK_LIMIT.as_millis(),
        STATEMENT_LIMIT.as_millis(),
    );
    let changed = postgres::within(LIMIT, client.batch_execute(&sql)).await;
    if changed.is_err() {
        // The error above is the cause, whatever this gives.
        let _ = postgres::within(LIMIT, client.batch_execute("ROLLBACK")).await;
    }
    changed
}
