//! The outbox table: its columns and their types.

use tokio_postgres::Client;

use crate::relay::route::Route;
use crate::relay::row::Kind;
use crate::relay::row::Role;

use super::Error;
use super::get;
use super::query;
use super::u32_of;

/// Checks the columns of a table. Says whether its payload wants the binary form.
pub async fn columns(client: &Client, route: &Route) -> Result<bool, Error> {
    let (schema, name) = route.table();
    let table = format!("{schema}.{name}");
    // A domain counts as the type it rests on, at the bottom of however many.
    let sql = "SELECT a.attname::text,
                      (WITH RECURSIVE base (id, below) AS (
                           SELECT t.oid, CASE WHEN t.typtype = 'd' THEN t.typbasetype END
                           UNION ALL SELECT b.oid, CASE WHEN b.typtype = 'd' THEN b.typbasetype END
                           FROM base JOIN pg_type b ON b.oid = base.below)
                       SELECT id FROM base WHERE below IS NULL)::bigint,
                      format_type(a.atttypid, a.atttypmod)
               FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN pg_type t ON t.oid = a.atttypid
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
    let rows = client.query(sql, &[&schema, &name]).await.map_err(query)?;
    if rows.is_empty() {
        return Err(Error::Table { table, what: "does not exist, or is not visible".to_owned() });
    }
    let mut wants_binary = false;
    for (role, wanted) in Role::ALL.into_iter().zip(&route.names().0) {
        let Some(wanted) = wanted else { continue };
        let mut found = None;
        for row in &rows {
            if get::<String>(row, 0)? == wanted.column {
                found = Some((u32_of(get(row, 1)?), get::<String>(row, 2)?));
            }
        }
        let Some((type_id, type_name)) = found else {
            if wanted.required {
                let what = format!("has no column {:?}, which is mapped as {}", wanted.column, role.name());
                return Err(Error::Table { table, what });
            }
            continue;
        };
        let kind = Kind::of(type_id).filter(|kind| role.accepts(*kind));
        let Some(kind) = kind else {
            let what =
                format!("has a column {:?} of type {type_name}, which cannot be the {}", wanted.column, role.name());
            return Err(Error::Table { table, what });
        };
        wants_binary |= role == Role::Payload && kind == Kind::Bytea;
    }
    Ok(wants_binary)
}
