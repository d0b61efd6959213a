//! The expected result, as queries.

use crate::console;
use crate::database::Database;
use crate::stage::Failed;

/// Each check and its query.
const CHECKS: [(&str, &str); 4] = [
    (
        "every order is shipped, but one is cancelled",
        "SELECT count(*) FILTER (WHERE status = 'shipped') = $1::bigint - 1
             AND count(*) FILTER (WHERE status = 'cancelled') = 1
         FROM orders",
    ),
    (
        "every shipped order has one shipment",
        "SELECT count(*) = $1::bigint - 1 AND count(DISTINCT order_id) = $1::bigint - 1 FROM shipments",
    ),
    (
        "every shipment has one event",
        "SELECT count(*) = $1::bigint - 1 AND count(DISTINCT aggregate_id) = $1::bigint - 1 FROM outbox_events
         WHERE event_type = 'OrderShipped'",
    ),
    (
        "the trace of each order goes from its request to its shipment",
        "SELECT count(*) = $1::bigint - 1
         FROM outbox_events AS created JOIN outbox_events AS shipped USING (aggregate_id)
         WHERE created.event_type = 'OrderCreated' AND shipped.event_type = 'OrderShipped'
             AND created.headers ->> 'traceparent' = shipped.headers ->> 'traceparent'",
    ),
];

/// Checks the tables after this many orders.
pub async fn database(database: &Database, orders: usize) -> Result<bool, Failed> {
    let (connection, orders) = (database.connection().await?, i64::try_from(orders)?);
    let mut is_correct = true;
    for (what, query) in CHECKS {
        is_correct &= console::check(connection.query_one(query, &[&orders]).await?.get(0), what);
    }
    Ok(is_correct)
}

/// Returns the number of shipped orders.
pub async fn shipped(database: &Database) -> Result<i64, Failed> {
    let query = "SELECT count(*) FROM orders WHERE status = 'shipped'";
    Ok(database.connection().await?.query_one(query, &[]).await?.get(0))
}

/// Checks that the relay has confirmed every event: the slot has no more changes.
pub async fn slot(database: &Database) -> Result<bool, Failed> {
    let query = "SELECT count(*) = 0
        FROM pg_logical_slot_peek_binary_changes(
            'walrelay', NULL, NULL, 'proto_version', '1', 'publication_names', 'walrelay')
        WHERE get_byte(data, 0) = ascii('I')";
    let is_empty = database.connection().await?.query_one(query, &[]).await?.get(0);
    Ok(console::check(is_empty, "the slot has no more changes"))
}
