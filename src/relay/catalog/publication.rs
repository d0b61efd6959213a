//! Checks the publication: its tables, rows and columns.

use tokio_postgres::Client;

use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Route;

use super::error::Error;
use super::row::get;
use super::row::query;

pub(super) async fn check(client: &Client, name: &str, version: u32, routes: &[Route]) -> Result<(), Error> {
    check_options(client, name).await?;
    for route in routes {
        check_table(client, name, version, route).await?;
    }
    Ok(())
}

/// Checks what it publishes of any table.
pub(in crate::relay) async fn check_options(client: &Client, name: &str) -> Result<(), Error> {
    let sql =
        "SELECT pubinsert, pubupdate OR pubdelete OR pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&name]).await.map_err(query)? else {
        return Err(Error::PublicationMissing { publication: name.to_owned() });
    };
    let quoted = quote(name);
    if !get::<bool>(&row, 0)? || get::<bool>(&row, 1)? {
        let what =
            "does not publish exactly inserts: with updates or deletes the application's own statements may fail";
        return Err(unfit(name, what, format!("ALTER PUBLICATION {quoted} SET (publish = 'insert')")));
    }
    if !get::<bool>(&row, 2)? {
        let what = "does not publish partitions under their root";
        return Err(unfit(name, what, format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)")));
    }
    Ok(())
}

/// Checks that it publishes a table: all rows, and the columns that are mapped.
pub(in crate::relay) async fn check_table(
    client: &Client,
    name: &str,
    version: u32,
    route: &Route,
) -> Result<(), Error> {
    let (schema, table) = route.table();
    let filtered = if version >= 150_000 { "rowfilter IS NOT NULL" } else { "false" };
    let sql = format!(
        "SELECT {filtered} FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3"
    );
    let row = client.query_opt(&sql, &[&name, &schema, &table]).await.map_err(query)?;
    let (quoted, full) = (quote(name), quote_table((schema, table)));
    let Some(row) = row else {
        return Err(unfit(
            name,
            &format!("does not contain table {schema}.{table}"),
            format!("ALTER PUBLICATION {quoted} ADD TABLE {full}"),
        ));
    };
    if get::<bool>(&row, 0)? {
        return Err(unfit(
            name,
            &format!("has a row filter on table {schema}.{table}, which omits events"),
            // Not SET TABLE, which would remove all other tables; and in one transaction, or events committed in
            // between would not be published.
            format!(
                "BEGIN; ALTER PUBLICATION {quoted} DROP TABLE {full}; ALTER PUBLICATION {quoted} ADD TABLE {full}; \
                 COMMIT"
            ),
        ));
    }
    check_columns(client, name, version, route).await
}

fn unfit(publication: &str, what: &str, remedy: String) -> Error {
    Error::PublicationUnfit { publication: publication.to_owned(), what: what.to_owned(), remedy }
}

/// A column list omits columns, and before 18 every publication omits generated columns.
async fn check_columns(client: &Client, name: &str, version: u32, route: &Route) -> Result<(), Error> {
    let (schema, table) = route.table();
    let is_published = match version {
        180_000.. => "a.attname = ANY (t.attnames)",
        150_000.. => "a.attname = ANY (t.attnames) AND a.attgenerated = ''",
        _ => "a.attgenerated = ''",
    };
    let sql = format!(
        "SELECT a.attname::text, a.attgenerated::text, format_type(a.atttypid, a.atttypmod)
         FROM pg_publication_tables t
         JOIN pg_namespace n ON n.nspname = t.schemaname
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
         JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE t.pubname = $1 AND t.schemaname = $2 AND t.tablename = $3
               AND a.attnum > 0 AND NOT a.attisdropped AND NOT ({is_published})"
    );
    let full = quote_table((schema, table));
    for row in client.query(&sql, &[&name, &schema, &table]).await.map_err(query)? {
        let column: String = get(&row, 0)?;
        let Some(role) = route.names().use_of(&column) else { continue };
        let generated: String = get(&row, 1)?;
        let kind = if generated.is_empty() { "" } else { "generated " };
        let publication = quote(name);
        if !generated.is_empty() && (version < 180_000 || generated != "s") {
            return Err(unpublished(route, &column, role, &generated, &get::<String>(&row, 2)?));
        }
        let remedy = if generated.is_empty() {
            format!(
                "BEGIN; ALTER PUBLICATION {publication} DROP TABLE {full}; ALTER PUBLICATION {publication} ADD TABLE \
                 {full}; COMMIT"
            )
        } else {
            format!("ALTER PUBLICATION {publication} SET (publish_generated_columns = stored)")
        };
        return Err(Error::PublicationUnfit {
            publication: name.to_owned(),
            what: format!(
                "does not publish {kind}column {column:?} of table {schema}.{table}, which is mapped as {role}"
            ),
            remedy,
        });
    }
    Ok(())
}

/// The error of a generated column: only a change of the table helps.
fn unpublished(route: &Route, column: &str, role: &str, generated: &str, kind: &str) -> Error {
    let (full, quoted) = (quote_table(route.table()), quote(column));
    let remedy = if generated == "s" {
        format!("ALTER TABLE {full} ALTER COLUMN {quoted} DROP EXPRESSION")
    } else {
        // A virtual column is not stored.
        format!("ALTER TABLE {full} DROP COLUMN {quoted}, ADD COLUMN {quoted} {kind}")
    };
    let what = format!("has the generated column {column:?}, which is mapped as {role} and cannot be published");
    Error::TableUnfit { table: route.name(), what, remedy }
}
