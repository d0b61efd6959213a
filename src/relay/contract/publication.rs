//! The publication: which tables, which rows and which columns it publishes.

use tokio_postgres::Client;

use crate::relay::route::Route;

use super::Error;
use super::get;
use super::query;
use super::quote;
use super::quote_table;

pub(super) async fn check(client: &Client, name: &str, version: u32, routes: &[Route]) -> Result<(), Error> {
    let sql =
        "SELECT pubinsert, pubupdate OR pubdelete OR pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&name]).await.map_err(query)? else {
        return Err(Error::PublicationMissing { publication: name.to_owned() });
    };
    let unfit = |what: &str, remedy: String| Error::PublicationUnfit {
        publication: name.to_owned(),
        what: what.to_owned(),
        remedy,
    };
    let quoted = quote(name);
    if !get::<bool>(&row, 0)? || get::<bool>(&row, 1)? {
        let what = "publishes more or less than inserts; updates and deletes in it break the application's own";
        return Err(unfit(what, format!("ALTER PUBLICATION {quoted} SET (publish = 'insert')")));
    }
    if !get::<bool>(&row, 2)? {
        let what = "does not publish partitions under their root";
        return Err(unfit(what, format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)")));
    }
    for route in routes {
        let (schema, table) = route.table();
        let filtered = if version >= 150_000 { "rowfilter IS NOT NULL" } else { "false" };
        let sql = format!(
            "SELECT {filtered} FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3"
        );
        let row = client.query_opt(&sql, &[&name, &schema, &table]).await.map_err(query)?;
        let full = quote_table((schema, table));
        let Some(row) = row else {
            return Err(unfit(
                &format!("does not contain table {schema}.{table}"),
                format!("ALTER PUBLICATION {quoted} ADD TABLE {full}"),
            ));
        };
        if get::<bool>(&row, 0)? {
            return Err(unfit(
                &format!("has a row filter on table {schema}.{table}, so events would be left out"),
                // Not SET TABLE, which would take all other tables out; and in one transaction, or what is committed in between is
                // never published.
                format!(
                    "BEGIN; ALTER PUBLICATION {quoted} DROP TABLE {full}; ALTER PUBLICATION {quoted} ADD TABLE {full}; COMMIT"
                ),
            ));
        }
    }
    Ok(())
}
