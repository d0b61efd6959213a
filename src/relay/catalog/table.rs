//! Checks the outbox table: its columns and their types.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Route;
use crate::relay::record::row::Kind;
use crate::relay::record::row::PLACED;
use crate::relay::record::row::Placed;
use crate::relay::record::row::Role;
use crate::relay::record::row::both_names;
use crate::relay::record::row::can_be_placed;
use crate::relay::record::row::listed;

use super::error::Error;
use super::row::get;
use super::row::query;
use super::row::u32_of;

/// Checks the columns of a table. Says whether the payload should be requested in binary form.
pub async fn columns(client: &Client, route: &Route) -> Result<bool, Error> {
    let (wants_binary, wrong) = examine_columns(client, route).await?;
    wrong.into_iter().next().map_or(Ok(wants_binary), Err)
}

/// Does the same, and gives everything that is wrong with the columns.
pub(in crate::relay) async fn examine_columns(client: &Client, route: &Route) -> Result<(bool, Vec<Error>), Error> {
    let (schema, name) = route.table();
    let table = format!("{schema}.{name}");
    // A domain counts as its base type, also if it is a domain over a domain.
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
    // No prepared statement: a pooler may run the next one on another session.
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(query)?;
    if rows.is_empty() {
        return Err(missing(client, route).await?);
    }
    let mut all = Vec::new();
    for row in &rows {
        all.push((get::<String>(row, 0)?, u32_of(get(row, 1)?), get::<String>(row, 2)?));
    }
    let (mut wants_binary, mut wrong) = (false, Vec::new());
    for (role, wanted) in Role::ALL.into_iter().zip(&route.names().roles) {
        let Some(wanted) = wanted else { continue };
        let mut found = all.iter().filter(|(column, ..)| wanted.is(column));
        let Some((column, type_id, type_name)) = found.next() else {
            if wanted.required {
                let columns = all.iter().map(|(column, type_id, _)| (column.as_str(), Kind::of(*type_id)));
                let both_names = both_names(role, route.names(), columns);
                let addition = add_column(route, role);
                let column = listed(&wanted.columns, "or");
                let table = table.clone();
                wrong.push(Error::ColumnMissing { table, column, role: role.name(), both_names, addition });
            }
            continue;
        };
        if let Some((other, ..)) = found.next() {
            let what = format!("has columns {column:?} and {other:?}, of which only one can be the {}", role.name());
            wrong.push(Error::Ambiguous { table: table.clone(), what });
            continue;
        }
        let kind = Kind::of(*type_id).filter(|kind| role.accepts(*kind));
        let Some(kind) = kind else {
            let what = format!("has a column {column:?} of type {type_name}, which cannot be the {}", role.name());
            let remedy = change_type(route, role, column);
            wrong.push(Error::Column { table: table.clone(), what, role: role.name(), remedy });
            continue;
        };
        wants_binary |= role == Role::Payload && kind == Kind::Bytea;
    }
    wrong.extend(route.names().placed.iter().filter_map(|wanted| examine_placed(route, wanted, &all)));
    Ok((wants_binary, wrong))
}

/// Gives what is wrong with a column that becomes a header.
fn examine_placed(route: &Route, wanted: &Placed, all: &[(String, u32, String)]) -> Option<Error> {
    let table = route.name();
    let mut found = all.iter().filter(|(column, ..)| wanted.name.is(column));
    let Some((column, type_id, type_name)) = found.next() else {
        let names = &wanted.name.columns;
        return Some(Error::ColumnMissing {
            table,
            column: listed(names, "or"),
            role: PLACED,
            both_names: wanted.remedy(),
            addition: names.first().map(|column| add_placed(route, column)).unwrap_or_default(),
        });
    };
    if let Some((other, ..)) = found.next() {
        let what = format!("has columns {column:?} and {other:?}, of which only one can be the {PLACED}");
        return Some(Error::Ambiguous { table, what });
    }
    if Kind::of(*type_id).is_some_and(can_be_placed) {
        return None;
    }
    let what = format!("has a column {column:?} of type {type_name}, which cannot be the {PLACED}");
    let quoted = quote(column);
    let remedy =
        format!("ALTER TABLE {} ALTER COLUMN {quoted} TYPE text USING {quoted}::text", quote_table(route.table()));
    Some(Error::Column { table, what, role: PLACED, remedy })
}

/// The statement that adds a column that becomes a header, unless it exists.
pub(in crate::relay) fn add_placed(route: &Route, column: &str) -> String {
    format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} text", quote_table(route.table()), quote(column))
}

/// The statement that adds a column for a role.
fn add_column(route: &Route, role: Role) -> String {
    format!("ALTER TABLE {} ADD COLUMN {}", quote_table(route.table()), column_definition(route, role))
}

/// The same, which does nothing if the column exists.
pub(in crate::relay) fn add_column_once(route: &Route, role: Role) -> String {
    format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {}", quote_table(route.table()), column_definition(route, role))
}

/// Gives the name and the type of the column for a role.
fn column_definition(route: &Route, role: Role) -> String {
    let kind = match role {
        Role::Id => "uuid DEFAULT gen_random_uuid()",
        Role::AggregateType | Role::AggregateId | Role::EventType => "text",
        Role::Payload | Role::Headers => "jsonb",
        Role::CreatedAt => "timestamptz DEFAULT now()",
        Role::Partition => "integer",
    };
    format!("{} {kind}", quote(route.column(role)))
}

/// The statement that changes a column to a type that its role can have.
fn change_type(route: &Route, role: Role, column: &str) -> String {
    let column = quote(column);
    let (kind, converted) = match role {
        Role::Id | Role::AggregateType | Role::AggregateId | Role::EventType | Role::Payload => {
            ("text", format!("{column}::text"))
        }
        Role::Headers => ("jsonb", format!("to_jsonb({column})")),
        Role::CreatedAt => ("timestamptz", format!("{column}::text::timestamptz")),
        Role::Partition => ("integer", format!("{column}::text::integer")),
    };
    format!("ALTER TABLE {} ALTER COLUMN {column} TYPE {kind} USING {converted}", quote_table(route.table()))
}

/// Gives the error of a missing table, with published tables that may be the renamed one.
async fn missing(client: &Client, route: &Route) -> Result<Error, Error> {
    let sql = "SELECT DISTINCT format('%s.%s', n.nspname, c.relname) FROM pg_publication_rel r JOIN pg_class c ON \
               c.oid = r.prrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1";
    let rows = client.query_typed(sql, &[]).await.map_err(query)?;
    let mut published = Vec::new();
    for row in &rows {
        published.push(get::<String>(row, 0)?);
    }
    let names: Vec<String> = route.tables().iter().map(|(schema, table)| format!("{schema}.{table}")).collect();
    published.retain(|table| !names.contains(table));
    Ok(Error::TableMissing { names, published })
}

/// Gives the routes with the current names of their tables.
pub async fn settle(client: &Client, routes: &[Route]) -> Result<Vec<Route>, Error> {
    let mut settled = Vec::new();
    for route in routes {
        if route.tables().len() == 1 {
            settled.push(route.clone());
            continue;
        }
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            route.tables().iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
        let sql = "SELECT w.schema, w.name FROM unnest($1, $2) AS w (schema, name)
                   JOIN pg_namespace n ON n.nspname = w.schema
                   JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')";
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)];
        let rows = client.query_typed(sql, &values).await.map_err(query)?;
        let mut found = Vec::new();
        for row in &rows {
            found.push((get::<String>(row, 0)?, get::<String>(row, 1)?));
        }
        match found.as_slice() {
            [] => settled.push(route.clone()),
            [(schema, name)] => settled.push(route.named(schema, name)),
            [(schema, name), (other_schema, other), ..] => {
                let what = format!(
                    "exists beside {other_schema}.{other}, and only one of them can be the outbox: see renamed_from"
                );
                return Err(Error::Ambiguous { table: format!("{schema}.{name}"), what });
            }
        }
    }
    Ok(settled)
}

/// Checks that every row of the table is in the WAL as a row of this table: it is logged and not a foreign table, and
/// tables that inherit from it have an outbox of their own.
pub(in crate::relay) async fn check_rows(client: &Client, route: &Route, routes: &[Route]) -> Result<(), Error> {
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
