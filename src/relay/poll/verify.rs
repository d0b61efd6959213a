//! What a table must be before it is polled. Nothing is created and nothing is changed.

use tokio_postgres::Client;

use crate::relay::Error as RelayError;
use crate::relay::contract;
use crate::relay::contract::quote;
use crate::relay::wal;

use super::Error;
use super::Outbox;
use super::setup;

/// A table that is fit.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its id.
    pub(super) id: u32,
    /// Its columns; some that the route reads need not be there.
    pub(super) columns: Vec<String>,
}

/// Checks one outbox: its columns, the sequence and our rights.
pub(super) async fn verify(client: &Client, outbox: &Outbox) -> Result<Found, RelayError> {
    contract::columns(client, &outbox.route).await?;
    let names = &outbox.names;
    let (schema, name) = outbox.route.table();
    let failed = |error: tokio_postgres::Error| RelayError::Wal {
        action: "read the catalogue",
        source: wal::Error::from(error),
    };
    // The sequence is found by what depends on the column: that needs no right on anything.
    let sql =
        "SELECT c.oid, current_user::text, has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
                      coalesce(has_column_privilege(c.oid, p.attnum, 'UPDATE'), false),
                      s.attnotnull AND s.atttypid IN (20, 21, 23), p.atttypid = 1184,
                      (SELECT max(q.seqcache) FROM pg_depend d JOIN pg_sequence q ON q.seqrelid = d.objid
                       WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = s.attnum),
                      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = s.attnum
                              AND i.indpred IS NOT NULL),
                      ARRAY (SELECT a.attname::text FROM pg_attribute a
                             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_attribute s ON s.attrelid = c.oid AND s.attname = $3 AND NOT s.attisdropped
               LEFT JOIN pg_attribute p ON p.attrelid = c.oid AND p.attname = $4 AND NOT p.attisdropped
               WHERE n.nspname = $1 AND c.relname = $2";
    let row = client.query_one(sql, &[&schema, &name, &names.sequence, &names.published_at]).await.map_err(failed)?;
    let table = format!("{schema}.{name}");
    let unfit = |what: String, remedy: String| Error::Unfit { table: table.clone(), what, remedy };
    let missing = |column: &str, kind: &str| {
        unfit(
            format!("has no column {column:?} that is {kind}, which polling needs"),
            "run `walrelay setup --apply`, or name the column under [outbox.columns]".to_owned(),
        )
    };
    if row.try_get::<_, Option<bool>>(5).map_err(failed)? != Some(true) {
        return Err(missing(&names.sequence, "a number and NOT NULL").into());
    }
    if row.try_get::<_, Option<bool>>(6).map_err(failed)? != Some(true) {
        return Err(missing(&names.published_at, "timestamptz").into());
    }
    if let Some(cache @ 2..) = row.try_get::<_, Option<i64>>(7).map_err(failed)? {
        let column = quote(&names.sequence);
        return Err(unfit(
            format!("draws {column} {cache} numbers at a time, so they are not in the order of commits"),
            format!("run `ALTER TABLE {} ALTER COLUMN {column} SET CACHE 1`, or the same on its sequence", names.table),
        )
        .into());
    }
    for (column, what) in [(2, "use the schema of"), (3, "read"), (4, "mark rows as published in")] {
        if !row.try_get::<_, bool>(column).map_err(failed)? {
            let role: String = row.try_get(1).map_err(failed)?;
            let grant = setup::grants(outbox, &role);
            return Err(Error::Rights { role, what, table, grant }.into());
        }
    }
    if !row.try_get::<_, bool>(8).map_err(failed)? {
        tracing::warn!(
            table,
            "there is no index on the sequence of unpublished rows: each poll reads the whole table; `walrelay setup` \
             prints it"
        );
    }
    Ok(Found { id: row.try_get(0).map_err(failed)?, columns: row.try_get(9).map_err(failed)? })
}
