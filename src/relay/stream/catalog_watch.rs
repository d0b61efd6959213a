//! The watch over the catalog: nothing is confirmed before a look that came later has found the publication as it was.
//!
//! A position is known before the look begins, so a look that finds nothing changed covers it. One query looks; only when its
//! result differs is the whole contract checked. What was found is kept beside the stored position, so that a restart sees
//! what was changed meanwhile. A change whose commit waits for a synchronous standby is visible in the WAL before it is visible
//! here: it is still noticed, by a later look, and the range that is named then may begin late by that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio_postgres::Client;

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

/// What is watched, and how it was last found.
#[derive(Clone, Debug)]
pub struct Watch {
    slot: String,
    publication: String,
    routes: Vec<Route>,
    /// Whether what is found is kept beside the position.
    is_stored: bool,
    version: u32,
    /// Shared with whoever begins the next connection: where nothing is stored, only this process knows it.
    seen: Arc<Mutex<Seen>>,
}

/// How everything was found last.
#[derive(Clone, Debug)]
struct Seen {
    found: Coverage,
    /// The last position that a look has covered.
    covered: Lsn,
}

/// What a look finds.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Look {
    /// None while the publication or a table is missing.
    pub(in crate::relay) coverage: Option<Coverage>,
    /// The end of the WAL, read in the same query.
    pub(in crate::relay) wal_end: Lsn,
}

impl Look {
    /// Gives what was found, if nothing may have passed unseen since an earlier look, which covered everything up to `from`.
    pub(in crate::relay) fn since(&self, earlier: Option<&Coverage>, from: Lsn) -> Result<Coverage, catalog::Error> {
        let unseen = |what| catalog::Error::Unseen { what, from, to: self.wal_end };
        let missing = || unseen("the publication or a table of it was missing for a moment".to_owned());
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

/// What the catalog says at the start and what it said before, to be judged once it is known that it is the same server.
#[derive(Clone, Debug)]
pub(in crate::relay) struct First {
    version: u32,
    look: Look,
    kept: Option<Coverage>,
    stored: Option<Lsn>,
}

impl First {
    /// Looks at the catalog, and at what is kept beside a stored position. The contract holds. Nothing is written.
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

    /// Gives what was found, the first position that it does not cover, and whether it is news. Something may have been hidden
    /// since what is kept or, where nothing is stored, since this process looked last.
    pub(in crate::relay) fn weigh(&self, before: Option<&Watch>) -> Result<(Coverage, Lsn, bool), Error> {
        let Self { look, kept, stored, .. } = self;
        let remembered = before.filter(|_| stored.is_none()).map(Watch::seen);
        let from = stored.or(remembered.as_ref().map(|seen| seen.covered)).unwrap_or(look.wal_end);
        let earlier = kept.clone().or(remembered.map(|seen| seen.found));
        let found = look.since(earlier.as_ref(), from)?;
        let is_news = earlier.as_ref() != Some(&found);
        Ok((found, from, is_news))
    }

    /// Begins the watch, if nothing was hidden. Says whether it has found something else than what is kept.
    pub(in crate::relay) fn judge(
        self,
        (slot, publication, routes): (&str, &str, &[Route]),
        before: Option<&Watch>,
    ) -> Result<(Watch, bool), Error> {
        let (found, covered, is_news) = self.weigh(before)?;
        let watch = Watch {
            slot: slot.to_owned(),
            publication: publication.to_owned(),
            routes: routes.to_vec(),
            is_stored: self.stored.is_some(),
            version: self.version,
            seen: Arc::new(Mutex::new(Seen { found, covered })),
        };
        Ok((watch, is_news))
    }
}

impl Watch {
    /// Keeps beside the stored position what was found. Only the relay that has the slot does: what another one covers is not this.
    pub(in crate::relay) async fn keep(&self, client: &Client) -> Result<(), position::Error> {
        save(client, &self.slot, &self.seen().found).await
    }

    /// Looks once. Whatever was known to be in the WAL before may be confirmed after.
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

    /// Notes that a position is confirmed after a look.
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

/// Checks the contract. Where a table is found unfit, that leaves no trace in the catalog once it is repaired: it is remembered
/// beside the position, for events may have passed unseen meanwhile.
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
        && let Err(failed) = doubt(client, slot, routes, table, &error).await
    {
        tracing::warn!(error = chain(&failed), "cannot store that events may be missing");
    }
    Err(error.into())
}

/// Remembers why events may have passed unseen. A table that the relay did not relay before begins later.
async fn doubt(
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
    // It is kept under the name that it had then.
    let mut names = route.into_iter().flat_map(Route::tables);
    let is_covered = names.any(|(schema, name)| kept.covers(&catalog::quote_table((schema, name))));
    if !is_covered || kept.doubt.is_some() {
        return Ok(());
    }
    save(client, slot, &Coverage { doubt: Some(error.to_string()), ..kept }).await
}

/// Looks at the publication and the tables.
pub(in crate::relay) async fn look(
    client: &Client,
    publication: &str,
    routes: &[Route],
    version: u32,
) -> Result<Look, catalog::Error> {
    // A table's own row in the publication, its schema's row with what ties the table to the schema, or all tables.
    let by_schema = if version >= 150_000 {
        "UNION ALL SELECT format('schema %s/%s/%s/%s', s.oid, s.xmin, c.oid, d.xmin)
         FROM pg_publication_namespace s, pg_depend d
         WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
               AND d.objsubid = 0 AND d.refclassid = 'pg_namespace'::regclass"
    } else {
        ""
    };
    let sql = format!(
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
                ARRAY (SELECT format('%s %s %s', g.attnum, g.atttypid, g.attname) FROM pg_attribute g
                       WHERE g.attrelid = c.oid AND g.attnum > 0 AND NOT g.attisdropped),
                ARRAY (SELECT format('%s %s', k.oid, k.reltoastrelid) FROM pg_class k
                       WHERE k.reltoastrelid <> 0
                             AND (k.oid = c.oid OR k.oid IN (SELECT t.relid FROM pg_partition_tree(c.oid) t)))
         FROM unnest($2::text[], $3::text[], $4::text[]) AS w (name, schema, relation)
         LEFT JOIN pg_publication p ON p.pubname = $1
         LEFT JOIN pg_namespace n ON n.nspname = w.schema
         LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.relation AND c.relkind IN ('r', 'p')"
    );
    // Each under every name that it may have; one of them is there.
    let (mut names, mut schemas, mut relations) = (Vec::new(), Vec::new(), Vec::new());
    for route in routes {
        for (schema, relation) in route.tables() {
            names.push(catalog::quote_table(route.table()));
            schemas.push(schema.as_str());
            relations.push(relation.as_str());
        }
    }
    let rows = client.query(&sql, &[&publication, &names, &schemas, &relations]).await.map_err(catalog::query)?;
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
                columns: columns(&catalog::get::<Vec<String>>(row, 7)?, route),
                heaps: catalog::get::<Vec<String>>(row, 8)?.iter().filter_map(|heap| pair(heap)).collect(),
            };
            tables.insert(name, table);
        }
    }
    let is_whole = tables.len() == routes.len();
    let publication = publication.filter(|_| is_whole);
    let coverage = publication.map(|publication| Coverage { name, publication, tables, doubt: None });
    Ok(Look { coverage, wal_end })
}

/// Reads columns from their number, the oid of their type and their name.
fn columns(texts: &[String], route: Option<&Route>) -> BTreeMap<i64, Column> {
    let column = |text: &String| {
        let (number, rest) = text.split_once(' ')?;
        let (kind, name) = rest.split_once(' ')?;
        let role = route.and_then(|route| route.names().role_of(name)).map(|role| role.name().to_owned());
        Some((number.parse().ok()?, Column { name: name.to_owned(), kind: kind.parse().ok()?, role }))
    };
    texts.iter().filter_map(column).collect()
}

fn pair(text: &str) -> Option<(i64, i64)> {
    let (first, second) = text.split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

/// Reads what is kept beside the position; none if nothing is kept yet.
pub(in crate::relay) async fn load(client: &Client, slot: &str) -> Result<Option<Coverage>, position::Error> {
    let sql = "SELECT catalog_state FROM walrelay.position WHERE slot = $1::text::name";
    let row = client.query_opt(sql, &[&slot]).await.map_err(|error| position::failed("read", error))?;
    let Some(row) = row else { return Ok(None) };
    let text: Option<String> = row.try_get(0).map_err(|error| position::failed("read", error))?;
    let unreadable = || position::Error::Changed { slot: slot.to_owned() };
    text.map(|text| Coverage::parse(&text).ok_or_else(unreadable)).transpose()
}

/// Keeps what was found beside the position.
pub(in crate::relay) async fn save(client: &Client, slot: &str, found: &Coverage) -> Result<(), position::Error> {
    let sql = "UPDATE walrelay.position SET catalog_state = $2 WHERE slot = $1::text::name";
    client.execute(sql, &[&slot, &found.to_text()]).await.map_err(|error| position::failed("write", error)).map(drop)
}
