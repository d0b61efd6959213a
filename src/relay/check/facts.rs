//! Reads what the server's settings are.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::settings::Settings;

use super::connection::Connection;
use super::report::Check;
use super::report::Needed;
use super::report::Outcome;
use super::server::ServerFacts;
use super::server::Share;

const ACTION: &str = "read the state of the server";

/// Reads everything in one query, which needs no privilege and no prepared statement.
pub(super) async fn read(connection: &Connection, settings: &Settings) -> Result<ServerFacts, RelayError> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::bigint, pg_catalog.pg_is_in_recovery(),
                      current_user::text,
                      coalesce((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user), false),
                      pg_catalog.current_setting('wal_level'),
                      (SELECT count(*) FROM pg_catalog.pg_replication_slots),
                      pg_catalog.current_setting('max_replication_slots')::bigint,
                      EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1),
                      EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1 AND s.active),
                      (SELECT count(*) FROM pg_catalog.pg_stat_replication),
                      pg_catalog.current_setting('max_wal_senders')::bigint,
                      coalesce(pg_catalog.current_setting('max_slot_wal_keep_size', true), '-1'),
                      pg_catalog.current_setting('synchronous_standby_names'),
                      coalesce(pg_catalog.current_setting('idle_replication_slot_timeout', true), '0')";
    let slot = &settings.source.slot;
    let failed = RelayError::postgres(ACTION);
    let row = connection.ordinary.client.query_typed_one(sql, &[(slot, Type::TEXT)]).await.map_err(&failed)?;
    facts(&row, connection.ordinary.found.host.to_string()).map_err(failed)
}

fn facts(row: &Row, host: String) -> Result<ServerFacts, tokio_postgres::Error> {
    Ok(ServerFacts {
        version: u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default(),
        host,
        is_in_recovery: row.try_get(1)?,
        role: row.try_get(2)?,
        is_superuser: row.try_get(3)?,
        wal_level: row.try_get(4)?,
        slots: Share { used: row.try_get(5)?, limit: row.try_get(6)? },
        has_slot: row.try_get(7)?,
        is_slot_active: row.try_get(8)?,
        senders: Share { used: row.try_get(9)?, limit: row.try_get(10)? },
        max_slot_wal_keep_size: row.try_get(11)?,
        synchronous_names: row.try_get(12)?,
        idle_slot_timeout: row.try_get(13)?,
    })
}

/// Reads them. An error is one of the check `settings`, which is added.
pub(super) async fn check(
    connection: Needed<&Connection>,
    settings: &Settings,
    checks: &mut Vec<Check>,
) -> Needed<ServerFacts> {
    let connection = connection?;
    connection.ask(ACTION, read(connection, settings)).await.map_err(|error| {
        checks.push(Check::new("settings", "the next checks decide from them", Outcome::failed(&error)));
        "settings"
    })
}
