//! The outbox table: its columns and their types.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::route::Route;
use crate::relay::row::Kind;
use crate::relay::row::Role;

use super::Error;
use super::get;
use super::query;
use super::quote_table;
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
    // Without a name, for a pooler may give the next statement another session.
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(query)?;
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

/// Checks that every row of the table is a row of it in the WAL: it is logged and no foreign table, and rows of tables that inherit from it have an
/// outbox of their own.
pub(super) async fn check_rows(client: &Client, route: &Route, routes: &[Route]) -> Result<(), Error> {
    let (schema, name) = route.table();
    let sql = "WITH RECURSIVE below (id) AS (
                   SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2
                   UNION SELECT i.inhrelid FROM below JOIN pg_inherits i ON i.inhparent = below.id)
               SELECT n.nspname::text, c.relname::text, c.relispartition, c.relpersistence = 'p',
                      (SELECT min(format('%I.%I', pn.nspname, p.relname)) FROM pg_inherits i
                       JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
                       WHERE i.inhrelid = c.oid), c.relkind = 'f'
               FROM below JOIN pg_class c ON c.oid = below.id JOIN pg_namespace n ON n.oid = c.relnamespace";
    for row in client.query(sql, &[&schema, &name]).await.map_err(query)? {
        let (child_schema, child): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let full = quote_table((&child_schema, &child));
        let unfit =
            |what: String, remedy: String| Error::TableUnfit { table: format!("{schema}.{name}"), what, remedy };
        if !get::<bool>(&row, 3)? {
            let what = if (child_schema.as_str(), child.as_str()) == (schema, name) {
                "is unlogged, so its rows are not in the WAL".to_owned()
            } else {
                format!("has rows in {child_schema}.{child}, which is unlogged, so they are not in the WAL")
            };
            return Err(unfit(what, format!("ALTER TABLE {full} SET LOGGED")));
        }
        let parent: String = get::<Option<String>>(&row, 4)?.unwrap_or_default();
        if get::<bool>(&row, 5)? && get::<bool>(&row, 2)? {
            let what =
                format!("has rows in {child_schema}.{child}, which is a foreign table, so they are not in the WAL");
            return Err(unfit(what, format!("ALTER TABLE {parent} DETACH PARTITION {full}")));
        }
        let is_own = routes.iter().any(|route| route.is_for(&child_schema, &child));
        if !is_own && !get::<bool>(&row, 2)? {
            let what = format!("is inherited by {child_schema}.{child}, whose rows are not published as rows of it");
            return Err(unfit(what, format!("ALTER TABLE {full} NO INHERIT {parent}")));
        }
    }
    Ok(())
}
