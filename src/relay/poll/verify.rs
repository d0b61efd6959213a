//! The check of a table before it is polled. Nothing is created and nothing is changed.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::relay::catalog;
use crate::relay::catalog::quote;
use crate::relay::error::Error as RelayError;

use super::error::Error;
use super::grants;
use super::numbers::Sequence;
use super::outbox::Outbox;
use super::outbox::Own;

/// A table that passed the check.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Found {
    /// The outbox, with the current names of its table and columns.
    pub(in crate::relay) outbox: Outbox,
    /// Its OID.
    pub(super) id: u32,
    /// Its columns; the route may read optional ones that do not exist.
    pub(super) columns: Vec<String>,
    /// The sequences of its numbers; none if the application assigns them.
    pub(super) sequences: Vec<Sequence>,
    /// The statement that gives it an index on unpublished rows; none if it has one.
    pub(in crate::relay) index_statement: Option<String>,
}

/// Checks one outbox: its columns, its sequences and the role's privileges.
pub(in crate::relay) async fn verify(client: &Client, outbox: &Outbox) -> Result<Found, RelayError> {
    let resolved = resolve(client, outbox).await?;
    let (schema, name) = resolved.route.table();
    catalog::columns(client, &outbox.route.named(schema, name)).await?;
    let outbox = &resolved;
    let names = &outbox.names;
    let sql =
        "SELECT c.oid, current_user::text, has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
                      coalesce(has_column_privilege(c.oid, p.attnum, 'UPDATE'), false),
                      s.attnotnull AND s.atttypid IN (20, 21, 23), p.atttypid = 1184, row_security_active(c.oid),
                      (SELECT CASE WHEN bool_or(i.indisvalid) THEN ''
                                    ELSE min(format('%I.%I', xn.nspname, x.relname)) END
                       FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                       JOIN pg_namespace xn ON xn.oid = x.relnamespace
                       WHERE i.indrelid = c.oid AND i.indkey[0] = s.attnum AND i.indpred IS NOT NULL),
                      ARRAY (SELECT a.attname::text FROM pg_attribute a
                             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                      coalesce((SELECT string_agg(quote_ident(o.polname), ', ' ORDER BY o.polname)
                                FROM pg_policy o WHERE o.polrelid = c.oid), ''), c.relkind = 'p'
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_attribute s ON s.attrelid = c.oid AND s.attname = $3 AND NOT s.attisdropped
               LEFT JOIN pg_attribute p ON p.attrelid = c.oid AND p.attname = $4 AND NOT p.attisdropped
               WHERE n.nspname = $1 AND c.relname = $2";
    let of_table = [schema, name, &names.sequence, &names.published_at];
    let values = of_table.each_ref().map(|value| (value as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT));
    let row = client.query_typed_one(sql, &values).await.map_err(failed)?;
    let table = format!("{schema}.{name}");
    let unfit = |what: String, remedy: String| Error::Unfit { table: table.clone(), what, remedy };
    let missing = |column: &str, kind: &str| {
        unfit(
            format!("has no column {column:?} that is {kind}, which mode poll needs"),
            "run `walrelay setup --apply`, or name the column under [outbox.columns]".to_owned(),
        )
    };
    if row.try_get::<_, Option<bool>>(5).map_err(failed)? != Some(true) {
        return Err(missing(&names.sequence, "a number and NOT NULL").into());
    }
    if row.try_get::<_, Option<bool>>(6).map_err(failed)? != Some(true) {
        return Err(missing(&names.published_at, "timestamptz").into());
    }
    for (column, what) in [(2, "use the schema of"), (3, "read"), (4, "mark rows as published in")] {
        if !row.try_get::<_, bool>(column).map_err(failed)? {
            let role: String = row.try_get(1).map_err(failed)?;
            let grant = grants::grants(outbox, &role);
            return Err(Error::Rights { role, what, table, grant }.into());
        }
    }
    if row.try_get::<_, bool>(7).map_err(failed)? {
        let policies: String = row.try_get(10).map_err(failed)?;
        let policies =
            if policies.is_empty() { "it has no policy".to_owned() } else { format!("policies: {policies}") };
        return Err(Error::Hidden { role: row.try_get(1).map_err(failed)?, table, policies }.into());
    }
    let sequences = sequences(client, outbox).await?;
    let index: Option<&str> = row.try_get(8).map_err(failed)?;
    let index_statement = index_statement(outbox, index, row.try_get(11).map_err(failed)?);
    Ok(Found {
        outbox: resolved,
        id: row.try_get(0).map_err(failed)?,
        columns: row.try_get(9).map_err(failed)?,
        sequences,
        index_statement,
    })
}

/// The statement for an index that is missing, or that is unusable because its creation failed. The name of a usable
/// one is empty.
fn index_statement(outbox: &Outbox, index: Option<&str>, is_partitioned: bool) -> Option<String> {
    match (index, is_partitioned) {
        (Some(""), _) => None,
        (Some(unusable), false) => Some(format!("REINDEX INDEX CONCURRENTLY {unusable}")),
        // Partitions may have theirs nevertheless.
        (Some(_), true) => None,
        (None, true) => Some(outbox.create_index()),
        (None, false) => Some(outbox.create_index_concurrently()),
    }
}

/// Gives an outbox with the current names of its table and columns.
pub(in crate::relay) async fn resolve(client: &Client, outbox: &Outbox) -> Result<Outbox, RelayError> {
    let routes = catalog::settle(client, std::slice::from_ref(&outbox.route)).await?;
    let Some(route) = routes.into_iter().next() else { return Ok(outbox.clone()) };
    let (schema, name) = route.table();
    let sql = "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(failed)?;
    let columns = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>().map_err(failed)?;
    let one = |names: &[String], what: &str| {
        let found: Vec<&String> = names.iter().filter(|name| columns.contains(name)).collect();
        match found.as_slice() {
            [] => Ok(names.to_vec()),
            [name] => Ok(vec![(*name).clone()]),
            [name, other, ..] => Err(Error::Unfit {
                table: route.name(),
                what: format!("has columns {name:?} and {other:?}, of which only one can be the {what}"),
                remedy: "remove the other name under [outbox.columns]".to_owned(),
            }),
        }
    };
    let own = Own {
        sequence: one(&outbox.own.sequence, "sequence")?,
        published_at: one(&outbox.own.published_at, "published_at")?,
        created_at: one(&outbox.own.created_at, "created_at")?,
    };
    Ok(Outbox::new(route.settled(&columns), own))
}

/// Finds and checks the sequences of the column `sequence`: its own, and those in its default.
async fn sequences(client: &Client, outbox: &Outbox) -> Result<Vec<Sequence>, RelayError> {
    let (schema, name) = outbox.route.table();
    // By the dependencies of the column and of its default: that needs no privilege.
    let sql =
        "SELECT q.seqrelid, quote_ident(n.nspname) || '.' || quote_ident(s.relname), q.seqcache, q.seqincrement, \
               q.seqcycle,
                      least(q.seqmax, CASE a.atttypid WHEN 21 THEN 32767 WHEN 23 THEN 2147483647 ELSE q.seqmax END),
                      has_sequence_privilege(q.seqrelid, 'USAGE') OR has_sequence_privilege(q.seqrelid, 'SELECT'),
                      current_user::text
               FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
               LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
               JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                                   AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
                                OR d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = \
                                'pg_class'::regclass
               JOIN pg_sequence q ON q.seqrelid = CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid ELSE \
               d.refobjid END
               JOIN pg_class s ON s.oid = q.seqrelid JOIN pg_namespace n ON n.oid = s.relnamespace
               WHERE cn.nspname = $1 AND c.relname = $2 GROUP BY 1, 2, 3, 4, 5, 6";
    let values = [schema, name, &outbox.names.sequence];
    let values = values.each_ref().map(|value| (value as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT));
    let rows = client.query_typed(sql, &values).await.map_err(failed)?;
    rows.iter().map(|row| sequence(outbox, row)).collect()
}

fn sequence(outbox: &Outbox, row: &Row) -> Result<Sequence, RelayError> {
    let (schema, name) = outbox.route.table();
    let (table, column) = (format!("{schema}.{name}"), quote(&outbox.names.sequence));
    let sequence: String = row.try_get(1).map_err(failed)?;
    let unfit = |what: String, change: &str| Error::Unfit {
        table: table.clone(),
        what,
        remedy: format!("run `ALTER SEQUENCE {sequence} {change}`"),
    };
    if let cache @ 2.. = row.try_get::<_, i64>(2).map_err(failed)? {
        let what = format!("has a sequence of {column} with CACHE {cache}, so numbers are not in commit order");
        return Err(unfit(what, "CACHE 1").into());
    }
    if row.try_get::<_, i64>(3).map_err(failed)? < 0 {
        let what = format!("has a descending sequence of {column}, so later events would come first");
        return Err(unfit(what, "INCREMENT 1").into());
    }
    if row.try_get::<_, bool>(4).map_err(failed)? {
        let what = format!("has a sequence of {column} with CYCLE, which starts again at its end");
        return Err(unfit(what, "NO CYCLE").into());
    }
    if !row.try_get::<_, bool>(6).map_err(failed)? {
        let role: String = row.try_get(7).map_err(failed)?;
        let grant = grants::grant_on_sequence(&sequence, &role);
        return Err(Error::Rights { role, what: "read the sequence of", table, grant }.into());
    }
    Ok(Sequence { id: row.try_get(0).map_err(failed)?, end: row.try_get(5).map_err(failed)?, name: sequence })
}

fn failed(error: tokio_postgres::Error) -> RelayError {
    RelayError::postgres("read the catalog")(error)
}
