//! The catalog check at run time: a position is confirmed only after a later query has found the publication unchanged.
//!
//! A position is known before the query, so a query that finds no change covers it. It is one query; only when its
//! result differs is everything checked. The result is stored beside the position, so that a restart notices a change
//! in between. A change whose commit waits for a synchronous standby is visible in the WAL before it is visible here: a
//! later query notices it, and the reported range may start late by that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio_postgres::Client;
use tokio_postgres::Row;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::catalog::Facts;
use crate::relay::catalog::coverage::Column;
use crate::relay::catalog::coverage::Coverage;
use crate::relay::catalog::coverage::Renamed;
use crate::relay::catalog::coverage::RowVersion;
use crate::relay::catalog::coverage::Table;
use crate::relay::error::Error;
use crate::relay::record::route::Route;
use crate::relay::stream::position;
use walrelay_events::fault::chain;

/// What is watched, and the last result.
#[derive(Clone, Debug)]
pub struct CatalogWatch {
    slot: String,
    publication: String,
    routes: Vec<Route>,
    /// Whether the result is stored beside the position.
    is_stored: bool,
    version: u32,
    /// Shared with the next connection: if nothing is stored, only this process knows it.
    seen: Arc<Mutex<Seen>>,
}

/// The last result.
#[derive(Clone, Debug)]
struct Seen {
    found: Coverage,
    /// The last position that a query has covered.
    covered: Lsn,
}

/// The result of a query.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Look {
    /// None if the publication or a table is missing.
    pub(in crate::relay) coverage: Option<Coverage>,
    /// The end of the WAL, read in the same query.
    pub(in crate::relay) wal_end: Lsn,
}

impl Look {
    /// Gives the coverage, if no event can have been omitted since an earlier query, which covered everything up to
    /// `from`.
    pub(in crate::relay) fn since(&self, earlier: Option<&Coverage>, from: Lsn) -> Result<Coverage, catalog::Error> {
        let unseen = |what| catalog::Error::Unseen { what, from, to: self.wal_end };
        let missing = || unseen("the publication or a table of it was missing temporarily".to_owned());
        let found = self.coverage.as_ref().ok_or_else(missing)?;
        if let Some(what) = earlier.and_then(|earlier| earlier.unseen(found)) {
            return Err(unseen(what));
        }
        if let Some(Renamed { table, role, before, now }) = earlier.and_then(|earlier| earlier.renamed(found)) {
            return Err(catalog::Error::ColumnRenamed { table, role, before, now });
        }
        Ok(found.clone())
    }
}

/// The catalog at the start and its stored state, compared once it is known that it is the same server.
#[derive(Clone, Debug)]
pub(in crate::relay) struct StartCheck {
    version: u32,
    look: Look,
    kept: Option<Coverage>,
    stored: Option<Lsn>,
}

impl StartCheck {
    /// Queries the catalog and the state that is stored beside the position, after a successful check. Writes nothing.
    pub(in crate::relay) async fn look(
        client: &Client,
        slot: &str,
        publication: &str,
        routes: &[Route],
        stored: Option<Lsn>,
    ) -> Result<Self, Error> {
        let version = catalog::version(client).await?;
        let look = look(client, publication, routes, version).await?;
        let kept = if stored.is_some() { load(client, slot).await? } else { None };
        Ok(Self { version, look, kept, stored })
    }

    /// Gives the coverage, the first position that it does not cover, and whether it is new. The comparison is with the
    /// stored state or, if nothing is stored, with the last query of this process.
    pub(in crate::relay) fn assess(&self, before: Option<&CatalogWatch>) -> Result<(Coverage, Lsn, bool), Error> {
        let Self { look, kept, stored, .. } = self;
        let remembered = before.filter(|_| stored.is_none()).map(CatalogWatch::seen);
        let from = stored.or(remembered.as_ref().map(|seen| seen.covered)).unwrap_or(look.wal_end);
        let earlier = kept.clone().or(remembered.map(|seen| seen.found));
        let found = look.since(earlier.as_ref(), from)?;
        let is_new = earlier.as_ref() != Some(&found);
        Ok((found, from, is_new))
    }

    /// Starts the watch, if no event can have been omitted. Says whether the coverage differs from the stored one.
    pub(in crate::relay) fn judge(
        self,
        (slot, publication, routes): (&str, &str, &[Route]),
        before: Option<&CatalogWatch>,
    ) -> Result<(CatalogWatch, bool), Error> {
        let (found, covered, is_new) = self.assess(before)?;
        let watch = CatalogWatch {
            slot: slot.to_owned(),
            publication: publication.to_owned(),
            routes: routes.to_vec(),
            is_stored: self.stored.is_some(),
            version: self.version,
            seen: Arc::new(Mutex::new(Seen { found, covered })),
        };
        Ok((watch, is_new))
    }
}

impl CatalogWatch {
    /// Stores the coverage beside the position. Only the relay that holds the slot may do so.
    pub(in crate::relay) async fn keep(&self, client: &Client) -> Result<(), position::Error> {
        save(client, &self.slot, &self.seen().found).await
    }

    /// Queries once. Afterwards every position that was known before may be confirmed.
    pub(in crate::relay) async fn look(&self, client: &Client) -> Result<(), Error> {
        let look = look(client, &self.publication, &self.routes, self.version).await?;
        let seen = self.seen();
        if look.coverage.as_ref() == Some(&seen.found) {
            return Ok(());
        }
        verify(client, &self.slot, &self.publication, &self.routes, self.is_stored).await?;
        let found = look.since(Some(&seen.found), seen.covered)?;
        if self.is_stored {
            save(client, &self.slot, &found).await?;
        }
        self.lock().found = found;
        Ok(())
    }

    /// Records that a position is confirmed after a query.
    pub(in crate::relay) fn cover(&self, position: Lsn) {
        let mut seen = self.lock();
        seen.covered = seen.covered.max(position);
    }

    /// Says whether positions are stored.
    pub(in crate::relay) const fn is_stored(&self) -> bool {
        self.is_stored
    }

    fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks slot, publication and tables. An unfit table leaves no trace in the catalog after it is fixed, so it is
/// stored beside the position: events may have been omitted meanwhile.
pub(in crate::relay) async fn verify(
    client: &Client,
    slot: &str,
    publication: &str,
    routes: &[Route],
    is_stored: bool,
) -> Result<Facts, Error> {
    let error = match catalog::verify(client, slot, publication, routes).await {
        Ok(facts) => return Ok(facts),
        Err(error) => error,
    };
    if is_stored
        && let catalog::Error::TableUnfit { table, .. } = &error
        && let Err(failed) = store_failure(client, slot, routes, table, &error).await
    {
        tracing::warn!(error = chain(&failed), "cannot store the failed catalog check");
    }
    Err(error.into())
}

/// Stores why events may have been omitted. A table that was not relayed before is not affected.
async fn store_failure(
    client: &Client,
    slot: &str,
    routes: &[Route],
    table: &str,
    error: &catalog::Error,
) -> Result<(), position::Error> {
    let Some(kept) = load(client, slot).await? else { return Ok(()) };
    let is_it = |(schema, name): &(String, String)| {
        table.strip_prefix(schema.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(name.as_str())
    };
    let route = routes.iter().find(|route| route.tables().iter().any(is_it));
    // It is stored under its name of that time.
    let mut names = route.into_iter().flat_map(Route::tables);
    let is_covered = names.any(|(schema, name)| kept.covers(&catalog::quote_table((schema, name))));
    if !is_covered || kept.failed_check.is_some() {
        return Ok(());
    }
    save(client, slot, &Coverage { failed_check: Some(error.to_string()), ..kept }).await
}

/// Queries the publication and the tables.
pub(in crate::relay) async fn look(
    client: &Client,
    publication: &str,
    routes: &[Route],
    version: u32,
) -> Result<Look, catalog::Error> {
    // Each by every possible name; one of them exists.
    let (mut names, mut schemas, mut relations) = (Vec::new(), Vec::new(), Vec::new());
    for route in routes {
        for (schema, relation) in route.tables() {
            names.push(catalog::quote_table(route.table()));
            schemas.push(schema.as_str());
            relations.push(relation.as_str());
        }
    }
    let rows = client
        .query(&statement(version), &[&publication, &names, &schemas, &relations])
        .await
        .map_err(catalog::query)?;
    let (name, mut publication) = (publication.to_owned(), None);
    let (mut tables, mut wal_end) = (BTreeMap::new(), Lsn::ZERO);
    for row in &rows {
        wal_end = catalog::lsn(&catalog::get::<String>(row, 4)?)?;
        let (oid, xmin): (Option<i64>, Option<String>) = (catalog::get(row, 1)?, catalog::get(row, 2)?);
        publication = oid.zip(xmin).map(|(oid, xmin)| RowVersion { oid, xmin });
        if let Some(oid) = catalog::get::<Option<i64>>(row, 3)? {
            let name: String = catalog::get(row, 0)?;
            let route = routes.iter().find(|route| catalog::quote_table(route.table()) == name);
            let table = Table {
                oid,
                ways: catalog::get::<Vec<String>>(row, 5)?.into_iter().collect(),
                shape: catalog::get(row, 6)?,
                columns: columns(row, route)?,
                heaps: catalog::get::<Vec<i64>>(row, 10)?.into_iter().zip(catalog::get::<Vec<i64>>(row, 11)?).collect(),
            };
            tables.insert(name, table);
        }
    }
    let is_whole = tables.len() == routes.len();
    let publication = publication.filter(|_| is_whole);
    let coverage = publication.map(|publication| Coverage { name, publication, tables, failed_check: None });
    Ok(Look { coverage, wal_end })
}

/// The query of the publication and the tables, by the server's version.
fn statement(version: u32) -> String {
    // A table's own row in the publication, its schema's row with what ties the table to the schema, or all tables.
    let by_schema = if version >= 150_000 {
        "UNION ALL SELECT format('schema %s/%s/%s/%s', s.oid, s.xmin, c.oid, d.xmin)
         FROM pg_publication_namespace s, pg_depend d
         WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
               AND d.objsubid = 0 AND d.refclassid = 'pg_namespace'::regclass"
    } else {
        ""
    };
    format!(
        "SELECT w.name, p.oid::bigint, p.xmin::text, c.oid::bigint, pg_current_wal_insert_lsn()::text,
                ARRAY (SELECT format('table %s/%s', r.oid, r.xmin) FROM pg_publication_rel r
                       WHERE r.prpubid = p.oid AND r.prrelid = c.oid
                       UNION ALL SELECT 'all tables' WHERE p.puballtables
                       {by_schema}),
                c.relpersistence::text || (SELECT count(*) FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
                                           WHERE i.inhparent = c.oid AND NOT k.relispartition)
                    || (SELECT count(*) FROM pg_partition_tree(c.oid) t JOIN pg_class k ON k.oid = t.relid
                        WHERE k.relpersistence <> 'p' OR k.relkind = 'f')
                    || (SELECT count(*) FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> ''),
                a.numbers, a.kinds, a.names, h.oids, h.toasts, a.modifiers
         FROM unnest($2::text[], $3::text[], $4::text[]) AS w (name, schema, relation)
         LEFT JOIN pg_publication p ON p.pubname = $1
         LEFT JOIN pg_namespace n ON n.nspname = w.schema
         LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.relation AND c.relkind IN ('r', 'p')
         CROSS JOIN LATERAL (
             SELECT coalesce(array_agg(g.attnum::bigint), '{{}}') AS numbers,
                    coalesce(array_agg(g.atttypid::bigint), '{{}}') AS kinds,
                    coalesce(array_agg(g.atttypmod::bigint), '{{}}') AS modifiers,
                    coalesce(array_agg(g.attname::text), '{{}}') AS names
             FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attnum > 0 AND NOT g.attisdropped) AS a
         CROSS JOIN LATERAL (
             SELECT coalesce(array_agg(k.oid::bigint), '{{}}') AS oids,
                    coalesce(array_agg(k.reltoastrelid::bigint), '{{}}') AS toasts
             FROM pg_class k
             WHERE k.reltoastrelid <> 0
                   AND (k.oid = c.oid OR k.oid IN (SELECT t.relid FROM pg_partition_tree(c.oid) t))) AS h"
    )
}

/// Reads the columns of a table: their numbers, the OIDs and modifiers of their types, and their names.
fn columns(row: &Row, route: Option<&Route>) -> Result<BTreeMap<i64, Column>, catalog::Error> {
    let (numbers, kinds): (Vec<i64>, Vec<i64>) = (catalog::get(row, 7)?, catalog::get(row, 8)?);
    let (names, modifiers): (Vec<String>, Vec<i64>) = (catalog::get(row, 9)?, catalog::get(row, 12)?);
    let column = |((number, name), (kind, modifier)): ((i64, String), (i64, i64))| {
        let role = route.and_then(|route| route.names().role_of(&name)).map(|role| role.name().to_owned());
        (number, Column { name, kind, modifier: Some(modifier), role })
    };
    Ok(numbers.into_iter().zip(names).zip(kinds.into_iter().zip(modifiers)).map(column).collect())
}

/// Reads the state that is stored beside the position; none if there is none yet.
pub(in crate::relay) async fn load(client: &Client, slot: &str) -> Result<Option<Coverage>, position::Error> {
    let sql = "SELECT catalog_state FROM walrelay.position WHERE slot = $1::text::name";
    let row = client.query_opt(sql, &[&slot]).await.map_err(|error| position::failed("read", error))?;
    let Some(row) = row else { return Ok(None) };
    let text: Option<String> = row.try_get(0).map_err(|error| position::failed("read", error))?;
    let unreadable = || position::Error::Changed { slot: slot.to_owned() };
    text.map(|text| Coverage::parse(&text).ok_or_else(unreadable)).transpose()
}

/// Stores the coverage beside the position.
pub(in crate::relay) async fn save(client: &Client, slot: &str, found: &Coverage) -> Result<(), position::Error> {
    let sql = "UPDATE walrelay.position SET catalog_state = $2 WHERE slot = $1::text::name";
    client.execute(sql, &[&slot, &found.to_text()]).await.map_err(|error| position::failed("write", error)).map(drop)
}
